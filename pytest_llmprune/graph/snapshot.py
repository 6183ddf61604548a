"""A graph's groups as canonical values, and as a file: the same for the same model in every process, whatever
torch-pruning's object ids, operation ids and orders were.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..models.layout import shape_of
from ..torch_pruning_api import GroupItem, group_items

if TYPE_CHECKING:
    from transformers import PreTrainedModel

KIND, SCHEMA = "graph snapshot of pytest-llmprune", 1


@dataclass(frozen=True, order=True)
class Member:
    """One layer's part in a group.

    name: the module's or parameter's. side: `out` or `in`. channels: how many of its channels the group has.
    index_map: a hash of which they are and which channel of the group's root each goes with (see `index_map`).
    """

    name: str
    side: str
    channels: int
    index_map: str

    @property
    def key(self) -> tuple[str, str]:
        return self.name, self.side


@dataclass(frozen=True)
class GroupSnapshot:
    """All members of one group, sorted."""

    members: tuple[Member, ...]

    @property
    def keys(self) -> tuple[tuple[str, str], ...]:
        """The members as (name, side)."""
        return tuple(member.key for member in self.members)


@dataclass(frozen=True)
class ModelIdentity:
    """What two models must have in common for their graphs to be comparable, from the config alone.

    head_map: the kv head of every query head, in order, e.g. `0 0 1 1`.
    """

    architecture: str
    model_type: str
    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    head_map: str
    tied: bool


@dataclass(frozen=True)
class GraphSnapshot:
    """A traced model's groups. name: as the user named the model; it and the environment are there to be read, not
    compared.
    """

    name: str
    model: ModelIdentity
    environment: dict[str, str]
    groups: tuple[GroupSnapshot, ...]


def identity_of(model: PreTrainedModel) -> ModelIdentity:
    """The identity of a model. Raises UserError if it is not of the Llama family."""
    shape = shape_of(model.config)
    return ModelIdentity(
        architecture=type(model).__name__,
        model_type=model.config.model_type,
        layers=shape.layers,
        hidden=shape.hidden,
        ffn=shape.ffn,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        head_map=" ".join(str(head // shape.queries_per_kv) for head in range(shape.heads)),
        tied=bool(model.config.tie_word_embeddings),
    )


def snapshot_of(graph: Any, name: str, groups: tuple[GroupSnapshot, ...]) -> GraphSnapshot:
    """The snapshot of a traced model with its groups, and the versions, fixes and attention kind they came from."""
    from .. import fixes
    from ..record.environment import environment

    attention = str(graph.model.config._attn_implementation)
    conditions = {"fixes": ", ".join(fixes.active()) or "none", "attention": attention}
    stack = {name: value for name, value in environment().items() if name != "host"}  # it times nothing
    return GraphSnapshot(name, identity_of(graph.model), stack | conditions, groups)


def groups_of(graph: Any, *, every_root: bool = False) -> tuple[GroupSnapshot, ...]:
    """Every group that a Linear layer has a part in, each once, sorted; without the head's vocabulary, and without
    operations that have no weights.

    A group starts from its narrowest side of a Linear layer, so that its index maps say all there is to say: from the
    kv side each query head has one kv head, from the query side a kv head has many.

    every_root: start from every side of every layer, also from those that a group has already; a group that looks
    different from another of its sides then counts as one more. Takes as many times longer as groups have sides.

    Raises UserError for a graph without Linear layers, CheckFailed where torch-pruning fails to make a group.
    """
    seen: set[frozenset[tuple[str, str]]] = set()
    covered: set[tuple[str, str]] = set()
    snapshots = []
    for width, name, side, module in _roots(graph):
        if not every_root and (name, side) in covered:
            continue
        items = group_items(graph, module, side, list(range(width)))
        group = GroupSnapshot(tuple(sorted(_members(items))))
        covered.update(group.keys)
        identity = frozenset(group.keys)
        if identity not in seen:
            seen.add(identity)
            snapshots.append(group)
    if not snapshots:
        raise UserError(f"{type(graph.model).__name__} has no Linear layer in its graph, so it has no groups")
    return tuple(sorted(snapshots, key=lambda snapshot: snapshot.members))


def _roots(graph: Any) -> list[tuple[int, str, str, Any]]:
    """(width, name, side, module) of every side of every Linear layer but the head's vocabulary, narrowest first."""
    import torch

    head = graph.model.get_output_embeddings() if hasattr(graph.model, "get_output_embeddings") else None
    sides = []
    for module in graph.module2node:
        if isinstance(module, torch.nn.Linear):
            name = graph._module2name[module]
            sides.append((module.in_features, name, "in", module))
            if module is not head:
                sides.append((module.out_features, name, "out", module))
    return sorted(sides, key=lambda side: side[:3])


