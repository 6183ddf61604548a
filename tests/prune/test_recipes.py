"""A recipe removes the nearest number of units that its steps allow, at least one step and never everything."""

from __future__ import annotations

import pytest

from pytest_llmprune.errors import UserError
from pytest_llmprune.models.layout import Shape, shape_of
from pytest_llmprune.prune.recipes import Case, achieved, distinct, parse_cases, reductions

SMOLLM2 = Shape(hidden=576, ffn=1536, heads=9, kv_heads=3, head_dim=64, layers=30)


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
