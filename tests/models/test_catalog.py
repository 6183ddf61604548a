"""Every published architecture can be built without weights, with exactly the published number of parameters."""

from __future__ import annotations

import pytest

from pytest_llmprune.models import catalog
from pytest_llmprune.models.load import load, load_config
from pytest_llmprune.models.miniature import miniature, shrink
from pytest_llmprune.models.spec import ModelSpec


@pytest.mark.parametrize("name", catalog.names())
def test_the_parameter_count_is_the_published_one(name):
    loaded = load(ModelSpec(name, weights="meta"))
    assert loaded.tokenizer is None
    assert loaded.model.device.type == "meta"
    assert sum(p.numel() for p in loaded.model.parameters()) == catalog.entry(name).parameters


@pytest.mark.parametrize("name", catalog.names())
def test_the_miniature_keeps_what_shapes_the_graph(name):
    config = load_config(ModelSpec(name))
    small = shrink(config)
    model = miniature(config)
    assert sum(p.numel() for p in model.parameters()) < 2e6
    assert type(model).__name__ == catalog.entry(name).config["architectures"][0]
    assert (
        small.num_attention_heads // small.num_key_value_heads
        == config.num_attention_heads // config.num_key_value_heads
    )
    assert small.tie_word_embeddings == config.tie_word_embeddings
    full = {
        n.replace(".0.", ".")
        for n, _ in load(ModelSpec(name, weights="meta")).model.named_parameters()
        if ".layers." not in n or ".layers.0." in n
    }
    mini = {n.replace(".0.", ".") for n, _ in model.named_parameters() if ".layers." not in n or ".layers.0." in n}
    assert mini == full


def test_the_same_seed_gives_the_same_miniature():
    config = load_config(ModelSpec("meta-llama/Llama-3.2-1B"))
    first, again, other = (miniature(config, seed=seed).lm_head.weight for seed in (0, 0, 1))
    assert first.equal(again)
    assert not first.equal(other)
