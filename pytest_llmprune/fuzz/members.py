"""Groups as channels. Uses torch and torch-pruning alone, so that scripts can carry it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import nn


def group_of(graph: Any, layer: str, side: str, indices: list[int]) -> Any:
    """The group that removing channels of one side (`out`, `in`) of a layer drags along."""
    module = graph.model.get_submodule(layer)
    pruner = graph.get_pruner_of_module(module)
    prune = pruner.prune_out_channels if side == "out" else pruner.prune_in_channels
    return graph.get_pruning_group(module, prune, indices)


def channels_of(graph: Any, group: Any) -> Iterator[tuple[str, str, int]]:
    """All channels of a group as (layer, side, index). Norms have one side, `out`; operations have no channels."""
    names = {module: name for name, module in [*graph.model.named_parameters(), *graph.model.named_modules()]}
    for dep, idxs in group:
        module = dep.target.module
        out = isinstance(module, (nn.LayerNorm, nn.Parameter)) or graph.is_out_channel_pruning_fn(dep.handler)
        if module in names:
            yield from ((names[module], "out" if out else "in", index) for index in idxs)


def mask(model: nn.Module, channels: Iterable[tuple[str, str, int]]) -> None:
    """Zero the columns of Linear layers that read these channels."""
    with torch.no_grad():
        for layer, side, index in channels:
            if side == "in":
                model.get_submodule(layer).weight[:, index] = 0


def returning(model: nn.Module, wrap: Callable[[Any], Any]) -> nn.Module:
    """A copy of the model that returns `wrap(output)`."""
    changed = copy.deepcopy(model)
    changed.register_forward_hook(lambda module, inputs, output: wrap(output))
    return changed


def registered_in_reverse(model: nn.Module) -> nn.Module:
    """A copy of the model with its layers under the same names, but registered the other way round."""
    changed = copy.deepcopy(model)
    for module in changed.modules():
        layers = dict(module._modules)
        module._modules.clear()
        module._modules.update(reversed(layers.items()))
    return changed


def reorder(graph: Any, group: Any, block: int) -> None:
    """Put a group's channels in another order in all members alike, `block` neighbours at a time. Only channels that
    the same members have change places.
    """
    roots = [set(item.root_idxs) for item in group]
    alike: dict[tuple[bool, ...], list[int]] = {}
    for start in range(0, len(group[0].idxs), block):
        alike.setdefault(tuple(start in those for those in roots), []).append(start)
    order: dict[int, int] = {}
    for starts in alike.values():
        for start, other in zip(starts, reversed(starts), strict=True):
            order.update((start + i, other + i) for i in range(block))
    done = set()  # tied layers are one tensor
    for item in group:
        for parameter, axis in parameters_of(graph, item.dep):
            if (id(parameter), axis) not in done:
                done.add((id(parameter), axis))
                places: dict[int, list[int]] = {}
                for index, root in zip(item.idxs, item.root_idxs, strict=True):
                    places.setdefault(root, []).append(index)
                data = parameter.data.movedim(axis, 0)
                source = [index for root in places for index in places[order[root]]]
                data[[index for root in places for index in places[root]]] = data[source].clone()


def parameters_of(graph: Any, dep: Any) -> list[tuple[torch.Tensor, int]]:
    """The parameters of a member that hold its channels, and on which axis."""
    module, out = dep.target.module, graph.is_out_channel_pruning_fn(dep.handler)
    if isinstance(module, nn.Parameter):
        return [(module, 0)]
    if isinstance(module, nn.Linear):
        return [(module.weight, 0 if out else 1)] + [(module.bias, 0)] * (out and module.bias is not None)
    if isinstance(module, nn.Embedding):
        return [(module.weight, 1)]
    return [(module.weight, 0), (module.bias, 0)] if isinstance(module, nn.LayerNorm) else []
