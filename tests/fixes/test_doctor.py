"""`llmprune doctor` says what it found, what to do about it, and writes fixes that upstream can take."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_llmprune import cli, fixes
from pytest_llmprune.errors import UserError
from pytest_llmprune.fixes import doctor, expectation
from pytest_llmprune.fixes.expectation import ABSENT, NOT_PROBED, PRESENT

ROOT = Path(__file__).resolve().parents[2]
KEYS = ["id", "verdict", "reason", "symptom", "upstream", "affected", "expected", "disagreement", "remedy"]


def _run(*arguments, first=None, cwd=None):
    """Run Python with a folder first on its path."""
    path = [str(first)] if first else []
    path += [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, check=False)


def _shown():
    """The ids of the defects that the installed stack is known to have."""
    versions = expectation.installed()
    return [id for id, fix in fixes.FIXES.items() if expectation.is_expected(fix, versions)]


def _doctor(*arguments, **where):
    return _run("-m", "pytest_llmprune.cli", "doctor", *arguments, **where)


def test_it_says_the_versions_and_every_defect_with_its_remedy():
    result = _doctor()
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    versions = expectation.installed()
    assert lines[0] == ", ".join(f"{name} {version}" for name, version in versions.items())
    shown = _shown()
    for fix in fixes.FIXES.values():
        verdict = doctor.FIXED if fix.id in shown else ABSENT
        at = next(i for i, line in enumerate(lines) if line.split()[:2] == [verdict, fix.id])
        assert lines[at + 1].strip() == fix.symptom
        assert all(f"#{number}" in lines[at] for number in fix.upstream)
    assert result.stdout.count(doctor.APPLY) == len(shown)
    absent = f", {missing} absent" if (missing := len(fixes.FIXES) - len(shown)) else ""
    assert lines[-1] == f"{len(shown)} fixed{absent}: with the fixes, nothing stands in the way"


def test_its_json_is_the_same_facts_under_a_schema():
    result = _doctor("--json")
    assert result.returncode == 0
    values = json.loads(result.stdout)
    assert list(values) == ["schema", "versions", "torch_pruning", "unmeasured", "defects", "exit_code"]
    assert values["schema"] == 1
    assert values["versions"] == expectation.installed()
    assert values["exit_code"] == 0
    assert [defect["id"] for defect in values["defects"]] == list(fixes.FIXES)
    for defect in values["defects"]:
        assert list(defect) == KEYS
        assert defect["verdict"] == (doctor.FIXED if defect["id"] in _shown() else ABSENT)
        assert defect["expected"] is (defect["id"] in _shown())
        assert defect["upstream"] == list(fixes.FIXES[defect["id"]].upstream)


def _examined(monkeypatch, capsys, id="gqa-map", **changes):
    """The exit code, the defect's block and the conclusion, with one fix of the registry changed."""
    monkeypatch.setitem(fixes.FIXES, id, replace(fixes.FIXES[id], **changes))
    code = cli.main(["doctor"])
    lines = capsys.readouterr().out.splitlines()
    start = next(i for i, line in enumerate(lines) if f" {id}" in line[:30])
    end = next(i for i in range(start + 1, len(lines)) if not lines[i].startswith("   "))
    return code, "\n".join(lines[start:end]), lines[-1]


def _unknown_source(fix):
    return tuple(replace(edit, fingerprints=("0" * 12,)) for edit in fix.edits)


def test_a_defect_without_a_fix_exits_1_and_says_why_there_is_none(monkeypatch, capsys):
    edits = _unknown_source(fixes.FIXES["broken-ties"])
    code, block, conclusion = _examined(monkeypatch, capsys, "broken-ties", edits=edits)
    assert code == 1
    assert block.startswith(PRESENT)
    assert "no fix for this version: torch_pruning.dependency.group.Group.prune is code this fix does not know" in block
    assert conclusion.startswith("1 present, ")


def test_a_fix_that_does_not_help_is_no_fix(monkeypatch, capsys):
    code, block, _ = _examined(monkeypatch, capsys, probe=lambda: True)
    assert code == 1
    assert block.startswith(PRESENT)
    assert "the fix for it does not help here" in block


@pytest.mark.parametrize(
    ("affected", "remedy"),
    [
        ("torch-pruning>=1.2", "upgrade torch-pruning to 1.6.1, for which there is a fix"),
        ("torch-pruning<1.6", "upgrade torch-pruning to 1.6.1, which does not have it"),
    ],
)
def test_a_defect_of_an_older_version_has_an_upgrade_for_remedy(monkeypatch, capsys, affected, remedy):
    monkeypatch.setattr(expectation, "version", lambda: "1.5.3")
    fix = fixes.FIXES["broken-ties"]
    code, block, _ = _examined(monkeypatch, capsys, fix.id, edits=_unknown_source(fix), affected=(affected,))
    assert code == 1
    assert remedy in block


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"affected": ("torch-pruning<1.2",)}, doctor.FIXED),
        ({"probe": lambda: False}, ABSENT),
        ({"probe": lambda: __import__("no_such_package")}, NOT_PROBED),
        ({"probe": lambda: 1 / 0}, "broken"),
    ],
)
def test_a_finding_that_was_not_expected_exits_3(monkeypatch, capsys, changes, verdict):
    code, block, conclusion = _examined(monkeypatch, capsys, **changes)
    assert code == 3
    assert block.startswith(verdict)
    assert "look: defect gqa-map " in block
    assert conclusion.endswith("a person must look")


