"""A recipe removes the nearest number of units that its steps allow, at least one step and never everything."""

from __future__ import annotations

import pytest

from pytest_llmprune.errors import UserError
from pytest_llmprune.models.layout import Shape, shape_of
from pytest_llmprune.prune.recipes import Case, achieved, as_option, distinct, left, parse_cases, reductions

SMOLLM2 = Shape(hidden=576, ffn=1536, heads=9, kv_heads=3, head_dim=64, layers=30)
TINYLLAMA = Shape(hidden=2048, ffn=5632, heads=32, kv_heads=4, head_dim=64, layers=22)


@pytest.mark.parametrize(
    ("recipe", "ratio", "removed", "reached"),
    [
        ("ffn", 0.1, 154, 0.1),
        ("ffn", 0.0001, 1, 0.0001),
        ("heads", 0.1, 3, 0.333),
        ("heads", 0.9, 6, 0.667),
        ("kv-groups", 0.34, 1, 0.333),
        ("kv-groups", 0.99, 2, 0.667),
        ("width", 0.05, 27, 0.05),
        ("width", 0.001, 9, 0.016),
    ],
)
def test_the_nearest_step_is_taken(recipe, ratio, removed, reached):
    (reduction,) = reductions(SMOLLM2, Case(recipe, ratio))
    assert reduction.removed == removed
    assert reduction.removed % reduction.step == 0
    assert achieved(SMOLLM2, Case(recipe, ratio)).ratio == pytest.approx(reached, abs=0.002)


def test_cases_that_remove_the_same_run_once():
    cases = distinct(SMOLLM2, [Case("kv-groups", 0.1), Case("kv-groups", 0.34), Case("ffn", 0.1), Case("ffn", 0.2)])
    assert [case.label for case in cases] == ["kv-groups-0.333-taylor", "ffn-0.1-taylor", "ffn-0.2-taylor"]


@pytest.mark.parametrize("recipe", ["ffn", "width", "all"])
@pytest.mark.parametrize("ratio", [0.01, 0.2, 0.5, 0.8])
@pytest.mark.parametrize("round_to", [1, 8, 64, 100])
def test_what_is_left_of_channels_is_a_multiple_of_round_to_and_of_the_heads(recipe, ratio, round_to):
    shape = left(TINYLLAMA, Case(recipe, ratio, round_to=round_to))
    if recipe != "width":
        assert shape.ffn < TINYLLAMA.ffn
        assert shape.ffn % round_to == 0
    if recipe != "ffn":
        assert shape.hidden < TINYLLAMA.hidden
        assert shape.hidden % round_to == 0
        assert shape.hidden % TINYLLAMA.heads == 0


def test_a_hidden_size_that_is_no_multiple_of_the_heads_becomes_one():
    assert left(Shape(hidden=40, ffn=96, heads=3, kv_heads=3, head_dim=8, layers=2), Case("width", 0.3)).hidden == 27


def test_heads_go_with_their_kv_heads_where_each_has_its_own():
    shape = Shape(hidden=64, ffn=96, heads=8, kv_heads=8, head_dim=8, layers=2)
    assert (left(shape, Case("heads", 0.25)).heads, left(shape, Case("heads", 0.25)).kv_heads) == (6, 6)
    assert (left(SMOLLM2, Case("heads", 0.3)).heads, left(SMOLLM2, Case("heads", 0.3)).kv_heads) == (6, 3)
    assert (left(SMOLLM2, Case("kv-groups", 0.3)).heads, left(SMOLLM2, Case("kv-groups", 0.3)).kv_heads) == (6, 2)


@pytest.mark.parametrize("recipe", ["ffn", "heads", "kv-groups", "width"])
@pytest.mark.parametrize("round_to", [1, 32])
def test_the_option_for_a_case_removes_the_same(recipe, round_to):
    case = Case(recipe, 0.2, round_to=round_to)
    ((named, ratio),) = parse_cases(as_option(SMOLLM2, case))
    assert left(SMOLLM2, Case(named, ratio)) == left(SMOLLM2, case)


def test_a_round_to_that_no_ratio_can_stand_for_has_no_option():
    assert as_option(TINYLLAMA, Case("all", 0.1, round_to=256)) is None


@pytest.mark.parametrize(
    ("case", "says"),
    [
        (Case("ffn", 0.2, round_to=0), "round_to is 0; it must be 1 or more"),
        (Case("ffn", 0.2, round_to=1536), "1536 FFN channels in steps of 1536, so none can go"),
        (Case("width", 0.2, round_to=128), "576 hidden channels in steps of 1152, so none can go"),
    ],
)
def test_a_round_to_that_leaves_no_choice_is_said(case, says):
    with pytest.raises(UserError, match=says):
        reductions(SMOLLM2, case)


def test_all_does_not_take_the_whole_ffn():
    shape = Shape(hidden=128, ffn=8, heads=7, kv_heads=1, head_dim=16, layers=2)
    with pytest.raises(UserError, match="of 8 FFN channels in steps of 7, none would be left"):
        reductions(shape, Case("all", 0.9))


def test_nothing_to_remove_is_said():
    with pytest.raises(UserError, match="1 kv heads in steps of 1, so none can go"):
        reductions(Shape(64, 96, 4, 1, 16, 2), Case("kv-groups", 0.5))


@pytest.mark.parametrize(
    "text", ["ffn", "ffn:", "ffn:0", "ffn:1", "ffn:1.5", "ffn:-1", "ffn:abc", "ffn:nan", "mlp:0.1", "", "ffn:0.1,"]
)
def test_a_wrong_case_is_one_line(text):
    with pytest.raises(UserError) as caught:
        parse_cases(text)
    assert "\n" not in str(caught.value)


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(UserError, match="7 query heads don't divide among its 2 kv heads"):
        shape_of(
            {
                "num_attention_heads": 7,
                "num_key_value_heads": 2,
                "hidden_size": 112,
                "intermediate_size": 8,
                "num_hidden_layers": 1,
            }
        )
