"""Halving finds the first version that fails as the bad one does, whatever else older ones do."""

from __future__ import annotations

import math
import subprocess
from pathlib import Path

import pytest

from pytest_llmprune.errors import UserError
from pytest_llmprune.record.schema import Item, Key, RunRecord
from pytest_llmprune.record.store import Kept
from pytest_llmprune.upgrade.bisect import (
    CANNOT_RUN,
    FAILS,
    PASSES,
    Outcome,
    Runner,
    bisect,
    commits,
    index_versions,
    lines,
    requirement_of_version,
    signature_of,
)
from pytest_llmprune.upgrade.run import Side, SideRun, Suites

LETTERS = {
    ".": Outcome(PASSES, (), ""),
    "x": Outcome(FAILS, ("t: runs away",), "runs away after 7 steps"),
    "o": Outcome(FAILS, ("t: no argument",), "no argument"),
    "-": Outcome(CANNOT_RUN, (), "can't be imported"),
}


def _search(outcomes, known=()):
    versions = [f"1.{number}" for number in range(len(outcomes))]
    tried = []

    def outcome(version):
        tried.append(version)
        return LETTERS[outcomes[versions.index(version)]]

    found = bisect(versions, outcome, {version: LETTERS[outcomes[versions.index(version)]] for version in known})
    return found, tried


@pytest.mark.parametrize("first", range(1, 20))
def test_the_first_bad_version_is_found_in_log_two_runs(first):
    found, tried = _search("o" * (first // 2) + "." * (first - first // 2) + "x" * (20 - first))
    assert (found.first, found.before) == (f"1.{first}", f"1.{first - 1}")
    assert len(tried) <= 2 + math.ceil(math.log2(19))
    assert len(tried) == len(set(tried))
    assert found.is_monotone


def test_versions_that_can_not_run_are_skipped_and_said():
    found, _ = _search("..-.---xx")
    assert (found.first, found.before, found.between) == ("1.7", "1.3", ("1.4", "1.5", "1.6"))
    text = "\n".join(lines(found))
    assert "one of 1.4, 1.5, 1.6, 1.7: those before the last can't run" in text
    assert "can't run: can't be imported" in text


def test_outcomes_that_go_to_and_fro_are_said():
    found, _ = _search("..x....xx", known=["1.2"])
    assert found.first == "1.7"
    assert not found.is_monotone
    assert any("to and fro" in line for line in lines(found))


def test_another_failure_is_no_sign_of_the_bad_one():
    found, _ = _search("oooo.oxx")
    assert found.first == "1.6"
    assert found.signature == "t: runs away"


@pytest.mark.parametrize(
    ("outcomes", "says"),
    [("..", "--bad 1.1: the tests should fail there: passes"), ("xx", "--good 1.0: it fails as 1.1 does"),
     ("-x", "--good 1.0: can't run"), (".-", "--bad 1.1: the tests should fail there: can't run")],
)  # fmt: skip
def test_ends_that_are_not_what_they_should_be(outcomes, says):
    with pytest.raises(UserError, match=says):
        _search(outcomes)


def _run(*items, planned=(), trouble=""):
    record = RunRecord({}, {}, (), planned, items)
    return SideRun(Side("v", ()), "overlay", {}, Kept(record, Path("none")), trouble, 1.0, 0)


def test_a_signature_is_test_and_reason_without_numbers():
    key = Key("test_graph", "test_it", "tiny")
    one, other = (
        signature_of(_run(Item(key, "failed", 1.0, reason=f"index {n} of layer at 0x{n}f in /tmp/{n}/x")))
        for n in (127, 20_512)
    )
    assert one.state == FAILS
    assert one.signatures == other.signatures == ("test_graph::test_it[tiny]: index N of layer at N in N",)
    assert signature_of(_run(Item(key, "passed", 1.0))).state == PASSES
    assert signature_of(_run(Item(key, "skipped", 0.0, reason="no gpu"))).text == "every test is skipped: no gpu"
    hang = signature_of(_run(planned=(key,), trouble="did not end within 60 s"))
    assert (hang.state, hang.signatures) == (FAILS, ("test_graph::test_it[tiny]: did not end within N s",))
    assert signature_of(SideRun(Side("v", ()), "", {}, None, "can't be imported: x", 0.0, 0)).state == CANNOT_RUN


def test_a_version_is_run_once(tmp_path, monkeypatch):
    from pytest_llmprune.upgrade import bisect as module

    key = Key("test_graph", "test_it", "tiny")
    runs = []
    monkeypatch.setattr(module, "prepared", lambda side, scratch, limit: side)
    monkeypatch.setattr(module, "run_suites", lambda side, suites: runs.append(side) or _run(Item(key, "passed", 1.0)))
    arguments = (requirement_of_version("torch-pruning"), Suites(("-k", "x"), 60), tmp_path, tmp_path / "cache")
    assert Runner(*arguments)("1.5.3").state == PASSES
    assert Runner(*arguments)("1.5.3").state == PASSES
    assert len(runs) == 1
    Runner(arguments[0], Suites(("-k", "y"), 60), *arguments[2:])("1.5.3")
    assert len(runs) == 2


def test_commits_are_those_of_the_checkout_oldest_first(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=n", "-c", "user.email=e"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    made = []
    for number in range(4):
        git("commit", "-q", "--allow-empty", "-m", str(number))
        made.append(git("rev-parse", "HEAD"))
    assert commits(tmp_path, "HEAD~3", "HEAD") == made
    with pytest.raises(UserError, match="--bad HEAD~2 does not come after --good HEAD"):
        commits(tmp_path, "HEAD", "HEAD~2")
    with pytest.raises(UserError, match="git in "):
        commits(tmp_path, "none", "HEAD")


def _listing(monkeypatch, stdout, stderr=""):
    from pytest_llmprune.upgrade import bisect as module

    result = subprocess.CompletedProcess([], 0, stdout, stderr)
    monkeypatch.setattr(module.subprocess, "run", lambda *_, **__: result)


def test_versions_of_the_index_come_in_their_order(monkeypatch):
    _listing(monkeypatch, "torch-pruning (1.10.0)\nAvailable versions: 1.10.0, 1.9.1, 1.9.0, 1.2.5\n")
    assert index_versions("torch-pruning", "1.9.0", "1.10.0") == ["1.9.0", "1.9.1", "1.10.0"]
    with pytest.raises(UserError, match=r"--good x: the index has 1.2.5, 1.9.0, 1.9.1, 1.10.0"):
        index_versions("torch-pruning", "x", "1.10.0")
    with pytest.raises(UserError, match=r"--bad 1.2.5 does not come after --good 1.10.0"):
        index_versions("torch-pruning", "1.10.0", "1.2.5")


def test_without_an_index_pip_is_quoted(monkeypatch):
    _listing(monkeypatch, "", "WARNING: x\nERROR: No matching distribution found for torch-pruning\n")
    with pytest.raises(UserError, match="pip index versions torch-pruning: No matching distribution found"):
        index_versions("torch-pruning", "1", "2")
