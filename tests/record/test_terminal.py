"""The summary reads like a table, names every failure with its numbers, and ends with the next command."""

from __future__ import annotations

from dataclasses import replace

from test_schema import ITEM, KEY, RECORD

from pytest_llmprune.record.html import page
from pytest_llmprune.record.schema import Key
from pytest_llmprune.record.terminal import lines

MEASURED = {
    **{"ppl": 30.0, "ppl_ratio": 3.0, "coherence": 0.4, "params": 1.5e6, "prefill": 900.0, "decode": 88.0},
    **{"dense.ppl": 10.0, "dense.coherence": 0.8, "dense.params": 1.9e6, "dense.prefill": 800.0, "dense.decode": 80.0},
}
JUDGED = replace(RECORD, items=(replace(ITEM, measurements=MEASURED),))


def _text(record):
    return [text for text, _ in lines(record, "r.json")]


def test_a_failure_shows_value_interval_and_threshold():
    text = _text(JUDGED)
    assert any("ppl_ratio is 3 (95% interval 2.9 to 3.1), must be at most 2.5" in line for line in text)
    row = next(line for line in text if line.split()[:2] == ["ffn", "0.2"])
    assert "3 [2.9, 3.1]" in row
    assert row.endswith("fail")
    assert any(line.split()[:3] == ["dense", "1.9M", "10"] for line in text)


def test_what_was_found_in_the_cache_is_named():
    found = [line for line in _text(JUDGED) if "cache" in line]
    assert found == ["  found in the cache, measured in an earlier run: dense.ppl"]


def test_the_last_line_is_a_command_that_repeats_what_failed():
    case = "--llm-model tiny --llmprune-prune ffn:0.2 --llmprune-importance taylor"
    assert _text(JUDGED)[-1] == f"next: pytest suites {case} --llmprune-seed 3 -k test_quality"
    passed = replace(JUDGED, items=(replace(ITEM, outcome="passed", verdicts=()),), exit_status=0)
    assert _text(passed)[-1] == "next: llmprune report r.json"


def test_what_did_not_finish_is_named():
    record = replace(JUDGED, planned=(KEY, Key("test_graph", "test_groups", "tiny")))
    assert "planned, and not finished: test_graph::test_groups[tiny]" in _text(record)


def test_a_record_without_measurements_is_a_summary_too():
    assert any("nothing was measured" in line for line in _text(replace(RECORD, items=(), planned=())))


def test_the_page_escapes_what_models_wrote(tmp_path):
    import json

    said = {"prompt": "p", "kind": "greedy", "text": "<script>alert(1)</script>", "score": 0.1}
    (tmp_path / "d.json").write_text(json.dumps({"continuations": [said], "dense_continuations": [said]}))
    html = page(JUDGED, tmp_path)
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "must be at most 2.5" in html


def test_the_page_needs_nothing_from_elsewhere(tmp_path):
    html = page(JUDGED, tmp_path)
    assert "http" not in html
    assert "no continuations lie beside this record" in html
