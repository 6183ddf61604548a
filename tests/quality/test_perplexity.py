"""Perplexity is what its docstring says, token by token, and its ratio carries a paired interval."""

from __future__ import annotations

import math

import pytest
import torch

from pytest_llmprune.errors import CheckFailed, UserError
from pytest_llmprune.quality import likelihood
from pytest_llmprune.quality.perplexity import Perplexity, PerplexityProtocol, measure, ratio, windows_of

TOKENS = torch.randint(3, 64, (100,), generator=torch.Generator().manual_seed(0)).tolist()
EACH_ALONE = PerplexityProtocol(window=20, stride=20, windows=5)


def _by_hand(model, contexts):
    """Nats of the last token of every context, one at a time."""
    total = 0.0
    for context in contexts:
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([context[:-1]])).logits[0, -1]
        total -= torch.log_softmax(logits.double(), -1)[context[-1]].item()
    return total


def _strided_contexts(protocol, bos):
    scored_up_to = 0
    for start in range(0, len(TOKENS) - protocol.window + 1, protocol.stride)[: protocol.windows]:
        before = [] if bos is None else [bos]
        for end in range(max(scored_up_to, start), start + protocol.window):
            context = [*before, *TOKENS[start : end + 1]]
            if len(context) > 1:
                yield context
        scored_up_to = start + protocol.window


def _rolling_contexts(window, prefix):
    for start in range(0, len(TOKENS), window):
        end = min(start + window, len(TOKENS))
        first = max(0, end - window)
        for position in range(start, end):
            yield [prefix, *TOKENS[: position + 1]][first:] if first == 0 else TOKENS[first - 1 : position + 1]


@pytest.mark.parametrize("bos", [None, 1])
@pytest.mark.parametrize(("window", "stride"), [(20, 20), (20, 10), (32, 5)])
def test_it_equals_the_definition_token_by_token(llama, bos, window, stride):
    model, protocol = llama(4, 2), PerplexityProtocol(window=window, stride=stride, windows=5)
    found = measure(model, windows_of(TOKENS, protocol, bos))
    contexts = list(_strided_contexts(protocol, bos))
    assert sum(found.scored) == len(contexts)
    assert sum(found.nll) == pytest.approx(_by_hand(model, contexts), rel=1e-5)
    assert found.value == pytest.approx(math.exp(sum(found.nll) / len(contexts)), rel=1e-5)


@pytest.mark.parametrize("window", [10, 16, 20])
def test_rolling_predicts_every_token_once_and_the_first_from_the_prefix(llama, window):
    model = llama(4, 2)
    found = measure(model, windows_of(TOKENS, PerplexityProtocol(window=window, rolling=True), 1))
    assert sum(found.scored) == len(TOKENS)
    assert sum(found.nll) == pytest.approx(_by_hand(model, _rolling_contexts(window, 1)), rel=1e-5)


def test_neither_chunks_nor_batches_change_a_likelihood(llama, monkeypatch):
    model, windows = llama(4, 2), windows_of(TOKENS, EACH_ALONE, None)
    whole = measure(model, windows)
    monkeypatch.setattr(likelihood, "CHUNK_LOGITS", 7 * 64)
    monkeypatch.setattr(likelihood, "TOKENS_PER_BATCH", {"cpu": 40})
    assert measure(model, windows).nll == pytest.approx(whole.nll, rel=1e-6)


def test_logits_of_a_whole_window_are_never_held(llama, monkeypatch):
    model, rows = llama(4, 2), []
    monkeypatch.setattr(likelihood, "CHUNK_LOGITS", 7 * 64)
    model.lm_head.register_forward_hook(lambda _module, _inputs, output: rows.append(output.numel() // 64))
    measure(model, windows_of(TOKENS, EACH_ALONE, None))
    assert max(rows) == 7


def test_a_head_that_is_capped_is_and_one_that_is_unknown_is_refused(llama):
    from transformers import Gemma2Config, Gemma2ForCausalLM

    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 8}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.5}
    capped = Gemma2ForCausalLM(Gemma2Config(**sizes, **heads, final_logit_softcapping=3.0)).eval()
    found = measure(capped, windows_of(TOKENS, EACH_ALONE, None))
    assert sum(found.nll) == pytest.approx(_by_hand(capped, _strided_contexts(EACH_ALONE, None)), rel=1e-4)

    scaled = llama(4, 2)
    forward = scaled.forward

    def doubled(*arguments, **named):
        output = forward(*arguments, **named)
        output.logits = 2 * output.logits
        return output

    scaled.forward = doubled
    with pytest.raises(UserError, match="a way that isn't known here"):
        measure(scaled, windows_of(TOKENS, EACH_ALONE, None))


