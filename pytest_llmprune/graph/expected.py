"""The groups that a Llama-family architecture implies, from its config alone, to hold a traced graph against."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..models.layout import shape_of
from .snapshot import GroupSnapshot


@dataclass(frozen=True)
class ExpectedGroup:
    """A group by its title, e.g. `layer 7 attention`: members as {(module name, side): channels}."""

    title: str
    members: dict[tuple[str, str], int]


def expected_groups(config: Any) -> tuple[ExpectedGroup, ...]:
    """The groups of an unfused Llama-family model (q, k, v and gate, up apart; norms are two per layer): per layer one FFN and one attention group, and one
    residual group; the head's vocabulary is left out. Raises UserError for a config that is not of the family."""
    shape = shape_of(config)
    query, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    groups = []
    residual: dict[tuple[str, str], int] = {
        ("model.embed_tokens", "out"): shape.hidden,
        ("model.norm.weight", "out"): shape.hidden,
        ("lm_head", "in"): shape.hidden,
    }
    for index in range(shape.layers):
        layer = f"model.layers.{index}"
        attention, mlp = f"{layer}.self_attn", f"{layer}.mlp"
        groups.append(
            ExpectedGroup(
                f"layer {index} FFN",
                {
                    (f"{mlp}.gate_proj", "out"): shape.ffn,
                    (f"{mlp}.up_proj", "out"): shape.ffn,
                    (f"{mlp}.down_proj", "in"): shape.ffn,
                },
            )
        )
        groups.append(
            ExpectedGroup(
                f"layer {index} attention",
                {
                    (f"{attention}.q_proj", "out"): query,
                    (f"{attention}.k_proj", "out"): kv,
                    (f"{attention}.v_proj", "out"): kv,
                    (f"{attention}.o_proj", "in"): query,
                },
            )
        )
        readers = [f"{attention}.{name}_proj" for name in "qkv"] + [f"{mlp}.gate_proj", f"{mlp}.up_proj"]
        residual |= {(name, "in"): shape.hidden for name in readers}
        residual |= {(name, "out"): shape.hidden for name in (f"{attention}.o_proj", f"{mlp}.down_proj")}
        residual |= {(f"{layer}.{norm}.weight", "out"): shape.hidden for norm in ("input_layernorm", "post_attention_layernorm")}
    groups.append(ExpectedGroup("residual", residual))
    return tuple(groups)


def differences(expected: tuple[ExpectedGroup, ...], traced: tuple[GroupSnapshot, ...]) -> Iterator[str]:
    """One readable line for every member that is missing, too much, or has another number of channels. None: the graph is as it must be."""
    by_member: dict[tuple[str, str], GroupSnapshot] = {}
    for group in traced:
        for member in group.members:
            if member.side == "out":
                by_member[member.name, member.side] = group
    unmatched = set(range(len(traced)))
    for want in expected:
        root = next(key for key in want.members if key[1] == "out")
        found = by_member.get(root)
        if found is None:
            yield f"{want.title}: {root[0]}.out is in no group"
            continue
        unmatched.discard(traced.index(found))
        have = {(member.name, member.side): member.channels for member in found.members}
        for name, side in sorted(want.members.keys() - have.keys()):
            yield f"{want.title}: {name}.{side} is missing from the group"
        for name, side in sorted(have.keys() - want.members.keys()):
            yield f"{want.title}: {name}.{side} does not belong to the group"
        for key in sorted(want.members.keys() & have.keys()):
            if want.members[key] != have[key]:
                yield f"{want.title}: {key[0]}.{key[1]} has {have[key]} of {want.members[key]} channels in the group"
    for index in sorted(unmatched):
        names = ", ".join(f"{member.name}.{member.side}" for member in traced[index].members[:3])
        yield f"a group that the architecture does not imply: {names}"
