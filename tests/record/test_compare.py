"""A comparison names what broke, healed and changed; and where nothing can be compared, nothing passes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_schema import ITEM, KEY, RECORD

from pytest_llmprune.errors import UserError
from pytest_llmprune.record.compare import FailOn, compare, parse_fail_on
from pytest_llmprune.record.schema import Key

GOOD = replace(ITEM, outcome="passed", measurements={"ppl": 50.0, "coherence": 0.8, "params": 100.0, "decode": 20.0})
BASE = replace(
    RECORD,
    items=(GOOD,),
    settings={"models": ["tiny"], "weights": "pretrained"},
    environment={"machine": "m", "torch-pruning": "1.6.0"},
)


def _with(**changes):
    return replace(BASE, items=(replace(GOOD, **changes),))


def _found(candidate, *fail_on):
    comparison = compare(BASE, candidate, fail_on)
    return comparison.verdict, [str(finding) for finding in comparison.findings]


def test_a_record_is_safe_against_itself_and_against_newer_versions():
    assert _found(BASE, FailOn("ppl", 0.001)) == ("safe", [])
    assert _found(replace(BASE, environment={"machine": "m", "torch-pruning": "1.6.1"})) == ("safe", [])


@pytest.mark.parametrize(
    ("candidate", "says"),
    [
        (replace(BASE, items=(), planned=()), "is not in the candidate"),
        (replace(BASE, items=()), "was planned and did not finish"),
        (
            replace(BASE, planned=(), items=(replace(GOOD, key=replace(KEY, test="renamed")),)),
            "is not in the candidate",
        ),
        (
            replace(BASE, planned=(), items=(replace(GOOD, key=replace(KEY, model="smollm2")),)),
            "is not in the candidate",
        ),
        (
            replace(BASE, settings={"models": ["smollm2"], "weights": "pretrained"}),
            "the baseline has tiny, the candidate smollm2",
        ),
        (_with(outcome="skipped"), "passed before, skipped now"),
        (_with(outcome="failed"), "passed before, failed now"),
        (_with(protocol={"window": 512}), "another protocol (window)"),
        (_with(measurements={"ppl": 50.0, "params": 100.0}), "not measured any more: coherence, decode"),
    ],
)
def test_what_can_not_be_compared_is_broken_and_named(candidate, says):
    verdict, findings = _found(candidate)
    assert verdict == "broken"
    assert any(says in finding for finding in findings)


def test_a_baseline_without_items_compares_nothing():
    comparison = compare(replace(BASE, items=()), BASE)
    assert (comparison.verdict, comparison.compared) == ("broken", 0)


def test_what_healed_is_safe_and_another_pruning_is_changed():
    assert compare(_with(outcome="failed"), BASE).verdict == "safe"
    assert [f.kind for f in compare(_with(outcome="failed"), BASE).findings] == ["healed"]
    verdict, findings = _found(_with(measurements={**GOOD.measurements, "params": 90.0}))
    assert (verdict, findings[0].split(": ")[-1]) == ("changed", "params 100 before, 90.0 now")
    assert _found(_with(notes=("another",)))[0] == "changed"


def test_a_measurement_may_be_worse_by_its_share_and_no_more():
    worse = {**GOOD.measurements, "ppl": 51.0, "coherence": 0.7}
    assert _found(_with(measurements=worse), FailOn("ppl", 0.02)) == ("safe", [])
    verdict, findings = _found(_with(measurements=worse), FailOn("ppl", 0.019), FailOn("coherence", 0.1))
    assert verdict == "broken"
    assert findings[0].endswith("ppl 50 before, 51 now: 2% worse, more than 1.9%")
    assert findings[1].endswith("coherence 0.8 before, 0.7 now: 12.5% worse, more than 10%")
    better = {**GOOD.measurements, "ppl": 20.0, "coherence": 0.9}
    assert _found(_with(measurements=better), FailOn("ppl", 0.02), FailOn("coherence", 0.02)) == ("safe", [])


def test_a_measurement_that_was_to_be_judged_and_is_not_there_is_broken():
    assert _found(BASE, FailOn("kl", 0.1)) == (
        "broken",
        ["broken: kl: it was to be judged, and no item of both records measured it"],
    )


def test_a_timing_of_another_machine_is_not_judged_and_that_is_a_failure():
    elsewhere = replace(BASE, environment={"machine": "other"})
    assert _found(elsewhere)[0] == "safe"
    verdict, findings = _found(elsewhere, FailOn("decode", 0.5))
    assert verdict == "broken"
    assert findings[0].endswith("decode was to be judged, but was timed on another machine")


def test_percentages_are_parsed():
    assert parse_fail_on("ppl:2%") == FailOn("ppl", 0.02)
    assert parse_fail_on("prune-time:30%") == FailOn("prune_time", 0.3)


@pytest.mark.parametrize("text", ["ppl", "ppl:", "ppl:2", "ppl:-2%", "ppl:0%", "ppl:x%", "ppl:nan%", "speed:2%", ""])
def test_a_wrong_percentage_is_one_line(text):
    with pytest.raises(UserError) as caught:
        parse_fail_on(text)
    assert "\n" not in str(caught.value)


def test_a_key_without_a_case_compares_too():
    graph = replace(GOOD, key=Key("test_graph", "test_groups", "tiny"))
    assert compare(replace(BASE, items=(graph,)), replace(BASE, items=(graph,))).compared == 1
