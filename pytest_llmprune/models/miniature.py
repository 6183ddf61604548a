"""Small random models of the same architecture flags as a full config."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel


def shrink(config: PreTrainedConfig, *, layers: int = 2, head_dim: int = 16, vocabulary: int = 128) -> PreTrainedConfig:
    """A config with everything that shapes the graph kept: query heads per kv head, tied embeddings, biases, qk-norm,
    fused projections, RoPE kind.

    Kept as ratios: query heads per kv head (kv heads are capped at 4, heads at 16) and the FFN's width over the hidden
    size.
    """
    small = copy.deepcopy(config)
    heads = config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    group = heads // kv_heads
    small_kv = max(1, min(kv_heads, 4, 16 // group))
    small.num_key_value_heads = small_kv
    small.num_attention_heads = small_kv * group
    small.num_hidden_layers = layers
    small.hidden_size = small.num_attention_heads * head_dim
    small.head_dim = head_dim
    small.intermediate_size = 8 * math.ceil(small.hidden_size * config.intermediate_size / config.hidden_size / 8)
    small.vocab_size = vocabulary
    small.max_position_embeddings = min(config.max_position_embeddings, 256)
    if getattr(config, "layer_types", None):
        small.layer_types = config.layer_types[:layers]
    if getattr(config, "query_pre_attn_scalar", None):
        small.query_pre_attn_scalar = head_dim
    for token in ("bos_token_id", "eos_token_id", "pad_token_id"):
        value = getattr(config, token, None)
        if isinstance(value, list):
            value = value[0]
        if value is not None:
            setattr(small, token, min(value, vocabulary - 1))
    return small


def miniature(
    config: PreTrainedConfig,
    *,
    seed: int = 0,
    layers: int = 2,
    attention: str | None = None,
    dtype: torch.dtype | None = None,
) -> PreTrainedModel:
    """The small random model of the same architecture flags, on CPU, in evaluation mode.

    Norm weights are drawn around one, so that a fault that mixes channels of a norm shows.
    """
    import torch
    from transformers import AutoModelForCausalLM

    small = shrink(config, layers=layers)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(small, attn_implementation=attention)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 1:
                    parameter.add_(torch.empty_like(parameter).uniform_(-0.25, 0.25))
    return model.to(dtype or torch.float32).eval()
