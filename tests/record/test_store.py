"""Records are numbered, appear whole, and are never overwritten; a journal survives its process."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_schema import ITEM, KEY, RECORD

from pytest_llmprune.errors import UserError
from pytest_llmprune.record.store import (
    Journal,
    Kept,
    WindowNll,
    details_of,
    latest,
    read,
    store_dir,
    window_nlls,
    write_atomically,
    write_kept,
)


def _journal(root):
    journal = Journal.new(root)
    journal.plan([KEY], {})
    journal.add(ITEM)
    journal.details("x", {"a": 1})
    return journal


def test_a_journal_becomes_the_next_numbered_record_with_its_details(tmp_path):
    first, second = (_journal(tmp_path).finish(RECORD, "tiny") for _ in range(2))
    assert [file.name for file in (first, second)] == ["0001_tiny.json", "0002_tiny.json"]
    assert read(first) == RECORD
    assert (first.with_suffix(".details") / "x.json").is_file()
    assert latest(tmp_path) == second
    assert not list(store_dir(tmp_path).glob("journal-*"))
    assert not list(store_dir(tmp_path).glob(".draft-*"))


def _record_with_windows(root, details):
    journal = _journal(root)
    item = replace(ITEM, details=journal.details("windows", details))
    return journal.finish(RECORD, "tiny"), item


def test_the_likelihoods_by_window_are_found_beside_a_record_and_beside_its_copy(tmp_path):
    nll = {"dense": [2.0, 3.0], "pruned": [2.5, 3.5], "scored": [10, 11]}
    file, item = _record_with_windows(tmp_path, {"nll": nll, "continuations": []})
    wanted = WindowNll((2.0, 3.0), (2.5, 3.5), (10, 11))
    assert window_nlls(details_of(file), item) == wanted
    write_kept(Kept(RECORD, details_of(file)), tmp_path / "copy.json")
    assert read(tmp_path / "copy.json") == RECORD
    assert window_nlls(details_of(tmp_path / "copy.json"), item) == wanted


def test_a_record_without_likelihoods_has_none_and_damaged_ones_are_one_line(tmp_path):
    file, item = _record_with_windows(tmp_path, {"continuations": []})
    assert window_nlls(details_of(file), item) is None
    assert window_nlls(details_of(file), replace(item, details="")) is None
    assert window_nlls(tmp_path / "none.details", item) is None
    for text in ("{", "[]", '{"nll": {"dense": [1.0], "pruned": [], "scored": [1]}}'):
        (details_of(file) / item.details).write_text(text)
        with pytest.raises(UserError, match="the details are damaged"):
            window_nlls(details_of(file), item)


def test_a_number_that_is_taken_meanwhile_is_passed_over(tmp_path, monkeypatch):
    from pytest_llmprune.record import store

    journal = _journal(tmp_path)
    real, taken = store._write_new, []

    def race(target, text):
        if not taken:
            taken.append(target)
            target.write_text("another run's record")
        real(target, text)

    monkeypatch.setattr(store, "_write_new", race)
    assert journal.finish(RECORD, "tiny").name == "0002_tiny.json"
    assert taken[0].read_text() == "another run's record"


def test_an_interrupted_journal_tells_what_was_planned_and_done(tmp_path):
    journal = _journal(tmp_path)
    with (journal.folder / "items.jsonl").open("a") as file:
        file.write('{"key": {"suite": "test_gra')
    again = Journal(journal.folder)
    assert again.planned == ((KEY,), {})
    assert again.items == (ITEM,)


def test_the_first_plan_stands(tmp_path):
    journal = _journal(tmp_path)
    journal.plan([], {"other": 1})
    assert journal.planned == ((KEY,), {})


def test_a_write_that_fails_leaves_what_stood_there(tmp_path, monkeypatch):
    target = tmp_path / "record.json"
    target.write_text("old")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_atomically(target, "new")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_no_record_is_said_in_one_line(tmp_path):
    with pytest.raises(UserError, match="llmprune gate"):
        latest(tmp_path)
    with pytest.raises(UserError, match="No such file"):
        read(tmp_path / "none.json")
