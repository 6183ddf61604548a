"""A comparison names what broke, healed and changed; and where nothing can be compared, nothing passes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from test_schema import ITEM, KEY, RECORD

from pytest_llmprune.errors import UserError
from pytest_llmprune.record.compare import compare
from pytest_llmprune.record.measured import FailOn, parse_fail_on
from pytest_llmprune.record.schema import Key
from pytest_llmprune.record.store import Kept

GOOD = replace(
    ITEM, outcome="passed", details="", measurements={"ppl": 50.0, "coherence": 0.8, "params": 100.0, "decode": 20.0}
)
MACHINE = {"host": "h", "machine": "m", "cpus": "2"}
BASE = replace(
    RECORD,
    items=(GOOD,),
    settings={"models": ["tiny"], "weights": "pretrained"},
    environment={**MACHINE, "torch-pruning": "1.6.0"},
)
NOWHERE = Path("no such folder")


def _with(**changes):
    return replace(BASE, items=(replace(GOOD, **changes),))


def _compare(before, after, *fail_on, folders=(NOWHERE, NOWHERE)):
    return compare(Kept(before, folders[0]), Kept(after, folders[1]), fail_on)


def _found(candidate, *fail_on, before=BASE):
    comparison = _compare(before, candidate, *fail_on)
    return comparison.verdict, [str(finding) for finding in comparison.findings]


def test_a_record_is_safe_against_itself_and_against_newer_versions():
    assert _found(BASE, FailOn("ppl", 0.001)) == ("safe", [])
    assert _found(replace(BASE, environment={**MACHINE, "torch-pruning": "1.6.1"})) == ("safe", [])


@pytest.mark.parametrize(
    ("candidate", "says"),
    [
        (replace(BASE, items=(), planned=()), "is not in the candidate: it was renamed or removed"),
        (replace(BASE, items=(), planned=(), left_out=(KEY,)), "was deselected, so it is not compared"),
        (replace(BASE, items=()), "passed before, unfinished now"),
        (
            replace(BASE, planned=(), items=(replace(GOOD, key=replace(KEY, test="renamed")),)),
            "is not in the candidate: it was renamed or removed",
        ),
        (
            replace(BASE, planned=(), items=(replace(GOOD, key=replace(KEY, model="smollm2")),)),
            "is not in the candidate: it was renamed or removed",
        ),
        (
            replace(BASE, settings={"models": ["smollm2"], "weights": "pretrained"}),
            "the baseline has tiny, the candidate smollm2",
        ),
        (_with(outcome="skipped", reason="no gpu"), "passed before, skipped (no gpu) now"),
        (_with(outcome="failed", reason="too bad"), "passed before, failed (too bad) now"),
        (_with(outcome="xfailed"), "passed before, xfailed now"),
        (_with(protocol={"window": 512}), "another protocol (window)"),
        (_with(protocol={}), "another protocol (window)"),
        (_with(measurements={"ppl": 50.0, "params": 100.0}), "not measured any more: coherence, decode"),
    ],
)
def test_what_can_not_be_compared_is_broken_and_named(candidate, says):
    verdict, findings = _found(candidate)
    assert verdict == "broken"
    assert any(says in finding for finding in findings)


def test_a_baseline_without_items_compares_nothing():
    comparison = _compare(replace(BASE, items=(), planned=()), BASE)
    assert (comparison.verdict, comparison.compared) == ("broken", 0)


def test_a_model_of_another_size_under_the_same_name_is_broken():
    before = _with(measurements={"dense.params": 100.0})
    assert _found(_with(measurements={"dense.params": 200.0}), before=before) == (
        "broken",
        ["broken: test_quality::test_quality[tiny-ffn-0.2-taylor]: another model: dense.params 100 before, 200 now"],
    )


@pytest.mark.parametrize("bad", ["failed", "error", "xfailed"])
def test_what_healed_is_safe_whatever_else_is_different_of_it(bad):
    before = _with(outcome=bad, measurements={"params": 90.0}, notes=("others",))
    verdict, findings = _found(BASE, before=before)
    assert verdict == "safe"
    assert [finding.split(":")[0] for finding in findings] == ["healed", "shown", "shown"]


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        ("skipped", "failed", "broken"),
        ("failed", "skipped", "broken"),  # since nothing was compared
        ("skipped", "skipped", "broken"),  # since nothing was compared
        ("skipped", "passed", "safe"),
        ("xfailed", "passed", "safe"),
        ("error", "failed", "broken"),  # since nothing passes
    ],
)
def test_outcomes_are_ranked(before, after, verdict):
    assert _found(_with(outcome=after), before=_with(outcome=before))[0] == verdict


def test_what_fails_on_both_sides_is_shown_and_does_not_break():
    other = replace(GOOD, key=Key("test_graph", "test_groups", "tiny"), outcome="failed", reason="why")
    both = replace(BASE, items=(GOOD, other))
    assert _found(both, before=both) == ("safe", [f"shown: {other.key}: fails on both sides: why"])


def test_a_new_test_that_fails_is_broken_and_one_that_passes_is_shown():
    new = replace(GOOD, key=Key("test_graph", "test_new", "tiny"))
    assert _found(replace(BASE, items=(GOOD, new)))[0] == "safe"
    verdict, findings = _found(replace(BASE, items=(GOOD, replace(new, outcome="failed", reason="why"))))
    assert (verdict, findings) == ("broken", [f"broken: {new.key}: new, and failed (why)"])


def test_another_pruning_is_changed():
    verdict, findings = _found(_with(measurements={**GOOD.measurements, "params": 90.0}))
    assert (verdict, findings[0].split(": ")[-1]) == ("changed", "params 100 before, 90 now")
    assert _found(_with(notes=("another",)))[0] == "changed"
    assert _found(_with(notes=("another",)), before=_with(notes=()))[0] == "changed"


def test_kept_channels_are_told_from_the_sidecars(tmp_path):
    folders = []
    for number, heads in enumerate(([0, 1], [0, 3])):
        folder = tmp_path / str(number)
        folder.mkdir()
        name = "test_quality__test_quality_tiny-ffn-0.2-taylor_.plan.json"
        (folder / name).write_text(
            json.dumps({"layer 0 attention: query heads": heads, "layer 1 attention: query heads": [2]})
        )
        folders.append(folder)
    comparison = _compare(
        _with(notes=("removed channels a",)), _with(notes=("removed channels b",)), folders=tuple(folders)
    )
    (finding,) = comparison.findings
    assert (comparison.verdict, finding.text) == (
        "changed",
        "other channels or heads are kept: layer 0 attention: query heads 0, 1 went before, 0, 3 go now",
    )


def test_a_measurement_may_be_worse_by_its_share_and_no_more():
    worse = {**GOOD.measurements, "ppl": 51.0, "coherence": 0.7}
    assert _found(_with(measurements=worse), FailOn("ppl", 0.02)) == ("safe", [])
    verdict, findings = _found(_with(measurements=worse), FailOn("ppl", 0.019), FailOn("coherence", 0.1))
    assert verdict == "broken"
    assert "ppl 50 before, 51 now: 2% worse, more than 1.9% (two numbers" in findings[0]
    assert findings[1].endswith("coherence 0.8 before, 0.7 now: 12.5% worse, more than 10% (two numbers)")
    better = {**GOOD.measurements, "ppl": 20.0, "coherence": 0.9}
    assert _found(_with(measurements=better), FailOn("ppl", 0.02), FailOn("coherence", 0.02)) == ("safe", [])


def _windows(folder, nll):
    folder.mkdir()
    (folder / "d.json").write_text(json.dumps({"nll": {"dense": [1.0] * len(nll), "pruned": nll, "scored": [10] * 8}}))
    return folder


@pytest.mark.parametrize(
    ("share", "verdict"), [(0.001, "broken"), (0.1, "safe"), (0.0102, "undecided")], ids=["below", "above", "across"]
)
def test_perplexities_of_equal_windows_are_paired(tmp_path, share, verdict):
    before = _windows(tmp_path / "a", [20.0 + i for i in range(8)])
    after = _windows(tmp_path / "b", [20.1 + i + 0.01 * (-1) ** i for i in range(8)])  # 1% more, give or take
    item = replace(GOOD, details="d.json")
    worse = replace(item, measurements={**GOOD.measurements, "ppl": 50.5})
    comparison = _compare(
        replace(BASE, items=(item,)), replace(BASE, items=(worse,)), FailOn("ppl", share), folders=(before, after)
    )
    assert comparison.verdict == verdict
    (shift,) = [shift for shift in comparison.shifts if shift.name == "ppl"]
    assert 1.005 < shift.low < 1.01 < shift.high < 1.015
    assert all("paired over equal windows" in finding.text for finding in comparison.findings)


def test_a_measurement_that_was_to_be_judged_and_is_not_there_is_broken():
    assert _found(BASE, FailOn("kl", 0.1)) == (
        "broken",
        ["broken: kl: it was to be judged, and no item of both records measured it"],
    )


def _timed(*seconds, environment=MACHINE, workers=0):
    items = tuple(
        replace(GOOD, key=replace(KEY, variant=str(number)), measurements={"prune_time": value})
        for number, value in enumerate(seconds)
    )
    settings = {**BASE.settings, "workers": workers}
    return replace(BASE, items=items, planned=(), environment=environment, settings=settings)


@pytest.mark.parametrize(
    ("after", "verdict", "says"),
    [
        (_timed(1.02, 2.1, 2.95), "safe", ""),
        (_timed(1.5, 3.1, 4.4), "broken", "prune_time x1.51 (1.4 to 1.61, 3 items): more than 30% slower"),
        (_timed(1.0, 2.4, 4.5), "undecided", "neither more nor less than 30% slower"),
        (_timed(1.0, 2.0, 3.0, environment={**MACHINE, "host": "g"}), "broken", "another machine (host h and g)"),
        (_timed(1.0, 2.0, 3.0, workers=2), "broken", "another machine (workers 0 and 2)"),
    ],
)
def test_a_timing_is_judged_with_its_spread_and_on_one_machine_alone(after, verdict, says):
    found, findings = _found(after, FailOn("prune_time", 0.3), before=_timed(1.0, 2.0, 3.0))
    assert found == verdict
    assert says in "".join(findings)


def test_a_timing_without_a_spread_is_not_judged_and_that_is_a_failure():
    verdict, findings = _found(_timed(1.0), FailOn("prune_time", 0.3), before=_timed(1.0))
    assert (verdict, findings) == (
        "broken",
        ["broken: prune_time: it was to be judged, but has no spread: fewer than 3 items measured it"],
    )
    rounds = replace(_timed(1.0).items[0], intervals={"prune_time": (0.95, 1.05)})
    both = replace(_timed(1.0), items=(rounds,))
    assert _found(both, FailOn("prune_time", 0.3), before=both)[0] == "safe"


def test_a_timing_that_nobody_asked_for_breaks_nothing():
    assert _found(_timed(9.0, 9.0, 9.0), before=_timed(1.0, 2.0, 3.0)) == ("safe", [])


def _defect(shows, **changes):
    key = Key("test_defects", "test_a_defect", variant="gqa-map")
    item = replace(GOOD, key=key, measurements={"defect": float(shows)}, protocol={})
    return replace(BASE, items=(item,), planned=(), **changes)


def test_a_defect_that_vanished_is_healed_and_one_that_appeared_is_broken_or_mended_by_its_fix():
    assert _found(_defect(False), before=_defect(True)) == (
        "safe",
        ["healed: defect gqa-map: it showed before, and does not now"],
    )
    assert _found(_defect(True, fixes=()), before=_defect(False, fixes=()))[0] == "broken"
    assert _found(_defect(True, fixes=("gqa-map",)), before=_defect(False, fixes=("gqa-map",)))[0] == "changed"


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
    assert _compare(replace(BASE, items=(graph,)), replace(BASE, items=(graph,))).compared == 1
