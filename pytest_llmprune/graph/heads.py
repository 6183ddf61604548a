"""The head map of a traced graph, asked of torch-pruning head by head, against the one the config implies.

A query head reads the kv head that it shares with its `n_rep - 1` neighbours. So removing query heads takes a kv head
along only if all that read it go, and removing a kv head, from k or from v, takes the other of the two and all query
heads that read it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import CheckFailed
from ..models.layout import DecoderLayer, Shape, decoder_layers, shape_of
from ..torch_pruning_api import GroupItem, group_items
from .names import ATTENTION, Finding, fold, layer_of, ranges


@dataclass(frozen=True)
class Heads:
    """Heads (kind `query` or `kv`) that lie one after the other in some channels of one side of a Linear layer."""

    kind: str
    of: str
    name: str
    module: Any
    side: str
    channels: range
    fused: bool = False


def head_map_differences(graph: Any, layers: Sequence[int] | None = None) -> list[str]:
    """One readable line for every projection from which torch-pruning takes other heads than the config implies, with
    the first head that shows it; equal lines are folded over layers. Empty: the map is right.

    layers: which to ask, default all; each takes some 4 groups per query head. Raises UserError for a model that is not
    of the Llama family.
    """
    shape = shape_of(graph.model.config)
    chosen = [layer for layer in decoder_layers(graph.model) if layers is None or layer_of(layer.name + ".") in layers]
    return fold(
        Finding(ATTENTION, layer_of(layer.name + "."), text) for layer in chosen for text in _layer(graph, layer, shape)
    )


def _layer(graph: Any, layer: DecoderLayer, shape: Shape) -> Iterator[str]:
    places = _places(layer, shape)
    for root in places:
        wrong: dict[str, list[str]] = {}
        for removed in _probes(root, shape):
            asked = f"{_named(root.kind, removed)} of {root.of}"
            try:
                items = group_items(graph, root.module, root.side, _channels(root, removed, shape))
            except CheckFailed as error:  # what fails for one head fails for the next, and a runaway takes seconds
                yield f"{asked}: {str(error).splitlines()[0]}".replace(f"{layer.name}.self_attn.", "")
                break
            maps = f"{asked} {'maps' if len(removed) == 1 else 'map'} to"
            for place in places:
                expected, found = _expected(root, removed, place, shape), _found(items, place)
                if found != _channels(place, expected, shape):
                    line = f"{maps} {_described(place, found, shape)}; expected {_named(place.kind, expected)}"
                    wrong.setdefault(place.of, []).append(line)
        for lines in wrong.values():
            yield lines[0] + (f" (and {len(lines) - 1} more like it)" if len(lines) > 1 else "")


def _places(layer: DecoderLayer, shape: Shape) -> list[Heads]:
    """Where a layer's heads lie: o, q, k, v, or o and the three parts of qkv."""
    name = f"{layer.name}.self_attn"
    query, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    places = [Heads("query", "o_proj", f"{name}.o_proj", layer.o, "in", range(query))]
    start = 0
    for letter, module in (("q", layer.q), ("k", layer.k), ("v", layer.v)):
        kind, width = ("query", query) if letter == "q" else ("kv", kv)
        if layer.qkv is None:
            places.append(Heads(kind, f"{letter}_proj", f"{name}.{letter}_proj", module, "out", range(width)))
        else:
            part = range(start, start + width)
            places.append(Heads(kind, f"qkv_proj's {letter}", f"{name}.qkv_proj", layer.qkv, "out", part, fused=True))
        start += width
    return places


def _probes(root: Heads, shape: Shape) -> list[list[int]]:
    """Heads to remove: each alone; and where query heads share kv heads, all that share one, and all heads but one."""
    copies, heads = shape.queries_per_kv, shape.kv_heads if root.kind == "kv" else shape.heads
    single = [[head] for head in range(heads)]
    if root.kind == "kv" or copies == 1:
        return single
    shared = [list(range(start, start + copies)) for start in range(0, heads, copies)]
    return [*single, *shared, list(range(heads - 1))]


def _expected(root: Heads, removed: Sequence[int], place: Heads, shape: Shape) -> list[int]:
    copies = shape.queries_per_kv
    if root.kind == place.kind:
        return list(removed)
    if root.kind == "kv":
        return [kv_head * copies + copy for kv_head in removed for copy in range(copies)]
    whole = range(shape.kv_heads)
    return [kv for kv in whole if set(range(kv * copies, (kv + 1) * copies)) <= set(removed)]


def _channels(place: Heads, heads: Sequence[int], shape: Shape) -> list[int]:
    size = shape.head_dim
    return [place.channels[0] + head * size + channel for head in heads for channel in range(size)]


def _found(items: Sequence[GroupItem], place: Heads) -> list[int]:
    """The channels of a place that a group has, sorted. Of a fused layer those that lie in the place, of another all,
    also those that the layer hasn't got.
    """
    own = [item for item in items if (item.name, item.side) == (place.name, place.side)]
    return sorted(c for item in own for c in item.channels if not place.fused or c in place.channels)


def _named(kind: str, heads: Sequence[int]) -> str:
    if not heads:
        return f"no {kind} head"
    return f"{kind} head{'s' if len(heads) > 1 else ''} {ranges(heads)}"


def _described(place: Heads, channels: Sequence[int], shape: Shape) -> str:
    heads = sorted({(channel - place.channels[0]) // shape.head_dim for channel in channels})
    named = f"{_named(place.kind, heads)} of {place.of}"
    if channels == _channels(place, heads, shape):
        return named
    return f"{len(set(channels))} channels of {named}{', some twice' if len(set(channels)) < len(channels) else ''}"
