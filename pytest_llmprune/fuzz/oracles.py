"""What must hold for every model that torch-pruning traces. Each oracle raises `OracleFailed`, an AssertionError that
says what differs; none knows how torch-pruning works inside.

inputs: a tensor, a tuple of arguments or a dict of keyword arguments. Every propagation runs within the step budget of
`graph.budget`: one that would never end raises RunawayPropagation, with the cycle that repeats.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..graph.budget import propagation_budget
from ..graph.snapshot import GroupSnapshot, groups_of
from ..torch_pruning_api import dependency_graph, quiet
from .members import channels_of, group_of, mask, registered_in_reverse, reorder, returning
from .writer import Channel

__all__ = [
    "Cut",
    "OracleFailed",
    "graph_of",
    "groups",
    "history_replays",
    "permutation_is_invisible",
    "pruned_equals_masked",
    "registered_in_reverse",
    "returning",
    "same_groups",
    "second_pruning_composes",
    "takes_along",
]
TOLERANCE = 1e-4  # of the largest output, in float32: sums in another order
SHOWN = 6


class OracleFailed(AssertionError):
    """A graph, a group or a pruned model is not what it must be."""


@dataclass(frozen=True)
class Cut:
    """Channels to prune: of the Linear layer of this name its out or in channels of these indices."""

    layer: str
    out: bool
    indices: tuple[int, ...]

    @property
    def side(self) -> str:
        return "out" if self.out else "in"

    def __str__(self) -> str:
        return _listed((self.layer, self.side, index) for index in self.indices)


def graph_of(model: nn.Module, inputs: Any) -> Any:
    """Proves that a graph is built within the step budget, and is not empty where the model has Linear layers: pruning
    would then do nothing, silently.

    Returns torch-pruning's DependencyGraph. Raises whatever torch-pruning raises, and OracleFailed for an empty graph.
    """
    with quiet(), propagation_budget():
        graph = dependency_graph(model, inputs)
    if not any(isinstance(module, nn.Linear) for module in graph.module2node) and any(
        isinstance(module, nn.Linear) for module in model.modules()
    ):
        raise OracleFailed("the graph is empty, though the model has Linear layers: pruning would do nothing, silently")
    return graph


def groups(model: nn.Module, inputs: Any) -> tuple[GroupSnapshot, ...]:
    """Every group of a model, from every root, as values that can be compared."""
    graph = graph_of(model, inputs)
    with propagation_budget():
        return groups_of(graph, every_root=True)


def same_groups(expected: Sequence[GroupSnapshot], found: Sequence[GroupSnapshot], change: str) -> None:
    """Metamorphic: proves that `change` (in words), which leaves alone what is coupled, leaves the groups alone."""
    if list(expected) != list(found):
        lacking = [group for group in expected if group not in found]
        extra = [group for group in found if group not in expected]
        raise OracleFailed(f"{change} changed the groups\n  without it: {_lines(lacking)}\n  with it: {_lines(extra)}")


def takes_along(graph: Any, start: Channel, expected: frozenset[Channel]) -> None:
    """Proves that a channel takes along exactly the channels that it must, each at its index along every path.

    expected: as the network's maker knows them (`Network.takes`).
    """
    layer, side, index = start
    with propagation_budget():
        found = set(channels_of(graph, group_of(graph, layer, side, [index])))
    if found != expected:
        raise OracleFailed(
            f"{_listed([start])} must take along {_listed(expected)};"
            f" it lacks {_listed(expected - found)}, and takes {_listed(found - expected)} too"
        )


def pruned_equals_masked(model: nn.Module, inputs: Any, cut: Cut) -> None:
    """Proves that a group is complete, its indices are right and its layers' shapes fit: pruning it gives the outputs
    that the same model has with the columns zeroed that read the pruned channels.

    Holds for groups without a norm, which would average over fewer channels: for those see `permutation_is_invisible`.
    """
    masked, pruned = copy.deepcopy(model), copy.deepcopy(model)
    graph = graph_of(pruned, inputs)
    group = _group(graph, cut)
    mask(masked, channels_of(graph, group))
    group.prune()
    _check_shapes(pruned)
    _close(_outputs(masked, inputs), _outputs(pruned, inputs), f"masked and pruned outputs, without {cut},")


def second_pruning_composes(model: nn.Module, inputs: Any, cut: Cut) -> None:
    """Proves that nothing is stale after pruning: a graph that was pruned has the groups of a graph built afresh, so
    that a second pruning takes what it must.
    """
    pruned = copy.deepcopy(model)
    graph = graph_of(pruned, inputs)
    _group(graph, cut).prune()
    with propagation_budget():
        kept = groups_of(graph, every_root=True)
    same_groups(groups(copy.deepcopy(pruned), inputs), kept, f"tracing before {cut} was pruned, instead of after,")


def permutation_is_invisible(model: nn.Module, inputs: Any, root: str, *, out: bool = True, block: int = 1) -> None:
    """Proves that a group has every member, norms included, without pruning anything: its channels in another order, in
    all members alike, leave the outputs as they were.

    root, out: the Linear layer and the side of it to start from. block: how many neighbouring channels stay together, a
    head's. Only channels that the same members have change places. After NVIDIA Model Optimizer's Minitron, which sorts
    channels by importance in this way.
    """
    shuffled = copy.deepcopy(model)
    graph = graph_of(shuffled, inputs)
    layer = shuffled.get_submodule(root)
    width = layer.out_features if out else layer.in_features
    reorder(graph, _group(graph, Cut(root, out, tuple(range(width)))), block)
    change = f"outputs before and after the channels of {root} were reordered"
    _close(_outputs(model, inputs), _outputs(shuffled, inputs), change)


def history_replays(model: nn.Module, inputs: Any, *cuts: Cut) -> None:
    """Proves that prunings can be kept as their history: replayed on a fresh copy it leaves the same weights."""
    pruned, fresh = copy.deepcopy(model), copy.deepcopy(model)
    graph = graph_of(pruned, inputs)
    for cut in cuts:
        _group(graph, cut).prune()
    replayed = graph_of(fresh, inputs)
    with propagation_budget():
        replayed.load_pruning_history(copy.deepcopy(graph.pruning_history()))
    found = dict(fresh.named_parameters())
    different = [name for name, wanted in pruned.named_parameters() if not _equal(wanted, found[name])]
    if different:
        raise OracleFailed(f"replaying the history left other weights in {', '.join(different)}")


def _group(graph: Any, cut: Cut) -> Any:
    with propagation_budget():
        return group_of(graph, cut.layer, cut.side, list(cut.indices))


def _check_shapes(model: nn.Module) -> None:
    """The sizes that Linear layers state are those of their weights."""
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear):
            stated = (layer.out_features, layer.in_features)
            if tuple(layer.weight.shape) != stated or (layer.bias is not None and len(layer.bias) != stated[0]):
                raise OracleFailed(f"{name} says it is {stated}, its weight is {tuple(layer.weight.shape)}")


def _outputs(model: nn.Module, inputs: Any) -> torch.Tensor:
    with torch.no_grad():
        if isinstance(inputs, dict):
            output = model(**inputs)
        else:
            output = model(*inputs) if isinstance(inputs, tuple) else model(inputs)
    return output if isinstance(output, torch.Tensor) else output["logits"]


def _close(expected: torch.Tensor, found: torch.Tensor, what: str) -> None:
    if expected.shape != found.shape:
        raise OracleFailed(f"{what} have shapes {tuple(expected.shape)} and {tuple(found.shape)}")
    error = float((expected - found).abs().max()) / (float(expected.abs().max()) or 1.0)
    if not error < TOLERANCE:  # also NaN
        raise OracleFailed(f"{what} differ by {error:.2g} of their largest value, more than {TOLERANCE:g}")


def _equal(first: torch.Tensor, second: torch.Tensor) -> bool:
    return first.shape == second.shape and bool((first == second).all())


def _listed(channels: Iterable[Channel]) -> str:
    """Channels as `layer0.out[1], layer2.in[1]`."""
    shown = [f"{name}.{side}[{index}]" for name, side, index in sorted(channels)]
    more = [f"{len(shown) - SHOWN} more"] if len(shown) > SHOWN else []
    return ", ".join(shown[:SHOWN] + more) or "nothing"


def _lines(groups: Sequence[GroupSnapshot]) -> str:
    """Groups as `{a.out 4, b.in 4}`."""
    shown = ["{" + ", ".join(f"{m.name}.{m.side} {m.channels}" for m in group.members) + "}" for group in groups[:3]]
    return " ".join(shown) + (f" and {len(groups) - 3} more" if len(groups) > 3 else "") or "no other"
