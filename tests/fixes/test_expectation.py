"""Where a defect is expected is held against what its probe finds, and a disagreement is said, either way."""

from __future__ import annotations

from dataclasses import replace
from importlib import metadata

import pytest

from pytest_llmprune import fixes
from pytest_llmprune.errors import UserError
from pytest_llmprune.fixes import toys
from pytest_llmprune.fixes.expectation import (
    ABSENT,
    BROKEN,
    MEASURED,
    NOT_PROBED,
    PRESENT,
    Finding,
    disagreement,
    find,
    find_all,
    installed,
    is_expected,
    unmeasured,
)
from pytest_llmprune.graph.budget import propagation_budget
from pytest_llmprune.record.store import latest, read
from pytest_llmprune.resources import suites_dir

STACK = {"python": "3.11.7", "torch": "2.13.0+cpu", "transformers": "4.57.6", "torch-pruning": "1.5.2"}


def _fix(*affected, probe=lambda: True):
    return replace(fixes.FIXES["gqa-map"], affected=affected, probe=probe)


def _raising(error):
    def probe():
        raise error

    return probe


@pytest.mark.parametrize(
    ("affected", "expected"),
    [
        (("torch-pruning>=1.5.3",), False),
        (("torch-pruning>=1.2.5,<1.5.3",), True),
        (("torch-pruning>=1.2.5", "transformers>=5"), False),
        (("torch-pruning>=1.2.5", "transformers>=4.54"), True),
        (("torch-pruning>=1.2.5", "torch>=2.13"), True),
    ],
)
def test_a_defect_is_expected_where_all_its_requirements_hold(affected, expected):
    assert is_expected(_fix(*affected), STACK) is expected


def test_what_was_not_measured_counts_as_the_nearest_that_was_and_is_said():
    newest = MEASURED["torch-pruning"][1]
    fix = _fix(f"torch-pruning>=1.6,<={newest}")
    for version in ("9.0", "9.0.dev1+local", "unknown"):
        stack = {**STACK, "torch-pruning": version}
        assert is_expected(fix, stack)
        assert unmeasured(stack) == f"torch-pruning {version} has not been measured, {newest} stands for it"
        assert unmeasured(stack) in disagreement(fix, Finding(ABSENT), stack)
    assert not is_expected(fix, {**STACK, "torch-pruning": "1.0"})
    assert unmeasured(STACK) == ""


def test_finding_and_expectation_that_agree_need_no_word():
    here, elsewhere = _fix("torch-pruning<1.5.3"), _fix("torch-pruning>=1.5.3")
    assert disagreement(here, Finding(PRESENT), STACK) == ""
    assert disagreement(elsewhere, Finding(ABSENT), STACK) == ""
    assert disagreement(elsewhere, Finding(NOT_PROBED, "no such model"), STACK) == ""


def test_a_defect_that_comes_back_is_named_with_the_versions_and_what_to_do():
    message = disagreement(_fix("torch-pruning>=1.5.3"), Finding(PRESENT), STACK)
    assert message.startswith(
        "defect gqa-map shows on torch-pruning 1.5.2, transformers 4.57.6, where it is not expected"
    )
    assert message.endswith("`affected` of pytest_llmprune/fixes/gqa_map.py")


def test_a_defect_that_is_gone_is_named_with_the_versions_and_what_to_do():
    message = disagreement(_fix("torch-pruning<1.5.3"), Finding(ABSENT), STACK)
    assert message.startswith(
        "defect gqa-map does not show on torch-pruning 1.5.2, transformers 4.57.6, where it is expected"
    )
    assert message.endswith("`affected` of pytest_llmprune/fixes/gqa_map.py")


def test_a_probe_that_could_not_look_where_it_should_have_found_something_is_no_agreement():
    assert "can't be looked for" in disagreement(_fix("torch-pruning<1.5.3"), Finding(NOT_PROBED, "x"), STACK)
    assert "can't be looked for" in disagreement(_fix("torch-pruning>=1.5.3"), Finding(BROKEN, "x"), STACK)


