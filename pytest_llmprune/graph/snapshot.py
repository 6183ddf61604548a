"""A graph's groups as canonical values: the same for the same model in every process, whatever torch-pruning's object
ids and orders were.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from ..torch_pruning_api import out_channels

SCHEMA = 1


@dataclass(frozen=True, order=True)
class Member:
    """One layer's part in a group: the module's or parameter's name, `out` or `in`, how many of its channels, and a
    hash of which they are, in order of root.
    """

    name: str
    side: str
    channels: int
    indices: str


@dataclass(frozen=True)
class GroupSnapshot:
    """All members of one group, sorted."""

    members: tuple[Member, ...]

    def names(self, side: str) -> frozenset[str]:
        """The names of the members on one side."""
        return frozenset(member.name for member in self.members if member.side == side)


def groups_of(graph: Any, ignored: tuple[Any, ...] = (), *, every_root: bool = False) -> tuple[GroupSnapshot, ...]:
    """Every group that has a Linear layer's out channels as root, each once, sorted. Operations without weights are
    left out.

    every_root: start from every layer, also from those that a group has already; a group that looks different from
    another of its layers then counts as one more. Takes as many times longer as groups have layers.
    """
    import torch

    seen: set[frozenset[tuple[str, str]]] = set()
    covered: set[str] = set()
    snapshots = []
    for module in list(graph.module2node):
        if not isinstance(module, torch.nn.Linear) or module in ignored:
            continue
        if not every_root and graph._module2name[module] in covered:
            continue
        group = graph.get_pruning_group(module, out_channels(), list(range(module.out_features)))
        members: list[Member] = []
        digests: dict[int, str] = {}
        for dep, idxs in group:
            name = _name(graph, dep.target.module)
            if name is not None:
                side = "out" if graph.is_out_channel_pruning_fn(dep.handler) else "in"
                if id(idxs) not in digests:  # members of one group often share their list
                    digests[id(idxs)] = _digest(sorted(idxs))
                members.append(Member(name, side, len(idxs), digests[id(idxs)]))
        covered |= {member.name for member in members if member.side == "out"}
        identity = frozenset((member.name, member.side) for member in members)
        if identity not in seen:
            seen.add(identity)
            snapshots.append(GroupSnapshot(tuple(sorted(members))))
    return tuple(sorted(snapshots, key=lambda snapshot: snapshot.members))


def to_json(groups: tuple[GroupSnapshot, ...]) -> dict[str, Any]:
    """The snapshot as JSON values, with its schema."""
    return {
        "schema": SCHEMA,
        "groups": [[[m.name, m.side, m.channels, m.indices] for m in group.members] for group in groups],
    }


def fingerprint(groups: tuple[GroupSnapshot, ...]) -> str:
    """16 hex digits that are equal for equal groups."""
    return hashlib.sha256(json.dumps(to_json(groups)).encode()).hexdigest()[:16]


def _name(graph: Any, module: Any) -> str | None:
    import torch

    if isinstance(module, torch.nn.Parameter):
        name: str | None = graph._param_to_name.get(module)
        return name
    if type(module).__module__.startswith("torch_pruning"):
        return None
    return graph._module2name.get(module) or None


def _digest(indices: list[int]) -> str:
    return hashlib.sha256(repr(indices).encode()).hexdigest()[:12]
