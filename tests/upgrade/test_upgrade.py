"""llmprune upgrade, as it is typed: a side that is broken is a result, and nothing stays behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch_pruning

from pytest_llmprune.errors import UserError
from pytest_llmprune.record.store import read
from pytest_llmprune.upgrade.overlay import CannotInstall, raise_for
from pytest_llmprune.upgrade.process import Ended
from pytest_llmprune.upgrade.requirement import parse_all

INSTALLED = Path(torch_pruning.__file__).parent
UNDER_PYTEST = "import os, sys, time\nif 'pytest' in sys.modules:\n    "
BROKEN = {
    "not importable": ("raise ImportError('no such thing')", "can't be imported: ImportError: no such thing"),
    "killed at import": (
        "import os\nos.kill(os.getpid(), 9)",
        "can't be imported: it was killed by SIGKILL",
    ),
    "killed": (
        f"{UNDER_PYTEST}os.kill(os.getpid(), 9)",
        "was killed by SIGKILL; it was at test_defects::test_a_defect",
    ),
    "crashes": (f"{UNDER_PYTEST}os._exit(3)", "ended with code 3; it was at test_defects::test_a_defect"),
    "hangs": (f"{UNDER_PYTEST}time.sleep(600)", "did not end within 15 s; it was at test_defects::test_a_defect"),
}


def _wheel(folder, files, version="9.9"):
    """A wheel of torch-pruning that holds these files, made without a build."""
    file = folder / f"torch_pruning-{version}-py3-none-any.whl"
    information = f"torch_pruning-{version}.dist-info"
    with zipfile.ZipFile(file, "w") as archive:
        for name, text in files.items():
            archive.writestr(f"torch_pruning/{name}", text)
        archive.writestr(f"{information}/METADATA", f"Metadata-Version: 2.1\nName: torch-pruning\nVersion: {version}\n")
        archive.writestr(f"{information}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{information}/RECORD", "")
    return file


def _installed_with(change=lambda name, text: text):
    files = {file.relative_to(INSTALLED).as_posix(): file.read_text() for file in INSTALLED.rglob("*.py")}
    return {name: change(name, text) for name, text in files.items()}


@pytest.fixture
def upgrade(tmp_path, monkeypatch):
    """Run `llmprune upgrade ARGUMENTS` in an empty directory, whose temporary files are told from others."""
    (tmp_path / "tmp").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))

    def run(*arguments):
        command = [sys.executable, "-m", "pytest_llmprune.cli", "upgrade", *map(str, arguments)]
        result = subprocess.run(command, cwd=tmp_path / "here", capture_output=True, text=True, check=False)
        assert "Traceback" not in result.stderr + result.stdout
        assert list((tmp_path / "tmp").iterdir()) == []
        return result

    return run


@pytest.mark.parametrize(("source", "says"), BROKEN.values(), ids=BROKEN.keys())
def test_a_side_that_is_broken_is_a_result(upgrade, tmp_path, source, says):
    wheel = _wheel(tmp_path, {"__init__.py": source})
    limit = 15 if "sleep" in source else 120
    old = wheel if "pytest" in source else "1.6.1"  # two that break alike are the quicker
    result = upgrade("--from", old, "--to", wheel, "-k", "gqa-map", "--time-limit", limit)
    assert result.returncode == 1, result.stderr
    assert f"broken: to {wheel}: {says}" in result.stdout
    assert result.stdout.splitlines()[-1].startswith("broken against ")


def test_a_checkout_that_can_not_be_installed_is_a_result(upgrade, tmp_path):
    checkout = tmp_path / "checkout"
    (checkout / "torch_pruning").mkdir(parents=True)
    (checkout / "pyproject.toml").write_text("[build-system]\nrequires = []\nbuild-backend = 'none'\n")
    result = upgrade("--from", "1.6.1", "--to", checkout)
    assert result.returncode == 1
    assert f"broken: to {checkout}: can't be installed: " in result.stdout


def test_a_fault_in_the_ranking_of_heads_is_broken_and_named(upgrade, tmp_path):
    def planted(name, text):
        ranking = "head_imp_kv, k=n_heads_removed_per_group, largest=False)"
        return text.replace(ranking, ranking.replace("False", "True")) if name.endswith("base_pruner.py") else text

    files = _installed_with(planted)
    assert files != _installed_with()
    only = ("-k", "(test_quality or smaller) and heads", "--", "--llmprune-prune", "heads:0.5")
    result = upgrade("--from", _wheel(tmp_path, _installed_with(), "9.8"), "--to", _wheel(tmp_path, files), *only)
    assert result.returncode == 1, result.stderr
    assert "broken: test_quality::test_quality[tiny-heads-0.5-taylor]: ppl " in result.stdout
    assert "% worse, more than 2% (95% interval " in result.stdout
    assert "other channels or heads are kept: layer 0 attention: query heads " in result.stdout
    folder = tmp_path / "here" / ".llmprune" / "upgrade"
    assert [read(folder / f"{side}.json").environment["torch-pruning"] for side in ("from", "to")] == ["9.8", "9.9"]
    again = [sys.executable, "-m", "pytest_llmprune.cli", "compare", "from.json", "to.json", "--format", "json"]
    values = json.loads(subprocess.run(again, cwd=folder, capture_output=True, text=True, check=False).stdout)
    assert values["verdict"] == "broken"


@pytest.mark.parametrize("signals", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_every_process_and_leaves_nothing(upgrade, tmp_path, signals):
    noted = tmp_path / "pids"
    hangs = f"{UNDER_PYTEST}import subprocess; child = subprocess.Popen(['sleep', '600'])"
    hangs += f"; open({str(noted)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}'); time.sleep(600)"
    wheel = _wheel(tmp_path, {"__init__.py": hangs})
    command = [sys.executable, "-m", "pytest_llmprune.cli", "upgrade", "--from", str(wheel), "--to", "1.6.1"]
    process = subprocess.Popen([*command, "-k", "gqa-map"], cwd=tmp_path / "here", stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (noted.exists() and len(noted.read_text().split()) == 2):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signals)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.splitlines()[-1] == "llmprune: interrupted"
    assert list((tmp_path / "tmp").iterdir()) == []
    assert not any(map(_runs, noted.read_text().split()))


def _runs(pid):
    """Whether a process runs: one that has ended stays listed until its parent has asked how."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--to", "1.6.1"), "--from: name what that side is"),
        (("--from", "1.6.0"), "--to: name what that side is"),
        (("--from", "1.6.0", "--to", "transformers==5.0"), "which are different packages"),
        (("--from", "1.6.0", "--to", "./none"), "./none: no such file or directory"),
        (("--from", "1.6.0", "--to", "1.6.1", "--model", "tinny"), "unknown model 'tinny'"),
        (("--from", "1.6.0", "--to", "1.6.1", "--time-limit", "0"), "--time-limit 0: it must be more than 0"),
        (("--from", "1.6.0", "--to", "1.6.1", "--fail-on", "ppl"), "'' is no percentage"),
        (("--from-python", "none", "--to", "1.6.1"), "--from-python none: there is no such interpreter"),
        (("--from", "1.6.1", "--to", "1.6.1", "--fixes", "gqa"), "unknown fix 'gqa'"),
        (("--from", "1.6.1", "--to", "1.6.1", "-k", "no_such_test"), "not one test was selected"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(upgrade, arguments, says):
    result = upgrade(*arguments)
    assert result.returncode == 2
    assert says in result.stderr.splitlines()[-1]
    assert result.stdout == ""


def test_a_folder_that_can_not_be_written_is_a_mistake(upgrade, tmp_path):
    (tmp_path / "file").write_text("")
    broken = _wheel(tmp_path, {"__init__.py": "raise ImportError"})
    result = upgrade("--from", broken, "--to", broken, "--keep", tmp_path / "file" / "x")
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1] == f"llmprune: {tmp_path}/file/x: Not a directory"