@pytest.mark.parametrize(
    ("probe", "finding"),
    [
        (lambda: True, Finding(PRESENT)),
        (lambda: False, Finding(ABSENT)),
        (_raising(ImportError("no Qwen3Config\nat all")), Finding(NOT_PROBED, "no Qwen3Config")),
        (_raising(UserError("no heads")), Finding(NOT_PROBED, "no heads")),
        (_raising(KeyError("node")), Finding(BROKEN, "KeyError: 'node'")),
        (_raising(RuntimeError()), Finding(BROKEN, "RuntimeError: RuntimeError")),
    ],
)
def test_a_probe_that_stops_is_told_from_one_that_finds_nothing(probe, finding):
    assert find(_fix(probe=probe)) == finding


def test_a_probe_that_would_hang_has_found_its_defect():
    def probe():
        graph = toys.graph_of(model := toys.llama(heads=4, kv_heads=2))
        graph.get_pruning_group(model.model.layers[0].self_attn.q_proj, _out_channels(), [0, 1, 2, 3])
        return False

    with fixes.applied(()):
        found = find(_fix(probe=probe))
    assert found.outcome == PRESENT
    assert "steps" in found.reason


def _out_channels():
    import torch_pruning as tp

    return tp.prune_linear_out_channels


def test_toys_refuse_to_run_away_without_any_guard_around_them():
    graph = toys.graph_of(model := toys.llama(heads=4, kv_heads=2))
    with fixes.applied(()), pytest.raises(toys.Runaway):
        toys.group_of(graph, model.model.layers[0].self_attn.q_proj, [0, 1, 2, 3])
    with fixes.applied(), propagation_budget():
        assert toys.touched(graph, model.model.layers[0].mlp.up_proj, [5]) == {"up_proj": [5], "gate_proj": [5]}


def test_the_probes_look_at_the_unpatched_library_and_leave_the_fixes_as_they_were():
    with fixes.applied(["gqa-map"]):
        found = find_all()
        assert fixes.active() == ("gqa-map",)
    assert found["gqa-map"] == Finding(PRESENT)
    assert list(found) == list(fixes.FIXES)


WRONG = """
    import dataclasses

    from pytest_llmprune.fixes import FIXES

    FIXES["gqa-map"] = dataclasses.replace(FIXES["gqa-map"], affected=("torch-pruning<1.2",))
    FIXES["qk-norm"] = dataclasses.replace(FIXES["qk-norm"], probe=lambda: False)
"""


def test_the_suites_fail_where_a_defect_comes_back_or_is_gone_though_it_is_patched(pytester, plugin_args):
    pytester.makepyfile(wrong=WRONG)
    pytester.syspathinsert()
    result = pytester.runpytest_subprocess("-p", "wrong", *plugin_args, str(suites_dir()), "-k", "test_defects")
    result.assert_outcomes(failed=2, passed=len(fixes.FIXES) - 2)
    assert result.ret == 1
    result.stdout.fnmatch_lines_random(
        ["*defect gqa-map shows on *, where it is not expected*", "*defect qk-norm does not show on *, where it is*"]
    )
    assert "Traceback" not in result.stdout.str()
    items = {item.key.variant: item for item in read(latest(pytester.path)).items}
    assert items.keys() == fixes.FIXES.keys()
    assert items["gqa-map"].outcome == "failed"
    assert items["gqa-map"].measurements["defect"] == 1
    assert items["qk-norm"].measurements["defect"] == 0


def test_the_suites_skip_what_could_not_be_probed_and_say_why(pytester):
    pytester.makepyfile(
        blind="""
        import dataclasses

        from pytest_llmprune.fixes import FIXES

        def probe():
            from transformers import NoSuchModel

        FIXES["qk-norm"] = dataclasses.replace(FIXES["qk-norm"], probe=probe, affected=("transformers<4.51",))
        """
    )
    pytester.syspathinsert()
    result = pytester.runpytest_subprocess("-p", "blind", str(suites_dir()), "-k", "test_defects", "-rs")
    result.assert_outcomes(skipped=1, passed=len(fixes.FIXES) - 1)
    result.stdout.fnmatch_lines(["SKIPPED * cannot import name 'NoSuchModel' *"])


def test_a_package_without_metadata_is_asked_for_its_version(monkeypatch):
    import transformers

    def nothing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", nothing)
    assert installed()["transformers"] == transformers.__version__
