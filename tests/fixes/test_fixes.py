"""Every fix removes its defect, refuses code it does not know, and leaves torch_pruning as it was."""

from __future__ import annotations

import sys

import pytest

from pytest_llmprune import fixes
from pytest_llmprune.errors import UserError
from pytest_llmprune.fixes import expectation, patch
from pytest_llmprune.fixes.expectation import installed, is_expected


@pytest.fixture(autouse=True)
def _unpatched():
    fixes.undo()
    yield
    fixes.undo()


def _functions():
    """Every function and method of torch_pruning by identity."""
    found = {}
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] == "torch_pruning" and module is not None:
            for key, value in vars(module).items():
                found[name, key] = value
                if isinstance(value, type) and value.__module__.startswith("torch_pruning"):
                    found.update(
                        {(name, key, inner): v for inner, v in vars(value).items() if callable(v) or inner[:2] != "__"}
                    )
    return found


@pytest.mark.parametrize("fix", fixes.FIXES.values(), ids=fixes.FIXES.keys())
def test_the_defect_shows_where_it_was_found_and_not_with_the_fix(fix):
    assert fix.probe() == is_expected(fix, installed())
    if fix.id in fixes.applicable():
        with fixes.applied([fix.id]):
            assert fix.id in fixes.active()
            assert not fix.probe()
        assert fix.probe() == is_expected(fix, installed())


def test_every_defect_that_shows_has_a_fix_that_the_others_do_not_replace():
    shown = [id for id, fix in fixes.FIXES.items() if is_expected(fix, installed())]
    unfixed = {"split-order"} if installed()["torch-pruning"] == "1.5.2" else set()  # it builds on unsigned-dim
    assert set(shown) - set(fixes.applicable()) == unfixed
    shown = [id for id in shown if id not in unfixed]
    with fixes.applied():
        assert [id for id in shown if fixes.FIXES[id].probe()] == []
    for id in shown:
        with fixes.applied(other for other in shown if id not in (other, *fixes.FIXES[other].requires)):
            assert expectation.find(fixes.FIXES[id]).outcome == "present", id


def test_undo_leaves_torch_pruning_exactly_as_it_was():
    import torch_pruning  # noqa: F401

    before = _functions()
    fixes.apply()
    assert _functions() != before
    fixes.undo()
    after = _functions()
    assert after.keys() == before.keys()
    assert all(after[key] is before[key] for key in before)


def test_fixes_nest_and_come_back_in_order():
    with fixes.applied(["nested-outputs"]):
        with fixes.applied(["gqa-map"]):
            assert fixes.active() == ("gqa-map",)
        assert fixes.active() == ("nested-outputs",)
    assert fixes.active() == ()


def test_a_fix_brings_along_what_it_builds_on():
    with fixes.applied(["sdpa-gqa"]) as active:
        assert active == ("gqa-map", "sdpa-gqa")


def test_an_unknown_fix_is_named():
    with pytest.raises(UserError, match="unknown fix 'nested'"):
        fixes.apply(["nested"])


def test_a_fix_refuses_source_it_does_not_know(monkeypatch):
    real = patch.function_source

    def changed(module, function):
        source = real(module, function)
        return f"{source}# changed upstream\n" if function == "Group.prune" else source

    monkeypatch.setattr(patch, "function_source", changed)
    assert "broken-ties" not in fixes.applicable()
    with pytest.raises(fixes.RefusedFix, match=r"Group\.prune is code this fix does not know"):
        fixes.apply(["broken-ties"])
    assert fixes.active() == ()


def test_a_fix_is_refused_with_the_one_that_it_builds_on(monkeypatch):
    real = patch.function_source

    def changed(module, function):
        return None if "update_concat_index_mapping" in function else real(module, function)

    monkeypatch.setattr(patch, "function_source", changed)
    with pytest.raises(fixes.RefusedFix, match=r"fix output-axis: torch_pruning has no .*update_concat_index_mapping"):
        fixes.apply(["output-axis"])


def test_a_patched_function_shows_its_real_source():
    import inspect

    import torch_pruning as tp

    with fixes.applied(["nested-outputs"]):
        assert "_tensors_with_history" in inspect.getsource(tp.DependencyGraph._trace)


def test_edits_that_do_not_meet_their_text_once_are_errors():
    edit = patch.Edit("m", "f", (), old="a = 1", new="a = 2")
    with pytest.raises(ValueError, match="exactly once"):
        patch.edited("def f():\n    a = 1\n    a = 1\n", [edit])
    assert patch.edited("def f():\n    a = 1\n", [edit]) == "def f():\n    a = 2\n"
