"""The example workflow's shell steps do what docs/ci.md says; what needs a network is substituted."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).resolve().parents[2]
WORKFLOW = yaml.safe_load((ROOT / "examples" / "github-workflow.yml").read_text())
STEPS = {step["name"]: step for step in WORKFLOW["jobs"]["upgrade"]["steps"] if "run" in step}


@pytest.fixture
def step(tmp_path):
    """Run a step as GitHub does, with `pip` noted and not run, and `llmprune` as given."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "pip").write_text('#!/bin/sh\necho "pip $*" >> pip-calls\n')

    def run(name, llmprune=f'exec {sys.executable} -m pytest_llmprune.cli "$@"', **env):
        (programs / "llmprune").write_text(f"#!/bin/sh\n{llmprune}\n")
        for program in programs.iterdir():
            program.chmod(0o755)
        variables = {**os.environ, **WORKFLOW["env"], **env, "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md")}
        variables["PATH"] = f"{programs}{os.pathsep}{os.environ['PATH']}"
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", STEPS[name]["run"]]
        return subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)

    return run


def test_the_steps_name_no_expression_and_run_on_both_triggers():
    assert list(STEPS) == ["install", "pinned against newest", "pinned against main", "verdict"]
    assert not any("${{" in step["run"] for step in STEPS.values())
    triggers = WORKFLOW[True]  # YAML 1.1 reads the key `on` so
    assert {"pull_request", "schedule"} <= set(triggers)
    assert re.fullmatch(r"git\+https://\S+@\w+", WORKFLOW["env"]["MAIN"])
    kept = [step for step in WORKFLOW["jobs"]["upgrade"]["steps"] if "upload-artifact" in step.get("uses", "")]
    assert kept[0]["with"]["path"] == "records"
    assert kept[0]["if"] == STEPS["verdict"]["if"] == "always()"


def test_the_steps_end_in_one_verdict_that_is_safe(step, tmp_path):
    here = {"NEWEST": WORKFLOW["env"]["PINNED"], "MAIN": WORKFLOW["env"]["PINNED"], "ARGUMENTS": "-k stale-split"}
    assert step("install").returncode == 0
    assert (tmp_path / "pip-calls").read_text() == "pip install pytest-llmprune torch-pruning==1.6.1\n"
    for name in ("pinned against newest", "pinned against main"):
        result = step(name, **here)
        assert result.returncode == 0, result.stdout + result.stderr
    result = step("verdict")
    assert result.returncode == 0
    assert result.stdout.splitlines()[1:] == ["newest 0", "main 0"]
    assert {file.name for file in (tmp_path / "records").glob("*/*.json")} == {"from.json", "to.json"}
    assert (tmp_path / "summary.md").read_text().count("safe against torch-pruning 1.6.1: 1 item compared") == 2


@pytest.mark.parametrize("codes", [(0, 1), (1, 0), (0, 3), (2, 2)])
def test_whatever_is_not_safe_fails_in_the_end_and_not_before(step, codes):
    for name, code in zip(("pinned against newest", "pinned against main"), codes, strict=True):
        assert step(name, f"exit {code}").returncode == 0
    result = step("verdict")
    assert result.returncode == 1
    assert result.stdout.splitlines()[1:3] == [f"newest {codes[0]}", f"main {codes[1]}"]


def test_a_comparison_that_did_not_take_place_is_not_safe(step):
    assert step("pinned against newest", "exit 0").returncode == 0
    assert step("verdict").returncode == 1
