"""The shipped tiny Llama is a language model, and notices what is done to it."""

from __future__ import annotations

import copy
import math

import pytest

from pytest_llmprune import fixes
from pytest_llmprune.models.load import load
from pytest_llmprune.models.spec import ModelSpec
from pytest_llmprune.prune.apply import prune
from pytest_llmprune.prune.recipes import Case
from pytest_llmprune.quality.perplexity import PerplexityProtocol, measure, prefix_of, tokenise, windows_of
from pytest_llmprune.quality.texts import EVALUATION, builtin
from pytest_llmprune.resources import data_dir

TRIGRAM = 46.79  # measured by scripts/train_tiny_llama.py on the same tokens, see the model card
PROTOCOL = PerplexityProtocol(window=255, stride=128, windows=10_000)


@pytest.fixture(scope="module")
def tiny():
    return load(ModelSpec("tiny"))


def _perplexity(loaded, model, windows):
    tokens = tokenise(loaded.tokenizer, builtin(EVALUATION))
    prefix = prefix_of(loaded.tokenizer, PROTOCOL)
    return measure(model, windows_of(tokens, PROTOCOL, prefix)[:windows]).value


def test_it_beats_a_trigram_model_on_the_whole_held_out_text(tiny):
    assert str(TRIGRAM) in (data_dir() / "tiny-llama" / "README.md").read_text()
    assert _perplexity(tiny, tiny.model, None) < 0.75 * TRIGRAM


def test_half_its_ffn_removed_by_magnitude_at_least_doubles_its_perplexity(tiny):
    with fixes.applied():
        pruned = prune(copy.deepcopy(tiny.model), Case("ffn", 0.5, "magnitude")).model
    assert _perplexity(tiny, pruned, 32) > 2 * _perplexity(tiny, tiny.model, 32)


def test_it_is_small_and_brings_no_code(tiny):
    files = {file.name: file.stat().st_size for file in (data_dir() / "tiny-llama").iterdir()}
    assert files["model.safetensors"] <= 4_000_000
    assert not [name for name in files if name.endswith((".py", ".bin", ".pt", ".pkl"))]
    assert tiny.model.config.num_attention_heads == 2 * tiny.model.config.num_key_value_heads
    assert tiny.model.lm_head.weight is tiny.model.model.embed_tokens.weight
    assert math.isfinite(sum(p.sum().item() for p in tiny.model.parameters()))
