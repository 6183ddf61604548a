"""Random valid configs of the Llama family: every head layout down to one head, biases, ties, norms and fusions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "phi3", "gemma2")
TOKENS = 6  # of an input to trace with
OWN_HEAD_DIM = ("llama", "mistral", "qwen3", "gemma2")  # in the others it is the hidden size by the heads


@st.composite
def llama_configs(draw: st.DrawFn, families: tuple[str, ...] = FAMILIES) -> PreTrainedConfig:
    """A config of one of `families` (transformers' model types) with one or two layers and at most 12 heads, that
    `AutoModelForCausalLM.from_config` builds in milliseconds. Shrinks to a Llama of one layer with one head.
    """
    from transformers import AutoConfig

    family = draw(st.sampled_from(families))
    kv_heads = draw(st.integers(1, 4))
    copies = draw(st.integers(1, 3))
    head_dim = 2 * draw(st.integers(1, 4))
    heads = kv_heads * copies
    values: dict[str, Any] = {
        "vocab_size": 16,
        "hidden_size": heads * (2 * draw(st.integers(1, 4)) if family in OWN_HEAD_DIM else head_dim),
        "intermediate_size": draw(st.integers(2, 24)),
        "num_hidden_layers": draw(st.integers(1, 2)),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "tie_word_embeddings": draw(st.booleans()),
        "max_position_embeddings": 32,
        "initializer_range": 0.2,  # large enough that every channel matters to the outputs
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    if family == "llama":
        values |= {"attention_bias": draw(st.booleans()), "mlp_bias": draw(st.booleans())}
    if family in ("mistral", "phi3"):
        values["sliding_window"] = draw(st.sampled_from([None, 4]))
    if family == "gemma2":
        values["query_pre_attn_scalar"] = head_dim
    return AutoConfig.for_model(family, **values)
