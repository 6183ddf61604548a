"""A comparison reads well in a terminal, in a pull request and for a machine; and accepting one is written down."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from test_compare import BASE, GOOD, NOWHERE, _compare, _timed, _with

from pytest_llmprune.errors import UserError
from pytest_llmprune.record.accept import accept
from pytest_llmprune.record.command import show
from pytest_llmprune.record.render import as_json, markdown, text
from pytest_llmprune.record.schema import Key
from pytest_llmprune.record.store import Kept, read

WORSE = _with(measurements={**GOOD.measurements, "ppl": 60.0}, notes=("<b>`|x*",))


def test_the_text_has_a_table_the_timings_the_findings_and_the_verdict():
    lines = text(_compare(BASE, WORSE), "base.json").splitlines()
    assert lines[0].split() == ["case", "params", "ppl", "coherence"]
    assert lines[1].split("  ")[0] == "tiny ffn 0.2 taylor"
    assert "50 -> 60" in lines[1]
    assert lines[2] == "timings, now / before: decode x1 (1 item, too few for a spread)"
    assert lines[3].startswith("changed: test_quality::test_quality[tiny-ffn-0.2-taylor]: a note before, <b>")
    assert lines[-1] == "changed against base.json: 1 item compared"


def test_findings_that_say_the_same_are_one_line():
    items = tuple(replace(GOOD, key=Key("s", f"test_{number}")) for number in range(5))
    failed = tuple(replace(item, outcome="failed", reason="why") for item in items)
    comparison = _compare(replace(BASE, items=items, planned=()), replace(BASE, items=failed, planned=()))
    assert "broken: s::test_0[], s::test_1[], s::test_2[] and 2 more: passed before, failed (why) now\n" in text(
        comparison, "b"
    )


def test_markdown_escapes_what_tests_wrote():
    found = markdown(_compare(BASE, WORSE), "base.json")
    assert "<b>" not in found
    assert r"&lt;b&gt;\`\|x\*" in found
    assert found.startswith("### ⚠️ changed against base.json: 1 item compared\n")


def test_json_holds_the_same_facts():
    values = json.loads(as_json(_compare(_timed(1.0, 2.0, 3.0), _timed(1.0, 2.0, 3.0))))
    assert (values["schema"], values["verdict"], values["compared"]) == (1, "safe", 3)
    assert values["timings"][0] == {
        **{"name": "prune_time", "items": 3, "ratio": 1.0, "low": 1.0, "high": 1.0, "elsewhere": ""}
    }


def test_accepting_keeps_who_when_and_what(tmp_path):
    target = tmp_path / "baseline.json"
    folder = tmp_path / "new.details"
    folder.mkdir()
    (folder / "d.json").write_text("{}")
    first = list(accept(Kept(replace(BASE, planned=()), folder), None, target))
    assert [line.split(",")[0] for line in first] == [f"{target}: 1 items"]
    assert (tmp_path / "baseline.details" / "d.json").is_file()

    second = list(accept(Kept(WORSE, NOWHERE), Kept(read(target), NOWHERE), target))
    assert second[0].startswith("accepted: changed: test_quality::test_quality[tiny-ffn-0.2-taylor]: a note before")
    history = read(target).accepted
    assert [len(acceptance.findings) for acceptance in history] == [0, 1]
    assert all(acceptance.by and acceptance.at for acceptance in history)


@pytest.mark.parametrize("record", [replace(BASE, items=(), planned=()), replace(BASE, items=())])
def test_what_compares_with_nothing_is_not_accepted(tmp_path, record):
    with pytest.raises(UserError, match="this record can be no baseline"):
        list(accept(Kept(record, NOWHERE), None, tmp_path / "baseline.json"))
    assert not list(tmp_path.iterdir())


def test_the_summary_of_a_step_gets_markdown_too(tmp_path, monkeypatch, capsys):
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    show(_compare(BASE, BASE), "base.json", "text")
    assert capsys.readouterr().out.endswith("safe against base.json: 1 item compared\n")
    assert summary.read_text().startswith("before\n### ✅ safe against base.json: 1 item compared\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "none" / "summary.md"))
    with pytest.raises(UserError, match="GITHUB_STEP_SUMMARY"):
        show(_compare(BASE, BASE), "base.json", "md")
