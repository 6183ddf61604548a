"""Make the config and the modules' own attributes agree with the weights after pruning."""

from __future__ import annotations

from typing import Any

from ..errors import CheckFailed
from ..models.layout import Shape, decoder_layers, shape_of


def synchronise(model: Any) -> None:
    """Set the config and module attributes of a pruned model from the sizes of its weights.

    Head counts follow from the projections' widths and the unchanged head size. Raises CheckFailed if layers differ in
    a size that the config has only one number for, or a width is no whole number of heads.
    """
    head_dim = shape_of(model.config).head_dim
    layers = decoder_layers(model)
    ffn = _one("intermediate_size", {layer.down.in_features for layer in layers})
    heads = _one("num_attention_heads", {_whole(layer.o.in_features, head_dim, layer.name) for layer in layers})
    if layers[0].k is not None:
        kv_heads = _one(
            "num_key_value_heads",
            {
                _whole(linear.out_features, head_dim, layer.name)
                for layer in layers
                for linear in (layer.k, layer.v)
                if linear
            },
        )
    else:
        fused = _one(
            "qkv_proj", {_whole(layer.attention_inputs[0].out_features, head_dim, layer.name) for layer in layers}
        )
        kv_heads = (fused - heads) // 2
    if kv_heads < 1 or heads % kv_heads:
        raise CheckFailed(f"{heads} query heads are left for {kv_heads} kv heads: they don't divide")
    hidden = model.get_output_embeddings().in_features

    set_sizes(model.config, Shape(hidden, ffn, heads, kv_heads, head_dim, len(layers)))
    for layer in layers:
        _set(layer.attention, num_heads=heads, num_key_value_heads=kv_heads, num_key_value_groups=heads // kv_heads)
        _set(layer.attention, hidden_size=hidden)
        _set(layer.mlp, hidden_size=hidden, intermediate_size=ffn)
    for module in model.modules():
        if type(module).__name__.endswith("DecoderLayer"):
            _set(module, hidden_size=hidden)


def set_sizes(config: Any, shape: Shape) -> None:
    """Write the sizes that pruning changes into a config."""
    config.hidden_size, config.intermediate_size = shape.hidden, shape.ffn
    config.num_attention_heads, config.num_key_value_heads = shape.heads, shape.kv_heads
    config.head_dim = shape.head_dim


def _set(module: Any, **values: int) -> None:
    for name, value in values.items():
        if hasattr(module, name):
            setattr(module, name, value)


def _one(name: str, values: set[int]) -> int:
    if len(values) != 1:
        raise CheckFailed(f"layers are left with different {name}: {sorted(values)}; no config can say that")
    return values.pop()


def _whole(width: int, head_dim: int, layer: str) -> int:
    if width % head_dim:
        raise CheckFailed(f"{layer}: a width of {width} is no whole number of heads of {head_dim}")
    return width // head_dim
