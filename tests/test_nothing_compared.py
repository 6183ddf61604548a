"""Ways to have nothing compared: each ends a gated run with a failure and a line that says which way it was."""

from __future__ import annotations

import json
import sys

import pytest

TESTS = """
import os, signal

import pytest
from pytest_llmprune.models.spec import ModelSpec

HOW = os.environ.get("HOW", "")

def test_one(llm_record):
    llm_record.measure("x", 1.0)

@pytest.mark.skipif(HOW == "skipped", reason="not today")
def test_ppl(llm_record):
    if HOW == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    llm_record.judge([], {"window": 512 if HOW == "protocol" else 256}, "", {})
    llm_record.measure("ppl", float("nan") if HOW == "nan" else 50.0)
"""
GATED = ("--llmprune-baseline", "base.json", "--llmprune-fail-on", "ppl:1%")


@pytest.fixture
def place(pytester):
    """A directory with two tests and the baseline that they made."""
    pytester.makepyfile(test_it=TESTS)
    assert pytester.runpytest_subprocess("--llmprune-record", "base.json").ret == 0
    return pytester


def _gated(place, plugin_args, *arguments, how=""):
    place._monkeypatch.setenv("HOW", how)
    return place.runpytest_subprocess(*GATED, *plugin_args, *arguments)


def test_a_run_like_the_baseline_passes(place, plugin_args):
    result = _gated(place, plugin_args)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["safe against base.json: 2 items compared"])


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("skipped", "broken: test_it::test_ppl[[][]]: passed before, skipped (not today) now"),
        ("nan", "broken: test_it::test_ppl[[][]]: passed before, failed (*ppl is nan, which is no measurement*) now"),
        ("nan", "broken: test_it::test_ppl[[][]]: not measured any more: ppl"),
        ("protocol", "broken: test_it::test_ppl[[][]]: another protocol (window), so numbers don't compare"),
    ],
)
def test_a_test_that_is_not_like_the_baselines(place, plugin_args, how, says):
    result = _gated(place, plugin_args, how=how)
    assert result.ret == 1
    result.stdout.fnmatch_lines([says, "broken against base.json: *"])


def test_deselected(place, plugin_args):
    result = _gated(place, plugin_args, "-k", "one")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["broken: test_it::test_ppl[[][]]: was deselected, so it is not compared"])


def test_all_deselected(place, plugin_args):
    result = _gated(place, plugin_args, "-k", "nothing")
    assert result.ret == 5
    result.stdout.fnmatch_lines(["nothing ran, so nothing was compared with base.json"])


def test_renamed(place, plugin_args):
    place.makepyfile(test_it=TESTS.replace("test_ppl", "test_perplexity"))
    result = _gated(place, plugin_args)
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "broken: test_it::test_ppl[[][]]: is not in the candidate: it was renamed or removed",
            "shown: test_it::test_perplexity[[][]]: new: passed",
        ]
    )


def test_of_another_model(place, plugin_args):
    result = _gated(place, plugin_args, "--llm-model", "smollm2")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["broken: models: the baseline has tiny, the candidate smollm2"])


def test_a_worker_that_was_killed(place):
    result = _gated(place, ("-n", "2"), how="killed")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["broken: test_it::test_ppl[[][]]: passed before, * now"])


def test_a_run_that_was_killed_leaves_no_record_to_compare(place):
    assert _gated(place, (), "--llmprune-record", "new.json", how="killed").ret == -9
    result = place.run(sys.executable, "-m", "pytest_llmprune.cli", "compare", "base.json", "new.json")
    assert result.ret == 2
    result.stderr.fnmatch_lines(["llmprune: new.json: no record can be read: No such file or directory"])


def _without_items(text):
    return json.dumps({**json.loads(text), "items": [], "planned": []})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (None, "ERROR: --llmprune-baseline: 'base.json': there is no such record to compare with"),
        (lambda text: "", "ERROR: base.json: no record: *"),
        (lambda text: text[:-30], "ERROR: base.json: no record: *"),
        (lambda text: text.replace("50.0", "NaN"), "ERROR: base.json: no record: NaN is no number that was measured"),
    ],
    ids=["missing", "empty", "truncated", "nan"],
)
def test_a_baseline_that_can_not_be_read(place, plugin_args, change, says):
    file = place.path / "base.json"
    text = file.read_text()
    file.unlink()
    if change:
        file.write_text(change(text))
    result = _gated(place, plugin_args)
    assert result.ret == 4
    result.stderr.fnmatch_lines([says])


def test_a_baseline_without_items(place, plugin_args):
    file = place.path / "base.json"
    file.write_text(_without_items(file.read_text()))
    result = _gated(place, plugin_args)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["broken: baseline: it holds no items, so there is nothing to compare with"])
