"""The strategies make what they claim, and shrink to little."""

from __future__ import annotations

import ast

import pytest
import torch
from hypothesis import HealthCheck, find, given, settings
from hypothesis import strategies as st

from pytest_llmprune.fuzz import llama_configs, modules, nested_outputs, nests
from pytest_llmprune.fuzz.blocks import BLOCKS
from pytest_llmprune.fuzz.configs import FAMILIES
from pytest_llmprune.fuzz.outputs import BESIDE, OF_ANYTHING, OF_ONE_TENSOR, OF_TENSORS

few = settings(max_examples=50, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
search = settings(few, max_examples=2000)


def _example(strategy, condition):
    return find(strategy, condition, settings=search)


@pytest.mark.parametrize("kind", [*OF_ANYTHING, *OF_TENSORS, *OF_ONE_TENSOR])
def test_every_container_is_built_and_holds_its_tensor(kind):
    written = (OF_ANYTHING | OF_TENSORS | OF_ONE_TENSOR)[kind](["tensors[0]"])
    nest = _example(nests(), lambda nest: written in nest.source)
    assert nest.source == written
    nest([torch.ones(2, 2)])


def test_everything_that_may_stand_beside_tensors_does():
    seen = []

    @settings(few, max_examples=500)
    @given(nests())
    def look(nest):
        seen.append(nest.source)
        nest([torch.ones(2, 2)])

    look()
    assert [thing for thing in BESIDE if not any(thing in source for source in seen)] == []


@few
@given(nests(3))
def test_a_nest_holds_each_tensor_at_least_once(nest):
    indices = {
        node.slice.value
        for node in ast.walk(ast.parse(nest.source))
        if isinstance(node, ast.Subscript) and getattr(node.value, "id", "") == "tensors"
    }
    assert indices == {0, 1, 2}


def test_nested_outputs_shrink_to_the_tensor_itself():
    tensor = torch.ones(2, 2)
    assert _example(nested_outputs([tensor]), lambda output: True) is tensor


@few
@given(modules())
def test_networks_run_and_know_every_channel_of_their_layers(network):
    model = network.build()
    assert model(network.inputs()).shape[:2] == network.inputs().shape[:2]
    linear = {name: layer for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)}
    known = {channel for together in network.takes.values() for channel in together}
    for name, layer in list(linear.items())[1:-1]:
        assert {i for owner, side, i in known if (owner, side) == (name, "out")} == set(range(layer.out_features))
        assert {i for owner, side, i in known if (owner, side) == (name, "in")} == set(range(layer.in_features))


@few
@given(modules(), st.integers(0, 9))
def test_a_network_is_its_blocks_and_its_seed(network, seed):
    first, second = network.build(seed), network.build(seed)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize("kind", BLOCKS)
def test_a_kind_of_block_shrinks_to_itself_alone(kind):
    network = _example(modules(), lambda network: kind in [block.kind for block in network.blocks])
    assert [block.kind for block in network.blocks] == [kind]
    assert (network.width, network.blocks[0].sizes) == (2, (1, 1, 1))


def test_some_embeddings_are_tied():
    network = _example(modules(), lambda network: "weight = self.layer0.weight" in network.source)
    model = network.build()
    assert model.layer0.weight is model.layer1.weight


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_configs_that_shrink_to_one_layer_and_head(family):
    config = _example(llama_configs((family,)), lambda config: True)
    assert config.model_type == family
    assert (config.num_hidden_layers, config.num_attention_heads, config.num_key_value_heads) == (1, 1, 1)


@pytest.mark.parametrize(("heads", "kv_heads"), [(1, 1), (3, 1), (3, 3), (9, 3), (12, 4)])
def test_odd_and_grouped_heads_occur(heads, kv_heads):
    _example(llama_configs(), lambda c: (c.num_attention_heads, c.num_key_value_heads) == (heads, kv_heads))


@few
@given(llama_configs())
def test_configs_make_models(config):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(config)
    assert model(input_ids=torch.ones(1, 2, dtype=torch.long)).logits.shape == (1, 2, 16)