@pytest.mark.parametrize(
    ("package", "source", "reason"),
    [
        ("torch_pruning", "raise ImportError('no torchvision')", "no torchvision"),
        ("transformers", "raise ModuleNotFoundError(\"No module named 'transformers'\")", "No module named"),
        ("torch", "raise OSError('libcudart.so: cannot open shared object file')", "libcudart.so"),
        ("transformers", "raise RuntimeError", "RuntimeError"),
    ],
)
def test_a_broken_stack_is_one_line(tmp_path, package, source, reason):
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").write_text(source)
    result = _doctor("--json", first=tmp_path)
    assert result.returncode == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"llmprune: {package} can't be imported, so nothing can be examined: ")
    assert reason in line


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    folder = tmp_path_factory.mktemp("upstream") / "patches"
    result = _doctor("--patch", folder)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("written: ") == 2 * len(_shown())
    return folder


def test_the_patches_are_a_numbered_series_with_a_test_each(patches):
    names = [file.name for file in sorted(patches.glob("*.patch"))]
    assert names == [f"{number:04}-{id}.patch" for number, id in enumerate(_shown(), 1)]
    assert {file.name for file in patches.glob("test_*.py")} == {f"test_{id.replace('-', '_')}.py" for id in _shown()}
    assert not [file.name for file in patches.iterdir() if "llmprune" in file.read_text()]


def test_what_fixes_share_is_added_once(patches):
    series = "".join(file.read_text() for file in patches.glob("*.patch"))
    added = re.findall(r"^\+(?:def|class) (\w+)", series, flags=re.MULTILINE)
    assert "_HybridIndices" in added
    assert len(added) == len(set(added))


def test_the_patches_apply_with_git_and_remove_every_defect_and_only_then_do_their_tests_pass(patches, tmp_path):
    import torch_pruning

    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(torch_pruning.__file__).parent, tmp_path / "torch_pruning", ignore=ignored)
    tests = ("-m", "pytest", "-q", "-p", "no:llmprune", "-p", "no:cacheprovider", "--rootdir", patches, patches)
    before = _run(*tests, first=tmp_path)
    assert before.returncode == 1
    assert f"{len(_shown())} failed" in before.stdout
    for file in sorted(patches.glob("*.patch")):
        subprocess.run(["git", "apply", str(file)], cwd=tmp_path, check=True)
    after = _run(*tests, first=tmp_path)
    assert after.returncode == 0, after.stdout
    assert f"{len(_shown())} passed" in after.stdout
    found = json.loads(_doctor("--json", first=tmp_path).stdout)
    assert found["torch_pruning"] == str(tmp_path / "torch_pruning")
    assert {defect["verdict"] for defect in found["defects"]} == {ABSENT}
    assert found["exit_code"] == 3  # they are gone from a version that has them: a person must look


def test_nothing_is_written_over_and_then_nothing_is_written_at_all(patches, tmp_path):
    (tmp_path / "test_qk_norm.py").write_text("mine")
    result = _doctor("--patch", tmp_path)
    assert result.returncode == 2
    assert result.stderr == (
        f"llmprune: {tmp_path} holds test_qk_norm.py already, and nothing is written over; name another directory\n"
    )
    assert [file.name for file in tmp_path.iterdir()] == ["test_qk_norm.py"]
    assert (tmp_path / "test_qk_norm.py").read_text() == "mine"


def test_patches_that_can_not_be_written_are_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert cli.main(["doctor", "--patch", str(tmp_path / "file")]) == 2
    assert "the patches can't be written: " in capsys.readouterr().err


def test_without_a_fixed_defect_there_is_no_patch(tmp_path):
    with pytest.raises(UserError, match="there is no patch to write"):
        doctor.write_patches(doctor.Examination({}, "", "", ()), tmp_path)


def test_the_page_of_defects_agrees():
    text = (ROOT / "docs" / "defects.md").read_text()
    rows = [line.strip("| ").split(" | ") for line in text.splitlines()]
    header = next(row for row in rows if row[0] == "defect")
    versions = expectation.installed()
    if versions["torch-pruning"] not in header or f"transformers {versions['transformers']}," not in text:
        pytest.skip("docs/defects.md was measured with other versions")
    column = header.index(versions["torch-pruning"])
    documented = {row[0]: row[column] for row in rows if row[0] in fixes.FIXES}
    assert documented == {defect.id: defect.verdict for defect in doctor.examine().defects}
