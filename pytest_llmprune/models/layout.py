"""Where a Llama-family model keeps the layers that pruning is about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import UserError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class DecoderLayer:
    """The parts of one decoder layer. `attention` and `mlp` are the modules, the rest their Linear layers; fused ones
    stand in `qkv`, `gate_up`.
    """

    name: str
    attention: Any
    mlp: Any
    q: nn.Linear | None
    k: nn.Linear | None
    v: nn.Linear | None
    qkv: nn.Linear | None
    o: nn.Linear
    gate: nn.Linear | None
    up: nn.Linear | None
    gate_up: nn.Linear | None
    down: nn.Linear

    @property
    def attention_inputs(self) -> list[nn.Linear]:
        """The projections from the hidden state into attention."""
        return [layer for layer in (self.q, self.k, self.v, self.qkv) if layer is not None]

    @property
    def ffn_inputs(self) -> list[nn.Linear]:
        """The projections from the hidden state into the FFN."""
        return [layer for layer in (self.gate, self.up, self.gate_up) if layer is not None]


def decoder_layers(model: Any) -> list[DecoderLayer]:
    """The decoder layers of a causal Llama-family model, in order. Raises UserError if the model is none."""
    layers = []
    for name, module in model.named_modules():
        attention, mlp = getattr(module, "self_attn", None), getattr(module, "mlp", None)
        if attention is None or mlp is None or not hasattr(attention, "o_proj") or not hasattr(mlp, "down_proj"):
            continue
        layers.append(
            DecoderLayer(
                name=name,
                attention=attention,
                mlp=mlp,
                q=getattr(attention, "q_proj", None),
                k=getattr(attention, "k_proj", None),
                v=getattr(attention, "v_proj", None),
                qkv=getattr(attention, "qkv_proj", None),
                o=attention.o_proj,
                gate=getattr(mlp, "gate_proj", None),
                up=getattr(mlp, "up_proj", None),
                gate_up=getattr(mlp, "gate_up_proj", None),
                down=mlp.down_proj,
            )
        )
    if not layers or model.get_output_embeddings() is None:
        raise UserError(
            f"{type(model).__name__} is no causal model of the Llama family:"
            " it has no decoder layers that this tool knows"
        )
    return layers


@dataclass(frozen=True)
class Shape:
    """The sizes that recipes reduce, from a config: hidden, ffn (intermediate), heads, kv_heads, head_dim, layers."""

    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    layers: int

    @property
    def queries_per_kv(self) -> int:
        """How many query heads share one kv head (n_rep)."""
        return self.heads // self.kv_heads


def shape_of(config: Any) -> Shape:
    """The shape a config (an object, or plain values) describes. Raises UserError if a size is missing or heads don't
    divide.
    """
    values = config if isinstance(config, dict) else config.to_dict()
    try:
        heads, hidden = int(values["num_attention_heads"]), int(values["hidden_size"])
        kv_heads = int(values.get("num_key_value_heads") or heads)
        head_dim = int(values.get("head_dim") or hidden // heads)
        shape = Shape(
            hidden, int(values["intermediate_size"]), heads, kv_heads, head_dim, int(values["num_hidden_layers"])
        )
    except KeyError as missing:
        raise UserError(f"the config is not of the Llama family: it has no {missing.args[0]}") from None
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise UserError(f"the config is not of the Llama family: {type(error).__name__} {error}") from None
    for name, size in vars(shape).items():
        if size < 1:
            raise UserError(f"the config describes no model: its {name} size is {size}")
    if heads % shape.kv_heads:
        raise UserError(f"the config's {heads} query heads don't divide among its {shape.kv_heads} kv heads")
    return shape
