"""In every family and attention kind a group pruned from any of its layers equals the mask, another mask does not, and
the weak heads are those that go.
"""

from __future__ import annotations

import copy

import pytest
import torch
import torch_pruning as tp

from pytest_llmprune import fixes
from pytest_llmprune.graph.budget import propagation_budget
from pytest_llmprune.graph.trace import trace
from pytest_llmprune.models.layout import decoder_layers, shape_of
from pytest_llmprune.models.load import load_config
from pytest_llmprune.models.miniature import miniature
from pytest_llmprune.models.spec import ModelSpec
from pytest_llmprune.prune.apply import prune
from pytest_llmprune.prune.config import synchronise
from pytest_llmprune.prune.recipes import Case

FAMILIES = {
    "llama": "meta-llama/Llama-2-7b-hf",
    "llama-gqa": "meta-llama/Llama-3.2-3B",
    "llama-9-3": "HuggingFaceTB/SmolLM2-135M",
    "mistral": "mistralai/Mistral-7B-v0.1",
    "qwen2": "Qwen/Qwen2.5-0.5B",
    "qwen3": "Qwen/Qwen3-0.6B",
    "phi3": "microsoft/Phi-3-mini-4k-instruct",
    "gemma2": "google/gemma-2-2b",
}
KINDS = [
    pytest.param(name, attention, id=f"{family}-{attention}")
    for family, name in FAMILIES.items()
    for attention in ("eager", "sdpa")
    if (family, attention) != ("gemma2", "sdpa")  # transformers has none
]
IDS = torch.arange(3, 27).reshape(2, 12)


@pytest.fixture(scope="module", autouse=True)
def _fixed():
    with fixes.applied():
        yield


def _small(name, attention):
    """A miniature whose every head and channel matters to its logits."""
    model = miniature(load_config(ModelSpec(name)), attention=attention)
    with torch.no_grad():
        for layer in decoder_layers(model):
            for linear in (*layer.attention_inputs, *layer.ffn_inputs, layer.o, layer.down):
                linear.weight *= 5
    return model


def _logits(model, zeroed=None):
    """Logits, with the named columns of a Linear layer zeroed: (function from a layer to its reader, columns)."""
    model = copy.deepcopy(model)
    with torch.inference_mode():
        if zeroed is not None:
            reader, columns = zeroed
            for layer in decoder_layers(model):
                reader(layer).weight[:, columns] = 0
        return model(input_ids=IDS).logits


def _channels(heads, size):
    return [head * size + i for head in heads for i in range(size)]


def _pruned_from(model, cuts, use_cache):
    """A copy, pruned in every layer from each (Linear layer, out or in, indices) that `cuts(layer)` names."""
    model = copy.deepcopy(model)
    with propagation_budget():
        graph = trace(model, use_cache=use_cache)
        for layer in decoder_layers(model):
            root, out, indices = cuts(layer)
            function = tp.prune_linear_out_channels if out else tp.prune_linear_in_channels
            graph.get_pruning_group(root, function, indices).prune()
    synchronise(model)
    return model


def _check(model, roots, reader, columns, wrong):
    """Pruned from each root, with a cache and without, the model equals these columns zeroed, not the wrong ones."""
    masked, wrongly = _logits(model, (reader, columns)), _logits(model, (reader, wrong))
    for cuts in roots:
        for use_cache in (False, True):
            found = _logits(_pruned_from(model, cuts, use_cache))
            assert (found - masked).abs().max() < 1e-5
            assert (found - wrongly).abs().max() > 1e-3


@pytest.mark.parametrize(("name", "attention"), KINDS)
def test_an_ffn_channel_goes_alike_from_every_root(name, attention):
    model, channels = _small(name, attention), [0, 2, 7]
    shape = shape_of(model.config)
    roots = [lambda layer: (layer.down, False, channels)]
    if decoder_layers(model)[0].gate_up is None:
        roots += [lambda layer: (layer.gate, True, channels), lambda layer: (layer.up, True, channels)]
    else:
        roots += [lambda layer: (layer.gate_up, True, channels)]
        roots += [lambda layer: (layer.gate_up, True, [shape.ffn + i for i in channels])]
    _check(model, roots, lambda layer: layer.down, channels, [0, 2, 8])


