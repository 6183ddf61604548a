"""torch-pruning's own pruner removes exactly the weakest heads, counts what is left, and leaves a model that equals its
mask.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import pytest
import torch

from pytest_llmprune import fixes
from pytest_llmprune.graph.budget import RunawayPropagation, propagation_budget
from pytest_llmprune.graph.trace import example_inputs
from pytest_llmprune.models.layout import decoder_layers
from pytest_llmprune.torch_pruning_api import make_importance, make_pruner

HEAD_DIM = 16
IDS = torch.arange(2, 26).reshape(2, 12)
HEADS = [(4, 4), (4, 2), (8, 2), (9, 3)]
SCOPES = ["local", "global"]
# the weak query heads of each of two layers: of every kv group equally many, globally not of every layer
WEAK = {
    (4, 4, "local"): ((1, 2), (0, 3)),
    (4, 2, "local"): ((1, 2), (0, 3)),
    (8, 2, "local"): ((1, 2, 4, 7), (0, 3, 5, 6)),
    (9, 3, "local"): ((1, 3, 8), (0, 4, 6)),
    (4, 4, "global"): ((0, 1, 3), (2,)),
    (4, 2, "global"): ((1, 2), (0, 3)),
    (8, 2, "global"): ((0, 1, 3, 4, 6, 7), (2, 5)),
    (9, 3, "global"): ((0, 2, 3, 4, 7, 8), (1, 3, 8)),
}


@pytest.fixture(autouse=True)
def _unpatched():
    fixes.undo()
    yield
    fixes.undo()


@dataclass(frozen=True)
class Pruned:
    """removed: per layer, the query heads that went. counted, real: per layer, the heads of q, k and v by the pruner's
    num_heads, and by the weights.
    """

    model: object
    removed: tuple[tuple[int, ...], ...]
    counted: tuple[tuple[int, ...], ...]
    real: tuple[tuple[int, ...], ...]


def _prune(model, ratio, *, scope, steps=1):
    layers = decoder_layers(model)
    qkv = [(layer.q, layer.k, layer.v) for layer in layers]
    removed = {layer.name: [] for layer in layers}
    with propagation_budget():
        pruner = make_pruner(
            model,
            example_inputs=example_inputs(model),
            importance=make_importance("magnitude"),
            global_pruning=scope == "global",
            pruning_ratio=0.0,
            head_pruning_ratio=ratio,
            iterative_steps=steps,
            num_heads={linear: linear.out_features // HEAD_DIM for linears in qkv for linear in linears},
            prune_num_heads=True,
            prune_head_dims=False,
            in_channel_groups={},
            out_channel_groups={},
            ignored_layers=[model.lm_head],
        )
        for _ in range(steps):
            for group in pruner.step(interactive=True):
                dep, idxs = group[0]
                name = pruner.DG._module2name[dep.target.module].removesuffix(".self_attn.o_proj")
                removed[name] += sorted({index // HEAD_DIM for index in idxs})
                group.prune()
    for layer in layers:
        layer.attention.num_key_value_groups = layer.q.out_features // layer.k.out_features
    return Pruned(
        model=model,
        removed=tuple(map(tuple, removed.values())),
        counted=tuple(tuple(pruner.num_heads[linear] for linear in linears) for linears in qkv),
        real=tuple(tuple(linear.out_features // HEAD_DIM for linear in linears) for linears in qkv),
    )


def _channels(head):
    return slice(head * HEAD_DIM, (head + 1) * HEAD_DIM)


def _weaken(model, weak, with_kv):
    with torch.no_grad():
        for layer, heads in zip(decoder_layers(model), weak, strict=True):
            for head in heads:
                layer.o.weight[:, _channels(head)] *= 1e-4
                for linear in (layer.q, layer.k, layer.v) if with_kv else (layer.q,):
                    linear.weight[_channels(head)] *= 1e-4


def _differs_from_its_mask(dense, pruned):
    masked = copy.deepcopy(dense)
    with torch.no_grad():
        for layer, heads in zip(decoder_layers(masked), pruned.removed, strict=True):
            for head in heads:
                layer.o.weight[:, _channels(head)] = 0
        return (pruned.model(input_ids=IDS).logits - masked(input_ids=IDS).logits).abs().max().item() > 1e-5


def _goes_wrong(llama, heads, kv_heads, attention, scope):
    """What is wrong with removing the weak heads, or None."""
    weak = WEAK[heads, kv_heads, scope]
    dense = llama(heads, kv_heads, attention)
    _weaken(dense, weak, with_kv=heads == kv_heads)
    try:
        pruned = _prune(copy.deepcopy(dense), (sum(map(len, weak)) - 0.5) / (2 * heads), scope=scope)
    except (RuntimeError, RunawayPropagation) as error:
        return f"{type(error).__name__}: {error}"
    if pruned.removed != weak:
        return f"removed {pruned.removed}, not {weak}"
    if pruned.counted != pruned.real:
        return f"counted {pruned.counted}, there are {pruned.real}"
    return "differs from its mask" if _differs_from_its_mask(dense, pruned) else None


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize(("heads", "kv_heads"), HEADS)
def test_exactly_the_weak_heads_go(llama, heads, kv_heads, attention, scope):
    with fixes.applied():
        assert _goes_wrong(llama, heads, kv_heads, attention, scope) is None


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize(
    ("fix", "heads", "kv_heads", "scope"),
    [
        *[("head-ratio-gated", *heads, scope) for heads in HEADS for scope in SCOPES],
        *[("global-gqa", *heads, "global") for heads in HEADS if heads != (4, 4)],
    ],
)
def test_without_its_fix_others_go_or_none(llama, fix, heads, kv_heads, attention, scope):
    with fixes.applied([id for id in fixes.applicable() if id != fix]):
        assert _goes_wrong(llama, heads, kv_heads, attention, scope).startswith("removed")


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 2), (9, 3)])
def test_heads_go_down_to_the_kv_heads_whatever_the_map_of_indices(llama, heads, kv_heads):
    others = ["nested-outputs", "unsigned-dim", "head-ratio-gated"]
    ratio = (heads - kv_heads) / heads
    with fixes.applied(others):
        pruned = _prune(llama(heads, kv_heads), ratio, scope="local")
        assert pruned.real == ((heads, kv_heads, kv_heads),) * 2
        assert pruned.counted == ((kv_heads, kv_heads, kv_heads),) * 2
    with fixes.applied([*others, "heads-unpruned"]):
        pruned = _prune(llama(heads, kv_heads), ratio, scope="local")
        assert pruned.real == pruned.counted == ((kv_heads, kv_heads, kv_heads),) * 2


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize(("heads", "kv_heads"), HEADS)
def test_a_ratio_that_rounds_up_to_all_heads_leaves_one_per_kv_group(llama, heads, kv_heads, attention, scope):
    left = 1 if heads == kv_heads else kv_heads
    dense = llama(heads, kv_heads, attention)
    with fixes.applied():
        pruned = _prune(copy.deepcopy(dense), 0.95, scope=scope)
    assert [q for q, _, _ in pruned.real] == [left] * 2
    assert pruned.counted == pruned.real
    assert not _differs_from_its_mask(dense, pruned)
    with fixes.applied([id for id in fixes.applicable() if id not in ("heads-unpruned", "global-gqa")]):
        pruned = _prune(copy.deepcopy(dense), 0.95, scope=scope)
    assert pruned.counted != pruned.real


def test_heads_that_a_refused_group_keeps_are_counted(llama, monkeypatch):
    import torch_pruning as tp

    with fixes.applied():
        monkeypatch.setattr(tp.DependencyGraph, "check_pruning_group", lambda graph, group: False)
        pruned = _prune(llama(8, 2), 0.5, scope="local")
        monkeypatch.undo()
    assert pruned.removed == ((), ())
    assert pruned.counted == pruned.real == ((8, 2, 2), (8, 2, 2))


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize(("heads", "kv_heads"), [(8, 8), (16, 2)])
def test_several_steps_leave_as_many_heads_as_one(llama, heads, kv_heads, scope):
    with fixes.applied():
        left = [_prune(llama(heads, kv_heads), 0.5, scope=scope, steps=steps).real for steps in (1, 2, 4)]
    assert left == [((heads // 2, *[min(kv_heads, heads // 2)] * 2),) * 2] * 3
    with fixes.applied([id for id in fixes.applicable() if id != "iterative-heads"]):
        again = _prune(llama(heads, kv_heads), 0.5, scope=scope, steps=4).real
    assert (again == left[0]) == (scope == "global")


def test_a_step_after_one_that_rounded_up_removes_none_too_many(llama):
    with fixes.applied():
        pruned = _prune(llama(9, 3), 0.1, scope="global", steps=2)
    assert pruned.counted == pruned.real
    assert sum(map(len, pruned.removed)) == 3
    with fixes.applied([id for id in fixes.applicable() if id != "global-gqa"]):
        pruned = _prune(llama(9, 3), 0.1, scope="global", steps=2)
    assert sum(map(len, pruned.removed)) > 3
