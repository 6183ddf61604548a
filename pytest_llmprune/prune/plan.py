"""Decide with torch-pruning which channels go: a plan names, per group, the root layer and the indices to remove."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..graph.trace import example_inputs
from ..models.layout import DecoderLayer, Shape, decoder_layers, shape_of
from ..torch_pruning_api import make_importance, make_pruner, out_channels
from .recipes import Case, Reduction, reductions

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Removal:
    """One group to prune: the root layer's name, whether its out or in channels are meant, their indices, sorted."""

    module: str
    out: bool
    indices: tuple[int, ...]


@dataclass(frozen=True)
class PruningPlan:
    """Everything a case removes from one model: plain data, that can be stored, compared and replayed on a copy."""

    case: Case
    shape: Shape
    reductions: tuple[Reduction, ...]
    removals: tuple[Removal, ...]


def make_plan(
    model: PreTrainedModel, case: Case, kv_scores: Mapping[str, torch.Tensor] | None = None
) -> tuple[PruningPlan, Any]:
    """Rank and choose with torch-pruning, changing nothing. Returns the plan and torch-pruning's graph, to prune with.

    For Taylor importance the parameters must carry their gradients, and `kv_scores` be what `importance.calibrate`
    returned with them. Raises UserError if the model can't be reduced so, or torch-pruning chooses another number of
    channels than the case asks for.
    """
    shape = shape_of(model.config)
    layers = decoder_layers(model)
    wanted = _reductions(shape, case, layers)
    pruner = _pruner(model, case, wanted, layers)
    if case.recipe == "kv-groups":
        removals = tuple(_kv_groups(pruner, layers, wanted[0].removed, shape, kv_scores))
    else:
        removals = tuple(_removal(pruner.DG, group) for group in pruner.step(interactive=True))
    return PruningPlan(case, shape, wanted, removals), pruner.DG


def unranked_plan(model: PreTrainedModel, case: Case) -> PruningPlan:
    """A plan that removes the first channels and heads, whatever they are worth, and as many of them as ranking would:
    for a model without values to rank, on the meta device.

    Raises UserError if the model can't be reduced so.
    """
    shape, layers = shape_of(model.config), decoder_layers(model)
    wanted = _reductions(shape, case, layers)
    return PruningPlan(case, shape, wanted, tuple(r for part in wanted for r in _first(part, layers, shape)))


def _reductions(shape: Shape, case: Case, layers: list[DecoderLayer]) -> tuple[Reduction, ...]:
    """What the case asks for, unless torch-pruning can't tell the layers' heads apart."""
    wanted = reductions(shape, case)
    if shape.queries_per_kv > 1 and layers[0].qkv is not None and any(part.unit == "query heads" for part in wanted):
        raise UserError(
            f"recipe {case.recipe}: torch-pruning takes a fused qkv_proj for three equal parts, so it can't rank the"
            f" {shape.heads} query heads of one that has {shape.kv_heads} kv heads"
        )
    return wanted


