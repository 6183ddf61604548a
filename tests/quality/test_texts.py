"""A text is what the user named, and nothing that a model was made from."""

from __future__ import annotations

import json
import sys
import types

from pytest_llmprune.quality.texts import CALIBRATION, EVALUATION, builtin, evaluation_text


def test_documents_of_jsonl_and_rows_of_wikitext_are_joined_by_empty_lines(tmp_path, monkeypatch):
    file = tmp_path / "text.jsonl"
    file.write_text("".join(json.dumps({"text": text, "id": 1}) + "\n" for text in ("one", "two")) + "\n")
    assert evaluation_text(str(file)) == "one\n\ntwo"

    asked = []
    datasets = types.ModuleType("datasets")
    datasets.load_dataset = lambda *names, split: asked.append((*names, split)) or {"text": ["one", "two"]}
    monkeypatch.setitem(sys.modules, "datasets", datasets)
    assert evaluation_text("wikitext2") == "one\n\ntwo"
    assert asked == [("Salesforce/wikitext", "wikitext-2-raw-v1", "test")]


def test_a_text_file_is_taken_as_it_is(tmp_path):
    (tmp_path / "text.txt").write_text("one\ntwo\n")
    assert evaluation_text(str(tmp_path / "text.txt")) == "one\ntwo\n"


def test_what_is_evaluated_on_shares_no_line_of_length_with_what_is_calibrated_on():
    lines = [
        {line.strip() for line in builtin(name).splitlines() if len(line.strip()) > 40}
        for name in (EVALUATION, CALIBRATION)
    ]
    assert len(lines[0]) > 500
    assert not lines[0] & lines[1]
