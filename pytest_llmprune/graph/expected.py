"""The groups that a Llama-family architecture implies, from its config alone, to hold a traced graph against."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..models.layout import Shape, shape_of
from .snapshot import GroupSnapshot, Member, index_map

# for every channel of a member, in order, the channel of the group's root that it goes with; see snapshot.index_map
Roots = tuple[int | None, ...]

FUSED = ("phi3",)
NORMS = {
    "gemma2": ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm")
}
HEAD_NORMS = ("qwen3",)
TWO_NORMS = ("input_layernorm", "post_attention_layernorm")


def norms_of(model_type: str) -> tuple[str, ...]:
    """The norms of a decoder layer, in the order in which data passes them."""
    return NORMS.get(model_type, TWO_NORMS)


def projections(model_type: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The Linear layers that read the hidden state: those of attention, those of the FFN."""
    if model_type in FUSED:
        return ("qkv_proj",), ("gate_up_proj",)
    return ("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")


def expected_groups(config: Any) -> tuple[GroupSnapshot, ...]:
    """The groups of a Llama-family model: per layer one FFN and one attention group, and one residual group; the head's
    vocabulary is left out. Each has the index maps that the config's heads imply.

    config: transformers' object, or its plain values. Fused projections (phi3) stand for the layers they join. Norms of
    single heads (qwen3) belong to no group, as they have no channels that go, unless there is but one head. Biases go
    with their layers.

    Raises UserError for a config that is not of the family.
    """
    shape = shape_of(config)
    model_type = config["model_type"] if isinstance(config, dict) else config.model_type
    fused = model_type in FUSED
    head_norms: dict[str, Roots] = _head_norms(shape) if model_type in HEAD_NORMS else {}
    blocks = [(_attention(shape, fused), head_norms), (_ffn(shape, fused), dict[str, Roots]())]
    residual = ["model.embed_tokens.out", "model.norm.weight.out", "lm_head.in"]
    groups = []
    for index in range(shape.layers):
        layer = f"model.layers.{index}"
        for members, norms in blocks:
            groups.append(_group((f"{layer}.{path}", roots) for path, roots in (members | norms).items()))
            for path in members:
                name, _, side = path.rpartition(".")
                residual.append(f"{layer}.{name}.{'in' if side == 'out' else 'out'}")
        residual += [f"{layer}.{norm}.weight.out" for norm in norms_of(model_type)]
    every_channel = tuple(range(shape.hidden))
    groups.append(_group((path, every_channel) for path in residual))
    return tuple(groups)


def _attention(shape: Shape, fused: bool) -> dict[str, Roots]:
    """The attention group's members. The root is the kv side, where every query channel has one kv channel; where q, k
    and v are fused it is o_proj.
    """
    size, copies = shape.head_dim, shape.queries_per_kv
    query, kv = shape.heads * size, shape.kv_heads * size
    if fused:  # a kv channel that several query heads share goes only with all of them: it has no one root
        each: Roots = tuple(range(query))
        shared = tuple(channel if copies == 1 else None for channel in range(kv))
        return {"self_attn.qkv_proj.out": each + shared * 2, "self_attn.o_proj.in": each}
    of_kv = tuple(range(kv))
    of_query = tuple(channel // size // copies * size + channel % size for channel in range(query))
    members = {"q_proj.out": of_query, "k_proj.out": of_kv, "v_proj.out": of_kv, "o_proj.in": of_query}
    return {f"self_attn.{path}": roots for path, roots in members.items()}


def _head_norms(shape: Shape) -> dict[str, Roots]:
    """The norms of single heads that have a channel for every channel of their projection: it has one head."""
    each = tuple(range(shape.head_dim))
    norms = {"self_attn.q_norm.weight.out": shape.heads, "self_attn.k_norm.weight.out": shape.kv_heads}
    return {path: each for path, heads in norms.items() if heads == 1}


def _ffn(shape: Shape, fused: bool) -> dict[str, Roots]:
    """The FFN group's members. The root is any, or down_proj where gate and up are fused."""
    each = tuple(range(shape.ffn))
    if fused:
        return {"mlp.gate_up_proj.out": each * 2, "mlp.down_proj.in": each}
    return {"mlp.gate_proj.out": each, "mlp.up_proj.out": each, "mlp.down_proj.in": each}


def _group(members: Iterable[tuple[str, Roots]]) -> GroupSnapshot:
    found = []
    for path, roots in members:
        name, _, side = path.rpartition(".")
        found.append(Member(name, side, len(roots), index_map(roots, tuple(range(len(roots))))))
    return GroupSnapshot(tuple(sorted(found)))