def _first(part: Reduction, layers: list[DecoderLayer], shape: Shape) -> Iterator[Removal]:
    """The first units of one size: hidden channels once, the others in every layer."""
    units: Sequence[int] = range(part.removed)
    if part.unit == "hidden channels":
        yield Removal(f"{layers[-1].name}.mlp.down_proj", True, tuple(units))
    elif part.unit == "FFN channels":
        indices = tuple(units)  # one tuple for all layers: large models have many
        yield from (Removal(f"{layer.name}.mlp.down_proj", False, indices) for layer in layers)
    elif part.unit == "kv heads":
        indices = _channels(units, shape.head_dim)
        for layer in layers:
            _k_proj(layer)  # refuses fused projections
            yield Removal(f"{layer.name}.self_attn.k_proj", True, indices)
    else:
        if shape.queries_per_kv > 1:
            of_group = range(part.removed // shape.kv_heads)
            units = [kv * shape.queries_per_kv + head for kv in range(shape.kv_heads) for head in of_group]
        indices = _channels(units, shape.head_dim)
        yield from (Removal(f"{layer.name}.self_attn.o_proj", False, indices) for layer in layers)


def _channels(heads: Iterable[int], head_dim: int) -> tuple[int, ...]:
    return tuple(head * head_dim + i for head in heads for i in range(head_dim))


def _pruner(model: PreTrainedModel, case: Case, wanted: tuple[Reduction, ...], layers: list[DecoderLayer]) -> Any:
    """torch-pruning's pruner with everything ignored that the recipe leaves alone.

    A ratio is passed half a unit below the number of units to remove: torch-pruning rounds channels and heads up.
    """
    ratios = {part.unit: (part.removed - 0.5) / part.total for part in wanted}
    ignored = [model.get_output_embeddings()]
    if case.recipe not in ("ffn", "all"):
        ignored += [linear for layer in layers for linear in layer.ffn_inputs]
    if case.recipe not in ("heads", "all"):
        ignored += [linear for layer in layers for linear in layer.attention_inputs]
    if case.recipe not in ("width", "all"):
        ignored += [linear for layer in layers for linear in (layer.o, layer.down)]
    with_heads = case.recipe in ("heads", "all")
    head_ratio = ratios.get("query heads", 0.0)
    return make_pruner(
        model,
        example_inputs=example_inputs(model),
        importance=make_importance(case.importance),
        pruning_ratio=ratios.get("hidden channels") or ratios.get("FFN channels") or head_ratio,
        ignored_layers=ignored,
        root_module_types=[type(model.get_output_embeddings())],
        # fresh dictionaries: the defaults are shared between all pruners of a process
        num_heads=_num_heads(layers, shape_of(model.config)) if with_heads else {},
        in_channel_groups={},
        out_channel_groups={layer.gate_up: 2 for layer in layers if layer.gate_up is not None},
        **({"prune_num_heads": True, "prune_head_dims": False, "head_pruning_ratio": head_ratio} if with_heads else {}),
        **({"round_to": wanted[0].step} if case.recipe == "all" else {}),
    )


def _num_heads(layers: list[DecoderLayer], shape: Shape) -> dict[Any, int]:
    heads: dict[Any, int] = {}
    for layer in layers:
        if layer.qkv is not None:
            heads[layer.qkv] = shape.heads
        else:
            heads |= {layer.q: shape.heads, layer.k: shape.kv_heads, layer.v: shape.kv_heads}
    return heads


def _removal(graph: Any, group: Any) -> Removal:
    dep, idxs = group[0]
    out = graph.is_out_channel_pruning_fn(dep.handler)
    return Removal(graph._module2name[dep.target.module], out, tuple(sorted(int(i) for i in idxs)))


def _kv_groups(
    pruner: Any,
    layers: list[DecoderLayer],
    removed: int,
    shape: Shape,
    kv_scores: Mapping[str, torch.Tensor] | None,
) -> Iterator[Removal]:
    """torch-pruning ranks no kv heads: they are ranked by `kv_scores`, or by its importance of k_proj's channels,
    averaged per kv head.
    """
    for layer in layers:
        k_proj = _k_proj(layer)
        if kv_scores is not None:
            scores = kv_scores[layer.name]
        else:
            group = pruner.DG.get_pruning_group(k_proj, out_channels(), list(range(k_proj.out_features)))
            scores = pruner.importance(group).reshape(shape.kv_heads, -1).mean(dim=1)
        weakest = scores.argsort()[:removed].tolist()
        yield Removal(pruner.DG._module2name[k_proj], True, _channels(sorted(weakest), shape.head_dim))


def _k_proj(layer: DecoderLayer) -> nn.Linear:
    if layer.k is None:
        raise UserError(
            "recipe kv-groups: this model fuses q, k and v in one layer, whose kv heads can't be pruned apart"
        )
    return layer.k
