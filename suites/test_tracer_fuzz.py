"""Does torch-pruning trace what Hypothesis thinks up, and couple what must be coupled?

A failure is told with the smallest example, and a program that shows it on plain torch-pruning.
"""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("hypothesis", reason="Hypothesis is not installed: pip install 'pytest-llmprune[fuzz]'")

from hypothesis import assume
from hypothesis import strategies as st

from pytest_llmprune.fuzz import Cut, llama_configs, modules, nests, oracles, scripts
from pytest_llmprune.fuzz.configs import TOKENS
from pytest_llmprune.graph.diff import differences
from pytest_llmprune.graph.expected import expected_groups
from pytest_llmprune.models.layout import decoder_layers

CHOICE = st.integers(0, 99)
ATTENTION = st.sampled_from(["eager", "sdpa"])


class _Returning(torch.nn.Module):
    """Layers in a row, whose outputs are handed back as `wrap` says, the last one first."""

    def __init__(self, count, wrap):
        super().__init__()
        self.layers, self.wrap = torch.nn.ModuleList(torch.nn.Linear(2, 2) for _ in range(count)), wrap

    def forward(self, x):
        tensors = []
        for layer in self.layers:
            x = layer(x)
            tensors.insert(0, x)
        return self.wrap(tensors)


def test_no_nest_of_outputs_changes_the_groups(fuzz):
    x = torch.ones(2, 2)
    expected = {count: oracles.groups(_Returning(count, lambda tensors: tensors[0]), x) for count in (1, 2)}

    def check(nest):
        fuzz.script(scripts.nest, nest)
        found = oracles.groups(_Returning(nest.count, nest), x)
        oracles.same_groups(expected[nest.count], found, f"returning {nest}")

    fuzz(check, nests(1) | nests(2))


@pytest.mark.parametrize("output", ["{'logits': y.detach()}", "()", "{}", "None"])
def test_an_output_without_history_is_refused(llm_fixes, llm_record, output):
    class Silent(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(2, 2)

        def forward(self, x):
            return eval(output, {"y": self.linear(x)})

    with pytest.raises((ValueError, AttributeError, TypeError, oracles.OracleFailed)):
        oracles.graph_of(Silent(), torch.ones(1, 2))


def test_channels_of_networks_take_along_what_they_must(fuzz):
    def check(network):
        fuzz.script(scripts.built, network)
        graph = oracles.graph_of(network.build(), network.inputs())
        for start, expected in network.takes.items():
            fuzz.script(scripts.takes, network, start)
            oracles.takes_along(graph, start, expected)

    fuzz(check, modules())


LONG = 211  # steps: more than any layer has channels, since torch-pruning takes as many for channels
# what leaves the coupling of channels alone: (what does it, the same as code of a script)
CHANGES = {
    "other inputs": (
        lambda network, n: (network.build(), network.inputs(batch=1 + n % 3, time=LONG + n, seed=n)),
        lambda network, n: f"traced(model, {network.inputs_code(1 + n % 3, LONG + n)})",
    ),
    "other weights, in training": (
        lambda network, n: (network.build(seed=1 + n).train(), network.inputs()),
        lambda network, n: "traced(Model().train(), x)",
    ),
    "the meta device": (
        lambda network, n: (network.build().to("meta"), network.inputs().to("meta")),
        lambda network, n: "traced(model.to('meta'), x.to('meta'))",
    ),
    "another order of registration": (
        lambda network, n: (oracles.registered_in_reverse(network.build()), network.inputs()),
        lambda network, n: "traced(registered_in_reverse(model), x)",
    ),
    "outputs that nobody uses": (
        lambda network, n: (oracles.returning(network.build(), lambda y: [y, {n: y.mean()}]), network.inputs()),
        lambda network, n: f"traced(returning(model, lambda y: [y, {{{n}: y.mean()}}]), x)",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_couples_nothing_changes_no_group(fuzz, change):
    make, code = CHANGES[change]

    def check(network, n):
        fuzz.script(scripts.changed, network, code(network, n))
        expected = oracles.groups(network.build(), network.inputs())
        oracles.same_groups(expected, oracles.groups(*make(network, n)), change)

    fuzz(check, modules(), st.integers(0, 5))


PRUNED = {
    "equals a masked one": (oracles.pruned_equals_masked, scripts.masked),
    "can be pruned again": (oracles.second_pruning_composes, scripts.again),
    "is replayed from its history": (oracles.history_replays, scripts.replayed),
}


@pytest.mark.parametrize("claim", PRUNED)
def test_a_pruned_network(fuzz, claim):
    oracle, script = PRUNED[claim]

    def check(network, choice):
        assume(network.cuts)
        cut = network.cuts[choice % len(network.cuts)]
        fuzz.script(script, network, cut)
        oracle(network.build(), network.inputs(), cut)

    fuzz(check, modules(), CHOICE)


def test_channels_in_another_order_are_invisible(fuzz):
    def check(network, choice):
        order = network.orders[choice % len(network.orders)]
        fuzz.script(scripts.reordered, network, order)
        model, inputs = network.build(), network.inputs()
        oracles.permutation_is_invisible(model, inputs, order.layer, out=order.out, block=order.block)

    fuzz(check, modules(), CHOICE)


def _model(config, attention):
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()


def _attention(config, attention):
    return "eager" if config.model_type == "gemma2" else attention  # its attention has no sdpa form


def test_configs_of_the_family_have_the_groups_they_imply(fuzz):
    def check(config, attention, use_cache):
        attention = _attention(config, attention)
        fuzz.script(scripts.implied, config, attention, use_cache)
        inputs = {"input_ids": torch.arange(TOKENS)[None], "use_cache": use_cache}
        found = differences(expected_groups(config), oracles.groups(_model(config, attention), inputs))
        assert not found, "\n".join(found)

    fuzz(check, llama_configs(), ATTENTION, st.booleans())


@pytest.mark.parametrize("part", ["ffn", "kv heads"])
def test_pruned_equals_masked_in_any_config(fuzz, part):
    def check(config, attention, choice):
        attention = _attention(config, attention)
        model = _model(config, attention)
        layer = decoder_layers(model)[choice % config.num_hidden_layers]
        if part == "ffn":
            cut = Cut(f"{layer.name}.mlp.down_proj", False, (choice % config.intermediate_size,))
        else:
            assume(layer.k is not None and config.num_key_value_heads > 1)
            size = layer.attention.head_dim
            start = choice % config.num_key_value_heads * size
            cut = Cut(f"{layer.name}.self_attn.k_proj", True, tuple(range(start, start + size)))
        fuzz.script(scripts.masked_config, config, attention, cut)
        inputs = {"input_ids": torch.arange(TOKENS)[None], "use_cache": False}
        oracles.pruned_equals_masked(model, inputs, cut)

    fuzz(check, llama_configs(), ATTENTION, CHOICE)
