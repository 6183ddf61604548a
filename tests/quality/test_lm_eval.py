"""Rolling perplexity is lm-evaluation-harness's own (runs where the extra `tasks` is installed)."""

from __future__ import annotations

import pytest

from pytest_llmprune.models.load import load
from pytest_llmprune.models.spec import ModelSpec
from pytest_llmprune.quality.perplexity import PerplexityProtocol, measure, prefix_of, tokenise, windows_of
from pytest_llmprune.quality.texts import builtin

instance = pytest.importorskip("lm_eval.api.instance", reason="lm-eval is not installed: pytest-llmprune[tasks]")
huggingface = pytest.importorskip("lm_eval.models.huggingface", reason="lm-eval can't use transformers here")


@pytest.mark.parametrize("window", [128, 256])
def test_rolling_agrees_with_loglikelihood_rolling_to_four_digits(window):
    loaded = load(ModelSpec("tiny", dtype="float32"))
    document = builtin("hamlet")[:12_345]
    harness = huggingface.HFLM(
        pretrained=loaded.model, tokenizer=loaded.tokenizer, max_length=window, batch_size=1, device="cpu"
    )
    request = instance.Instance("loglikelihood_rolling", doc={}, arguments=(document,), idx=0)
    (theirs,) = harness.loglikelihood_rolling([request], disable_tqdm=True)

    protocol = PerplexityProtocol(window=window, rolling=True)
    tokens = tokenise(loaded.tokenizer, document, special=True)
    ours = measure(loaded.model, windows_of(tokens, protocol, prefix_of(loaded.tokenizer, protocol)))
    assert sum(ours.scored) == len(tokens)
    print(f"lm-eval {theirs:.4f}, ours {-sum(ours.nll):.4f}")
    assert -sum(ours.nll) == pytest.approx(theirs, rel=1e-5)
