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


FUSED = ("phi3",)
NORMS = {
    "gemma2": ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm")
}
TWO_NORMS = ("input_layernorm", "post_attention_layernorm")


def expected_groups(config: Any) -> tuple[ExpectedGroup, ...]:
    """The groups of a Llama-family model: per layer one FFN and one attention group, and one residual group; the head's
    vocabulary is left out.

    Fused projections (phi3) stand for the layers they join. Norms of single heads (qwen3) belong to no group: they have
    no channels that go. Raises UserError for a config that is not of the family.
    """
    shape = shape_of(config)
    query, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    norms = NORMS.get(config.model_type, TWO_NORMS)
    if config.model_type in FUSED:
        qkv, ffn = {"qkv_proj": query + 2 * kv}, {"gate_up_proj": 2 * shape.ffn}
    else:
        qkv, ffn = {"q_proj": query, "k_proj": kv, "v_proj": kv}, {"gate_proj": shape.ffn, "up_proj": shape.ffn}
    groups = []
    residual: dict[tuple[str, str], int] = {
        ("model.embed_tokens", "out"): shape.hidden,
        ("model.norm.weight", "out"): shape.hidden,
        ("lm_head", "in"): shape.hidden,
    }
    for index in range(shape.layers):
        layer = f"model.layers.{index}"
        attention, mlp = f"{layer}.self_attn", f"{layer}.mlp"
        into_ffn = {(f"{mlp}.{name}", "out"): width for name, width in ffn.items()}
        into_attention = {(f"{attention}.{name}", "out"): width for name, width in qkv.items()}
        groups.append(ExpectedGroup(f"layer {index} FFN", {**into_ffn, (f"{mlp}.down_proj", "in"): shape.ffn}))
        groups.append(
            ExpectedGroup(f"layer {index} attention", {**into_attention, (f"{attention}.o_proj", "in"): query})
        )
        residual |= {(name, "in"): shape.hidden for name, _ in (*into_attention, *into_ffn)}
        residual |= {(name, "out"): shape.hidden for name in (f"{attention}.o_proj", f"{mlp}.down_proj")}
        residual |= {(f"{layer}.{norm}.weight", "out"): shape.hidden for norm in norms}
    groups.append(ExpectedGroup("residual", residual))
    return tuple(groups)


def differences(expected: tuple[ExpectedGroup, ...], traced: tuple[GroupSnapshot, ...]) -> Iterator[str]:
    """One readable line for every member that is missing, too much, or has another number of channels. None: the graph
    is as it must be.
    """
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
