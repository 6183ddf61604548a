"""A gate passes what lies within, fails what lies beyond, is undecided between, never passes what was not measured."""

from __future__ import annotations

import math

import pytest

from pytest_llmprune.errors import UserError
from pytest_llmprune.prune.recipes import Reduction
from pytest_llmprune.quality.gate import Gate, gates_for, judge, parse_gate


def _outcome(gate, value, interval=None):
    values = {} if value is None else {gate.measurement: value}
    (verdict,) = judge([gate], values, {gate.measurement: interval} if interval else {})
    return verdict.outcome


@pytest.mark.parametrize(
    ("operator", "value", "interval", "outcome"),
    [
        ("<=", 1.9, None, "pass"),
        ("<=", 2.0, None, "pass"),
        ("<=", 2.1, None, "fail"),
        ("<=", 1.9, (1.8, 2.0), "pass"),
        ("<=", 1.9, (1.8, 2.1), "undecided"),
        ("<=", 2.2, (2.1, 2.3), "fail"),
        (">=", 2.2, (2.1, 2.3), "pass"),
        (">=", 2.0, (1.9, 2.1), "undecided"),
        (">=", 1.8, (1.7, 1.9), "fail"),
        ("<=", math.nan, None, "fail"),
        ("<=", math.inf, None, "fail"),
        (">=", math.inf, None, "fail"),
        ("<=", 1.0, (math.nan, 1.0), "fail"),
        ("<=", None, None, "fail"),
    ],
)
def test_every_outcome(operator, value, interval, outcome):
    assert _outcome(Gate("ppl_ratio", operator, 2.0), value, interval) == outcome


def test_every_gate_is_evaluated_even_if_the_first_fails():
    gates = [Gate("ppl_ratio", "<=", 1.0), Gate("coherence_ratio", ">=", 0.5)]
    assert [v.outcome for v in judge(gates, {"ppl_ratio": 9.0, "coherence_ratio": 0.9}, {})] == ["fail", "pass"]


def _threshold(*shares):
    return gates_for([Reduction(unit, 1000, 1, round(1000 * share)) for unit, share in shares])[0].threshold


def test_the_default_grows_with_what_is_removed_up_to_a_cap():
    assert _threshold(("FFN channels", 0.2)) == _threshold(("hidden channels", 0.08)) == pytest.approx(2.5)
    assert _threshold(("FFN channels", 0.05)) == pytest.approx(2.5**0.25)
    assert _threshold(("FFN channels", 0.1), ("query heads", 0.1)) == pytest.approx(2.5)
    assert _threshold(("query heads", 0.9)) == _threshold(("hidden channels", 0.5)) == pytest.approx(6.25)


def test_the_default_yields_to_the_user():
    mine = gates_for([Reduction("FFN channels", 10, 1, 2)], [Gate("ppl_ratio", "<=", 1.1)])
    assert [str(gate) for gate in mine] == ["coherence_ratio>=0.5", "ppl_ratio<=1.1"]


@pytest.mark.parametrize(
    "text", ["ppl", "ppl<2", "ppl<=", "speed<=1", "ppl<=-1", "ppl<=0", "ppl<=nan", "ppl<=inf", "ppl<=two", ""]
)
def test_a_wrong_gate_is_one_line(text):
    with pytest.raises(UserError) as caught:
        parse_gate(text)
    assert "\n" not in str(caught.value)
