"""Perplexity is what its docstring says, token by token, and its ratio carries a paired interval."""

from __future__ import annotations

import math

import pytest
import torch

from pytest_llmprune.errors import CheckFailed, UserError
from pytest_llmprune.quality.perplexity import Perplexity, PerplexityProtocol, measure, ratio, windows_of

TOKENS = torch.randint(3, 64, (100,), generator=torch.Generator().manual_seed(0))


def _by_hand(model, protocol, bos):
    """Nats and count, one token at a time, from the definition alone."""
    total, count, scored_up_to = 0.0, 0, 0
    start = 0
    for _ in range(protocol.windows):
        end = start + protocol.window
        if end > len(TOKENS):
            break
        context = ([bos] if bos is not None else []) + TOKENS[start:end].tolist()
        offset = start - (bos is not None)
        for position in range(1, len(context)):
            absolute = offset + position
            if absolute < scored_up_to:
                continue
            with torch.inference_mode():
                logits = model(input_ids=torch.tensor([context[:position]])).logits[0, -1]
            total -= torch.log_softmax(logits.double(), -1)[context[position]].item()
            count += 1
        scored_up_to = end
        start += protocol.stride
    return total, count


@pytest.mark.parametrize("bos", [None, 1])
@pytest.mark.parametrize(("window", "stride"), [(20, 20), (20, 10), (32, 5)])
def test_it_equals_the_definition_token_by_token(llama, bos, window, stride):
    model, protocol = llama(4, 2), PerplexityProtocol(window=window, stride=stride, windows=5)
    found = measure(model, windows_of(TOKENS, protocol), protocol, bos)
    total, count = _by_hand(model, protocol, bos)
    assert sum(found.scored) == count
    assert sum(found.nll) == pytest.approx(total, rel=1e-5)
    assert found.value == pytest.approx(math.exp(total / count), rel=1e-5)


def test_the_tail_is_dropped_and_a_short_text_refused():
    assert windows_of(TOKENS, PerplexityProtocol(window=30, stride=30, windows=9)).shape == (3, 30)
    assert windows_of(TOKENS, PerplexityProtocol(window=30, stride=30, windows=2)).shape == (2, 30)
    with pytest.raises(UserError, match="100 tokens, fewer than one window of 101"):
        windows_of(TOKENS, PerplexityProtocol(window=101, stride=101, windows=1))


def test_logits_that_are_not_finite_are_no_measurement(llama):
    model, protocol = llama(4, 2), PerplexityProtocol(window=20, stride=20, windows=2)
    with torch.no_grad():
        model.model.norm.weight[0] = float("nan")
    with pytest.raises(CheckFailed, match="window 0 is nan"):
        measure(model, windows_of(TOKENS, protocol), protocol, None)


def test_the_interval_holds_the_ratio_and_shrinks_with_agreement():
    dense = Perplexity((20.0, 40.0, 30.0, 25.0), (10, 10, 10, 10))
    same_shift = Perplexity((22.0, 42.0, 32.0, 27.0), (10, 10, 10, 10))
    mixed = Perplexity((18.0, 46.0, 32.0, 27.0), (10, 10, 10, 10))
    exact, loose = ratio(same_shift, dense), ratio(mixed, dense)
    assert exact.value == exact.low == exact.high == pytest.approx(math.exp(0.2))
    assert loose.value == pytest.approx(math.exp(0.2))
    assert loose.low < loose.value < loose.high


def test_windows_that_differ_are_not_compared():
    with pytest.raises(CheckFailed, match="different windows"):
        ratio(Perplexity((1.0,), (10,)), Perplexity((1.0,), (11,)))