def _members(items: Sequence[GroupItem]) -> Iterable[Member]:
    maps: dict[tuple[int, int], str] = {}  # members of one group often share their lists
    for item in items:
        if item.name:
            lists = id(item.roots), id(item.channels)
            if lists not in maps:
                maps[lists] = index_map(tuple(item.roots), tuple(item.channels))
            yield Member(item.name, item.side, len(item.channels), maps[lists])


@lru_cache(maxsize=32)  # the layers of a model have the same few maps, of thousands of channels
def index_map(roots: tuple[int | None, ...], channels: tuple[int, ...]) -> str:
    """12 hex digits for a member's channels and the channel of the root that each goes with, in whatever order they
    come; None where a channel goes only with several of the root's.
    """
    pairs = sorted((-1 if root is None else root, channel) for root, channel in zip(roots, channels, strict=True))
    return hashlib.sha256(repr(pairs).encode()).hexdigest()[:12]


def fingerprint(groups: tuple[GroupSnapshot, ...]) -> str:
    """16 hex digits that are equal for equal groups."""
    return hashlib.sha256(json.dumps(_groups_to_json(groups)).encode()).hexdigest()[:16]


def dumps(snapshot: GraphSnapshot) -> str:
    """A snapshot as JSON text, one member a line."""
    values = {
        "kind": KIND,
        "schema": SCHEMA,
        "name": snapshot.name,
        "model": asdict(snapshot.model),
        "environment": dict(sorted(snapshot.environment.items())),
        "groups": _groups_to_json(snapshot.groups),
    }
    return json.dumps(values, indent=1) + "\n"


def loads(text: str, name: str) -> GraphSnapshot:
    """The snapshot in a JSON text. Raises UserError, naming `name`, if it is none, cut short, or of another schema."""
    try:
        values = json.loads(text)
    except ValueError as error:
        raise UserError(f"{name}: no snapshot of a graph: {error}") from None
    if not isinstance(values, dict) or values.get("kind") != KIND:
        what = "a run's record, not" if isinstance(values, dict) and "planned" in values else "not"
        raise UserError(f"{name}: {what} a snapshot of a graph; write one with: llmprune graph MODEL -o FILE.json")
    if values.get("schema") != SCHEMA:
        raise UserError(f"{name}: a snapshot of schema {values.get('schema')}; this version reads schema {SCHEMA}")
    try:
        groups = tuple(GroupSnapshot(tuple(map(_member, group))) for group in values["groups"])
        return GraphSnapshot(values["name"], ModelIdentity(**values["model"]), dict(values["environment"]), groups)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{name}: the snapshot is damaged: {type(error).__name__} {error}") from None


def read(file: Path) -> GraphSnapshot:
    """The snapshot in a file. Raises UserError if there is none or it can't be read."""
    try:
        return loads(file.read_text(encoding="utf-8"), str(file))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: no snapshot can be read: {getattr(error, 'strerror', None) or error}") from None


def _groups_to_json(groups: Iterable[GroupSnapshot]) -> list[list[str]]:
    return [[f"{m.name}.{m.side} {m.channels} {m.index_map}" for m in group.members] for group in groups]


def _member(text: str) -> Member:
    path, channels, index_map = text.split(" ")
    name, _, side = path.rpartition(".")
    return Member(name, side, int(channels), index_map)