@pytest.mark.parametrize(("name", "attention"), KINDS)
def test_a_query_head_of_every_kv_group_goes_alike_from_every_root(name, attention):
    model = _small(name, attention)
    shape = shape_of(model.config)
    copies, size = shape.queries_per_kv, shape.head_dim
    heads = [1] if copies == 1 else [group * copies + 1 for group in range(shape.kv_heads)]
    columns, wrong = _channels(heads, size), _channels([head - 1 for head in heads], size)
    roots = [lambda layer: (layer.o, False, columns)]
    if decoder_layers(model)[0].qkv is None:
        roots += [lambda layer: (layer.q, True, columns)]
    if copies == 1 and decoder_layers(model)[0].qkv is None:
        roots += [lambda layer: (layer.k, True, columns), lambda layer: (layer.v, True, columns)]
    _check(model, roots, lambda layer: layer.o, columns, wrong)


@pytest.mark.parametrize(("name", "attention"), [kind for kind in KINDS if "phi3" not in kind.id])
def test_a_kv_head_takes_its_query_heads_along_from_every_root(name, attention):
    model = _small(name, attention)
    shape = shape_of(model.config)
    copies, size = shape.queries_per_kv, shape.head_dim
    kv = _channels([1], size)
    columns, wrong = _channels(range(copies, 2 * copies), size), _channels(range(copies), size)
    roots = (
        lambda layer: (layer.k, True, kv),
        lambda layer: (layer.v, True, kv),
        lambda layer: (layer.q, True, columns),
        lambda layer: (layer.o, False, columns),
    )
    _check(model, roots, lambda layer: layer.o, columns, wrong)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_kv_head_of_a_fused_projection_takes_its_query_heads_along(attention):
    config = load_config(ModelSpec(FAMILIES["phi3"]))
    config.num_key_value_heads = config.num_attention_heads // 4  # as in Phi-3-medium
    model = miniature(config, attention=attention)
    with torch.no_grad():
        for layer in decoder_layers(model):
            for linear in (layer.qkv, layer.o):
                linear.weight *= 5
    shape = shape_of(model.config)
    copies, size = shape.queries_per_kv, shape.head_dim
    assert copies == 4
    columns, wrong = _channels(range(copies, 2 * copies), size), _channels(range(copies), size)
    key, value = (_channels([shape.heads + 1 + offset], size) for offset in (0, shape.kv_heads))
    roots = (
        lambda layer: (layer.o, False, columns),
        lambda layer: (layer.qkv, True, columns),
        lambda layer: (layer.qkv, True, key),
        lambda layer: (layer.qkv, True, value),
    )
    _check(model, roots, lambda layer: layer.o, columns, wrong)


@pytest.mark.parametrize(
    ("name", "attention", "recipe"),
    [
        pytest.param(*kind.values, recipe, id=f"{kind.id}-{recipe}")
        for kind in KINDS
        for recipe in ("heads", "kv-groups")
        if (recipe, "phi3" in kind.id) != ("kv-groups", True)  # phi3 fuses its kv heads with the query heads
    ],
)
def test_magnitude_removes_exactly_the_weak_heads(name, attention, recipe):
    model = _small(name, attention)
    shape = shape_of(model.config)
    copies, size = shape.queries_per_kv, shape.head_dim
    fused = decoder_layers(model)[0].qkv is not None
    with torch.no_grad():
        for index, layer in enumerate(decoder_layers(model)):
            query, kv = _weak(shape, recipe, index)
            for head in query:
                rows = slice(head * size, (head + 1) * size)
                (layer.qkv if fused else layer.q).weight[rows] *= 1e-4
                layer.o.weight[:, rows] *= 1e-4
            if not fused and (recipe == "kv-groups" or copies == 1):
                for linear in (layer.k, layer.v):
                    linear.weight[_channels(kv, size)] *= 1e-4
    plan = prune(model, Case(recipe, 0.01, "magnitude")).plan
    for removal in plan.removals:
        query, kv = _weak(shape, recipe, int(removal.module.split(".")[2]))
        assert {i // size for i in removal.indices} == set(kv if recipe == "kv-groups" else query)


def _weak(shape, recipe, layer):
    """(query heads, kv heads) that are weak in a layer: not the same in every layer."""
    copies = shape.queries_per_kv
    if recipe == "kv-groups" or copies == 1:
        kv = (layer + 1) % shape.kv_heads
        return list(range(kv * copies, (kv + 1) * copies)), [kv]
    return [group * copies + (layer + group) % copies for group in range(shape.kv_heads)], []
