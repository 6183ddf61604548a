"""The frozen faults can be used on the torch-pruning that is installed."""

from __future__ import annotations

import ast
import importlib.util
from collections import Counter
from importlib import metadata
from pathlib import Path

import pytest

from tests.power.draw import PER_LINE, Places, talks
from tests.power.faults import VERSION, freeze, load
from tests.power.forced import edits_around, is_shadowed

FOLDER = Path(importlib.util.find_spec("torch_pruning").submodule_search_locations[0])

installed = pytest.mark.skipif(metadata.version("torch-pruning") != VERSION, reason=f"made for {VERSION}")


@installed
def test_every_fault_applies_and_is_another_program():
    for fault in load():
        text = (FOLDER / fault.file).read_text()
        assert ast.dump(ast.parse(fault.applied_to(text))) != ast.dump(ast.parse(text)), fault.id


def test_no_fault_is_listed_twice_and_few_are_in_one_line():
    faults = load()
    assert len({fault.id for fault in faults}) == len({(f.file, f.start, f.old, f.new) for f in faults}) == len(faults)
    assert max(Counter((fault.file, fault.line) for fault in faults).values()) <= PER_LINE


def test_frozen_faults_are_not_drawn_again():
    with pytest.raises(FileExistsError):
        freeze([])


@installed
def test_a_fault_is_shadowed_only_in_a_function_that_a_fix_edits(tmp_path):
    (tmp_path / "torch_pruning").symlink_to(FOLDER)
    shadowed = [fault for fault in load() if is_shadowed(fault, tmp_path / "torch_pruning")]
    assert shadowed
    assert all(edits_around(fault) for fault in shadowed)
    assert any(edits_around(fault) for fault in load() if fault not in shadowed)


def test_only_statements_that_ran_may_be_changed():
    source = "x = 1\ndef ran(a=2):\n    b = a\n    if b:\n        print(3)\n    return 4\ndef idle():\n    return 5\n"
    assert Places(ast.parse(source), {1, 2, 3, 4, 6, 7}).lines == {3: (3, "ran"), 6: (6, "ran")}


def test_what_only_tells_a_person_something_is_talk():
    texts = {
        "print(1)": True,
        "raise E(1 + 1)": True,
        "if a:\n    print(1)": True,
        "if a:\n    b()": False,
        "b()": False,
    }
    assert {text: talks(ast.parse(text).body[0]) for text in texts} == texts