def test_the_tail_is_dropped():
    windows = windows_of(TOKENS, PerplexityProtocol(window=19, stride=19, windows=9), None)
    assert [window.ids for window in windows] == [tuple(TOKENS[start : start + 19]) for start in range(0, 77, 19)]


@pytest.mark.parametrize("rolling", [False, True])
def test_a_text_too_short_for_an_interval_is_refused(rolling):
    protocol = PerplexityProtocol(window=30, stride=30, windows=9, rolling=rolling)
    with pytest.raises(UserError, match=r"100 tokens, which make [34] windows of 30; an interval needs at least 5"):
        windows_of(TOKENS, protocol, 1)
    with pytest.raises(UserError, match=r"1 tokens, which make [01] windows"):
        windows_of(TOKENS[:1], protocol, 1)


def test_rolling_without_a_token_to_begin_with_is_refused():
    with pytest.raises(UserError, match="the tokenizer has neither"):
        windows_of(TOKENS, PerplexityProtocol(window=10, rolling=True), None)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_not_finite_are_no_measurement(llama, value):
    model = llama(4, 2)
    with torch.no_grad():
        model.model.norm.weight[0] = value
    with pytest.raises(CheckFailed, match="window 0 is nan"):
        measure(model, windows_of(TOKENS, EACH_ALONE, None))


def test_the_interval_holds_the_ratio_and_shrinks_with_agreement():
    dense = Perplexity((20.0, 40.0, 30.0, 25.0), (10, 10, 10, 10))
    same_shift = Perplexity((22.0, 42.0, 32.0, 27.0), (10, 10, 10, 10))
    mixed = Perplexity((18.0, 46.0, 32.0, 27.0), (10, 10, 10, 10))
    exact, loose = ratio(same_shift, dense), ratio(mixed, dense)
    assert exact.value == exact.low == exact.high == pytest.approx(math.exp(0.2))
    assert loose.value == pytest.approx(math.exp(0.2))
    assert loose.low < loose.value < loose.high


@pytest.mark.parametrize("windows", [6, 12, 48])
def test_the_interval_holds_the_truth_about_as_often_as_it_says(windows):
    trials, generator = 1000, torch.Generator().manual_seed(windows)
    dense = Perplexity((0.0,) * windows, (1,) * windows)
    held = 0
    for trial in range(trials):
        differences = torch.randn(windows, generator=generator, dtype=torch.float64)
        found = ratio(Perplexity(tuple(differences.tolist()), dense.scored), dense, draws=2000, seed=trial + 1_000_000)
        held += found.low <= 1.0 <= found.high
    assert 0.92 < held / trials < 0.975


def test_another_seed_of_the_bootstrap_moves_the_interval_by_little():
    dense = Perplexity((0.0,) * 12, (1,) * 12)
    pruned = Perplexity(tuple(torch.randn(12, generator=torch.Generator().manual_seed(1)).tolist()), dense.scored)
    widths = [math.log(r.high / r.low) for r in (ratio(pruned, dense, seed=seed) for seed in range(10))]
    assert max(widths) - min(widths) < 0.1 * min(widths)
    assert len(set(widths)) > 1


def test_windows_that_differ_or_are_too_few_are_not_compared():
    with pytest.raises(CheckFailed, match="different windows"):
        ratio(Perplexity((1.0,), (10,)), Perplexity((1.0,), (11,)))
    with pytest.raises(CheckFailed, match="1 windows have no interval"):
        ratio(Perplexity((1.0,), (10,)), Perplexity((1.0,), (10,)))
