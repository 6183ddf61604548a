"""The command llmprune, as it is typed."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from pytest_llmprune import __version__


@pytest.fixture
def llmprune(tmp_path):
    """Run `llmprune ARGUMENTS` in an empty directory."""

    def run(*arguments):
        command = [sys.executable, "-m", "pytest_llmprune.cli", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    return run


def test_gate_report_and_models(llmprune, tmp_path):
    gate = llmprune("gate", "tiny", "--llmprune-prune", "ffn:0.2", "-k", "test_quality", "--llmprune-report", "r.html")
    assert gate.returncode == 0, gate.stdout + gate.stderr
    assert gate.stdout.rstrip().splitlines()[-2].startswith("next: llmprune report .llmprune/")
    assert "<svg" in (tmp_path / "r.html").read_text()

    report = llmprune("report")
    assert report.returncode == 0
    assert "tiny (speeds in tokens/s, medians of this run)" in report.stdout
    assert llmprune("report", "-o", "again.html").returncode == 0
    assert (tmp_path / "again.html").read_text() == (tmp_path / "r.html").read_text()

    newest = str(next(tmp_path.glob(".llmprune/*/0001_tiny.json")).relative_to(tmp_path))
    same = llmprune("compare", newest, newest, "--fail-on", "ppl:0.1%")
    assert same.returncode == 0
    assert same.stdout.endswith(f"safe against {newest}: 1 item compared\n")
    values = json.loads(llmprune("compare", newest, newest, "--format", "json").stdout)
    shift = next(shift for shift in values["measurements"] if shift["name"] == "ppl")
    assert (values["verdict"], shift["low"], shift["basis"]) == ("safe", 1.0, "paired over equal windows")
    assert llmprune("compare", newest, newest, "--fail-on", "trace-time:1%").returncode == 1

    accepted = llmprune("accept", newest)
    assert accepted.returncode == 0
    assert ": 1 items, accepted by " in accepted.stdout
    assert llmprune("compare", "llmprune-baseline.json", newest, "--fail-on", "ppl:0.1%").returncode == 0

    models = llmprune("models")
    assert models.returncode == 0
    assert "meta-llama/Llama-2-7b-hf" in models.stdout


def test_a_gate_that_fails_exits_1_and_one_that_is_undecided_3(llmprune):
    common = (
        "gate",
        "tiny",
        "--llmprune-prune",
        "ffn:0.2",
        "-k",
        "test_quality",
        "--llmprune-gate",
        "coherence_ratio>=0.01",
        "--llmprune-gate",
    )
    first = llmprune(*common, "ppl_ratio<=1.0001")
    assert first.returncode == 1
    line = next(line for line in first.stdout.splitlines() if "95% interval" in line)
    low, high = (float(n) for n in line.split("interval ")[1].split(")")[0].split(" to "))
    assert llmprune(*common, f"ppl_ratio<={(low + high) / 2}").returncode == 3


def test_gate_repeat_measures_noise_and_measures_dense_once(llmprune, tmp_path):
    found = llmprune("gate", "tiny", "--repeat", "2", "--llmprune-prune", "ffn:0.2")
    assert found.returncode == 0, found.stdout + found.stderr
    row = found.stdout.splitlines()[2].split()
    assert row[:3] == ["tiny-ffn-0.2-taylor", "0.000%", "0"]
    assert float(row[3].rstrip("%")) > 0
    sources = [
        json.loads(file.read_text())["items"][0]["sources"]
        for file in sorted(tmp_path.glob(".llmprune/*/0*_tiny.json"))
    ]
    assert [s["dense.ppl"] for s in sources] == ["measured", "cached", "cached"]
    assert [s["dense.coherence"] for s in sources] == ["measured", "measured", "cached"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("report", "none.json"), "llmprune: none.json: no record can be read: No such file or directory"),
        (("report",), "llmprune: no record under "),
        (("compare", "a.json", "b.json"), "llmprune: a.json: no record can be read: No such file or directory"),
        (("accept", "a.json"), "llmprune: a.json: no record can be read: No such file or directory"),
        (("compare", "a.json", "b.json", "--fail-on", "speed:1%"), "unknown measurement 'speed'"),
        (("report", "--colour"), "unrecognized arguments: --colour"),
        (("gate", "tinny"), "ERROR: unknown model 'tinny'"),
        (("gate", "--llmprune-prune", "ffn:2"), "the ratio 2 is not between 0 and 1"),
        (("gate", "--repeat", "1"), "llmprune: --repeat 1: give a whole number of runs, at least 2"),
        (("gate", "tinny", "--repeat", "2"), "ERROR: unknown model 'tinny'"),
        (
            ("gate", "--repeat", "2", "--llmprune-record", "r.json"),
            "llmprune: --repeat: every run keeps a record of its own under .llmprune; leave out --llmprune-record",
        ),
        (("prune",), "invalid choice: 'prune'"),
        (("models", "--", "-x"), "models takes no arguments after --"),
        (("bisect", "torch-pruning", "--good", "1", "--bad", "2", "--checkout", "none"), "llmprune: git in none: "),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(llmprune, arguments, says):
    result = llmprune(*arguments)
    assert result.returncode == 2
    assert says in result.stderr + result.stdout
    assert "Traceback" not in result.stderr + result.stdout


def test_version(llmprune):
    assert llmprune("--version").stdout == f"llmprune {__version__}\n"


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "pytest_llmprune.cli", "models"]
    result = subprocess.run(command, cwd=tmp_path, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (result.returncode, result.stderr) == (141, "")
