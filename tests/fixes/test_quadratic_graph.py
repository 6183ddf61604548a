"""With the fix quadratic-graph every group is the one that torch-pruning makes without it, only sooner."""

from __future__ import annotations

import copy
import hashlib

import pytest
import torch
import torch_pruning as tp
from torch import nn

from pytest_llmprune import fixes
from pytest_llmprune.graph.trace import trace
from pytest_llmprune.models import catalog
from pytest_llmprune.models.layout import decoder_layers, shape_of
from pytest_llmprune.models.load import load_config
from pytest_llmprune.models.miniature import miniature
from pytest_llmprune.models.spec import ModelSpec
from pytest_llmprune.prune.config import synchronise

WITHOUT = tuple(id for id in fixes.applicable() if id != "quadratic-graph")
WITH = (*WITHOUT, "quadratic-graph")
NEEDED = tuple(id for id in WITHOUT if id == "none-ignored-params")  # before 1.5.3 no group without it


@pytest.fixture(autouse=True)
def _unpatched():
    fixes.undo()
    yield
    fixes.undo()


def _digest(graph):
    """A hash over all members of all groups from all roots, their indices, and the root indices they come from."""
    digest = hashlib.sha256()
    for module in list(graph.module2node):
        if not isinstance(module, (nn.Linear, nn.Conv2d)):
            continue
        pruner = graph.get_pruner_of_module(module)
        for prune, channels in (
            (pruner.prune_out_channels, pruner.get_out_channels(module)),
            (pruner.prune_in_channels, pruner.get_in_channels(module)),
        ):
            for indices in (list(range(channels)), list(range(channels // 2, channels)), [channels - 1, 0]):
                for item in graph.get_pruning_group(module, prune, indices):
                    line = (_label(graph, item.dep.target), item.dep.handler.__name__, item.idxs, item.root_idxs)
                    digest.update(repr(line).encode())
    for group in graph.get_all_groups(root_module_types=[nn.Linear, nn.Conv2d]):
        digest.update(repr([(_label(graph, dep.target), len(idxs)) for dep, idxs in group]).encode())
    return digest.hexdigest()


def _kinds():
    """(name, attention) of the catalogue's models, one of each kind of graph. transformers has no sdpa for gemma2."""
    kinds = {}
    for name in catalog.names():
        config = catalog.entry(name).config
        shape = shape_of(config)
        kind = (
            config["model_type"],
            shape.queries_per_kv,
            config.get("tie_word_embeddings"),
            config.get("attention_bias"),
        )
        kinds.setdefault(kind, name)
    return [
        (name, attention)
        for (family, *_), name in kinds.items()
        for attention in ("eager", "sdpa")
        if (family, attention) != ("gemma2", "sdpa")
    ]


def _label(graph, node):
    return graph._param_to_name.get(node.module) if isinstance(node.module, nn.Parameter) else node.name


@pytest.mark.parametrize(("name", "attention"), _kinds())
def test_groups_of_every_architecture_are_identical(name, attention):
    model = miniature(load_config(ModelSpec(name, weights="random")), attention=attention)
    digests = {}
    for use_cache in (False, True):
        for ids in (WITHOUT, WITH):
            with fixes.applied(ids):
                digests[ids] = _digest(trace(model, use_cache=use_cache))
        assert digests[WITH] == digests[WITHOUT]


class _Convolutions(nn.Module):
    """Concatenation, splitting, a residual sum and a flattening, all of channels."""

    def __init__(self):
        super().__init__()
        self.stem, self.left, self.right = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1), nn.Conv2d(8, 6, 1)
        self.joined, self.out = nn.Conv2d(10, 8, 1), nn.Linear(2 * 4 * 8 * 8, 5)

    def forward(self, x):
        x = self.stem(x)
        first, second = self.joined(torch.cat([self.left(x), self.right(x)], dim=1)).chunk(2, dim=1)
        return self.out(torch.cat([first + x[:, :4], second], dim=1).flatten(1))


class _VisionTransformer(nn.Module):
    """A class token is concatenated in time, which torch-pruning must not take for channels."""

    def __init__(self):
        super().__init__()
        self.embed, self.token = nn.Linear(6, 8), nn.Parameter(torch.zeros(1, 1, 8))
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x):
        x = torch.cat([self.token.expand(len(x), -1, -1), self.embed(x)], dim=1)
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return self.out(torch.softmax(q @ k.mT, dim=-1) @ v) + x


@pytest.mark.parametrize(
    ("model", "inputs"),
    [(_Convolutions(), torch.ones(1, 3, 8, 8)), (_VisionTransformer(), torch.ones(2, 5, 6))],
    ids=["convolutions", "vision transformer"],
)
@pytest.mark.parametrize("others", [NEEDED, WITHOUT], ids=["alone", "with the other fixes"])
def test_groups_of_models_that_are_no_llama_are_identical(model, inputs, others):
    digests = []
    for ids in (others, (*others, "quadratic-graph")):
        with fixes.applied(ids):
            digests.append(_digest(tp.DependencyGraph().build_dependency(model, inputs, verbose=False)))
    assert digests[0] == digests[1]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", ["meta-llama/Meta-Llama-3-8B", "Qwen/Qwen3-8B", "microsoft/Phi-3-mini-4k-instruct"])
def test_a_graph_that_was_pruned_twice_has_the_groups_of_a_fresh_one(name, attention):
    model = miniature(load_config(ModelSpec(name, weights="random")), attention=attention)
    with fixes.applied(WITH):
        graph = trace(model)
        head_dim = model.config.head_dim
        for _ in range(2):
            for layer in decoder_layers(model):
                groups = model.config.num_attention_heads // model.config.num_key_value_heads
                first_of_each = [
                    head * groups * head_dim + i
                    for head in range(model.config.num_key_value_heads)
                    for i in range(head_dim)
                ]
                graph.get_pruning_group(layer.down, tp.prune_linear_in_channels, [0, 3]).prune()
                if groups > 1:
                    graph.get_pruning_group(layer.o, tp.prune_linear_in_channels, first_of_each).prune()
            graph.get_pruning_group(layer.down, tp.prune_linear_out_channels, [1, 2]).prune()
            synchronise(model)
        assert _digest(graph) == _digest(trace(copy.deepcopy(model)))


def test_work_for_a_group_does_not_depend_on_the_layers_it_never_meets():
    fix = fixes.FIXES["quadratic-graph"]
    assert fix.probe()
    with fixes.applied(["quadratic-graph"]):
        assert not fix.probe()


def test_a_list_that_is_sorted_in_place_leaves_the_other_members_alone():
    with fixes.applied(WITH):
        model = miniature(load_config(ModelSpec("meta-llama/Llama-2-7b-hf", weights="random")))
        asked = [5, 2, 9]
        group = trace(model).get_pruning_group(model.model.layers[0].mlp.up_proj, tp.prune_linear_out_channels, asked)
        group[0].idxs.sort()
        assert asked == [5, 2, 9]
        assert all(item.idxs == [5, 2, 9] for item in list(group)[1:])
