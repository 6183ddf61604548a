"""The parts of coherence are what they are called."""

from __future__ import annotations

import math

import pytest

from pytest_llmprune.errors import CheckFailed
from pytest_llmprune.quality.coherence import (
    Continuation,
    Generated,
    distinct2,
    garble,
    rep4,
    score_against,
    scripts_of,
)


def test_rep4_counts_repeated_four_grams():
    assert rep4([1, 2, 3, 4, 5]) == 0
    assert rep4([1, 1, 1, 1, 1]) == 0.5
    assert rep4([1, 2, 3, 4, 1, 2, 3, 4]) == pytest.approx(1 - 4 / 5)
    assert rep4([1, 2, 3]) == 0


def test_distinct2_pools_bigrams():
    assert distinct2([[1, 2, 1, 2], [1, 2]]) == pytest.approx(2 / 4)
    assert distinct2([]) == 0


def test_garble_counts_what_is_no_text():
    assert garble("Good day, sir.\n\t") == 0
    assert garble("ab\ufffd\x00") == 0.5
    assert garble("") == 1
    assert garble("день", {"LATIN"}) == 1
    assert garble("день", scripts_of("день")) == 0
    assert garble("1234 ,.-", {"LATIN"}) == 0


def _score(nll, repeated=0.0, text="words"):
    import torch

    dense = (Continuation("p", "words", "greedy", 0.2, 0.0, 1.0),)
    generated = Generated(torch.zeros(1, 1), torch.ones(1, 1), torch.tensor([[1, 2, 3]]))
    return score_against((Continuation("p", text, "greedy", repeated, 0.0, nll),), dense, generated).value


def test_the_score_falls_with_unlikely_repeated_or_garbled_text_and_stays_in_0_to_1():
    good = _score(1.0)
    assert good == 1.0
    assert _score(0.2) == good
    assert _score(3.0) == pytest.approx(math.exp(-1))
    assert _score(1.0, repeated=0.6) == pytest.approx(0.4 / 0.8)
    assert _score(1.0, text="") == 0
    assert 0 <= _score(50.0, repeated=1.0) < 1e-9


def test_a_likelihood_that_is_not_finite_is_no_score():
    with pytest.raises(CheckFailed, match="nan"):
        _score(math.nan)
