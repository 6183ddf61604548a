"""Every oracle passes on what is right, and fails on what is wrong: on an unfixed library, or on one broken here."""

from __future__ import annotations

import pytest
import torch

from pytest_llmprune import fixes
from pytest_llmprune.fuzz import Cut, Network, oracles
from pytest_llmprune.fuzz.modules import Block
from pytest_llmprune.fuzz.oracles import OracleFailed
from pytest_llmprune.graph.budget import RunawayPropagation

GATED = Network(4, (Block("gated", (3, 1, 1)), Block("norm")))
FFN = Cut("layer3", False, (1,))  # the layer back from the FFN: gate and up go along


@pytest.fixture(autouse=True)
def _fixed():
    with fixes.applied():
        yield


@pytest.fixture
def breaking(_fixed):
    """A monkeypatch that is undone before the fixes are, or it would put back what they had put there."""
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture
def lose(breaking):
    """`lose(name)`: torch-pruning forgets that layer in every group."""
    import torch_pruning as tp

    def forget(name):
        original = tp.DependencyGraph.get_pruning_group

        def without(graph, module, function, idxs):
            group = original(graph, module, function, idxs)
            group._group = [item for item in group._group if graph._module2name.get(item.dep.target.module) != name]
            return group

        breaking.setattr(tp.DependencyGraph, "get_pruning_group", without)

    return forget


@pytest.fixture
def off_by_one(breaking):
    """torch-pruning removes the neighbours of the input channels that it was told to remove."""
    from torch_pruning.pruner import function

    original = function.LinearPruner.prune_in_channels
    breaking.setattr(
        function.LinearPruner,
        "prune_in_channels",
        lambda self, layer, idxs: original(self, layer, [(i + 1) % layer.in_features for i in idxs]),
    )


def test_a_healthy_library_passes_every_oracle():
    model, inputs = GATED.build(), GATED.inputs()
    graph = oracles.graph_of(model, inputs)
    for start, expected in GATED.takes.items():
        oracles.takes_along(graph, start, expected)
    oracles.pruned_equals_masked(model, inputs, FFN)
    oracles.second_pruning_composes(model, inputs, FFN)
    oracles.history_replays(model, inputs, FFN, FFN)
    oracles.permutation_is_invisible(model, inputs, "layer3", out=False)
    oracles.permutation_is_invisible(model, inputs, "layer5", out=False)
    for changed in (oracles.registered_in_reverse(model), oracles.returning(model, lambda y: [None, y])):
        oracles.same_groups(oracles.groups(model, inputs), oracles.groups(changed, inputs), "it")


@pytest.mark.parametrize("output", ["()", "{}", "y.detach()"])
def test_an_empty_graph_is_an_error(output):
    class Silent(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(2, 2)

        def forward(self, x):
            return eval(output, {"y": self.linear(x)})

    with pytest.raises(ValueError, match="nothing to trace"):
        oracles.graph_of(Silent(), torch.ones(1, 2))
    with fixes.applied(()), pytest.raises((OracleFailed, AttributeError)):
        oracles.graph_of(Silent(), torch.ones(1, 2))


def test_a_changed_group_is_named():
    narrow, wide = Network(2), Network(3)
    with pytest.raises(OracleFailed, match=r"width changed the groups\n  without it: .*layer0.out 2, layer1.in 2"):
        oracles.same_groups(
            oracles.groups(narrow.build(), narrow.inputs()), oracles.groups(wide.build(), wide.inputs()), "width"
        )


def test_a_member_too_few_is_named(lose):
    lose("layer1")
    graph = oracles.graph_of(GATED.build(), GATED.inputs())
    with pytest.raises(OracleFailed, match=r"layer3.in\[0\] must take .* lacks layer1.out\[0\], and takes nothing"):
        oracles.takes_along(graph, ("layer3", "in", 0), GATED.takes["layer3", "in", 0])


def test_a_wrong_index_is_named():
    network = Network(2, (Block("split", (1, 1, 1)),))
    with fixes.applied([id for id in fixes.applicable() if id != "split-order"]):
        graph = oracles.graph_of(network.build(), network.inputs())
        start = ("layer1", "out", 0)
        with pytest.raises(OracleFailed, match=r"lacks layer2.in\[0\], and takes layer3.in\[0\] too"):
            oracles.takes_along(graph, start, network.takes[start])


def test_pruning_the_wrong_channels_is_seen_in_the_outputs(off_by_one):
    with pytest.raises(OracleFailed, match="masked and pruned outputs"):
        oracles.pruned_equals_masked(GATED.build(), GATED.inputs(), FFN)


def test_a_layer_that_was_forgotten_is_seen_when_the_pruned_model_runs(lose):
    lose("layer1")
    with pytest.raises(RuntimeError, match="size of tensor"):
        oracles.pruned_equals_masked(GATED.build(), GATED.inputs(), FFN)


def test_stale_offsets_are_seen_in_the_groups_after_pruning():
    network = Network(2, (Block("slice", (2, 2, 2)),))
    cut = Cut("layer1", True, (0,))
    oracles.second_pruning_composes(network.build(), network.inputs(), cut)
    others = [id for id in fixes.applicable() if id != "stale-slice"]
    with fixes.applied(others), pytest.raises((OracleFailed, RunawayPropagation)):
        oracles.second_pruning_composes(network.build(), network.inputs(), cut)


@pytest.mark.parametrize("layer", ["layer1", "layer2", "layer3"])
def test_a_forgotten_member_is_seen_without_pruning_anything(lose, layer):
    lose(layer)
    with pytest.raises(OracleFailed, match="were reordered differ"):
        oracles.permutation_is_invisible(GATED.build(), GATED.inputs(), "layer5", out=False)


def test_a_history_that_forgets_is_seen(breaking):
    import torch_pruning as tp

    breaking.setattr(tp.DependencyGraph, "pruning_history", lambda graph: graph._pruning_history[:-1])
    with pytest.raises(OracleFailed, match=r"other weights in layer1\.weight, layer1\.bias"):
        oracles.history_replays(GATED.build(), GATED.inputs(), FFN, FFN)