def test_without_an_index_it_says_so(upgrade, monkeypatch):
    for name, value in (("INDEX_URL", "http://127.0.0.1:9/simple"), ("RETRIES", "0"), ("EXTRA_INDEX_URL", "")):
        monkeypatch.setenv(f"PIP_{name}", value)
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    result = upgrade("--from", "1.0.0", "--to", "1.6.1")
    assert result.returncode == 2
    assert "Could not find a version that satisfies the requirement torch-pruning==1.0.0" in result.stderr
    assert "is there a network, and such a package?" in result.stderr


@pytest.mark.parametrize(
    ("stderr", "error", "says"),
    [
        (
            "ERROR: Could not find a version that satisfies x (from versions: 1, 2, 3, 4, 5, 6)\n",
            UserError,
            "that satisfies x (the newest are 2, 3, 4, 5, 6)",
        ),
        ("ERROR: Could not install: [Errno 28] No space left on device\n", UserError, "the disk is full: "),
        ("ERROR: Failed building wheel\n", CannotInstall, "Failed building wheel"),
        ("/bin/python: No module named pip\n", UserError, "python -m ensurepip"),
    ],
)
def test_what_pip_says_is_told_apart(stderr, error, says):
    with pytest.raises(error) as caught:
        raise_for(Ended(1, 1.0, 0, "", stderr), 60)
    assert says in str(caught.value)


def test_torch_and_transformers_get_a_virtual_environment_with_everything_else_as_it_is_here(tmp_path, monkeypatch):
    from pytest_llmprune.upgrade import overlay

    ran = []
    monkeypatch.setattr(
        overlay, "run", lambda command, *_: ran.append(list(map(str, command))) or Ended(0, 1, 0, "", "")
    )
    made = overlay.prepare(parse_all(["transformers==4.57.6"]), None, tmp_path, 60)
    assert made.how == overlay.VENV
    assert ran[0][1:] == ["-m", "venv", str(tmp_path / "venv")]
    here = overlay.installed()
    assert {"transformers==4.57.6", f"torch=={here['torch']}", f"torch-pruning=={here['torch-pruning']}"} < set(ran[1])
    assert "--no-deps" not in ran[1]
