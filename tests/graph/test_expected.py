"""A config alone says which groups a model has, and traced models have those."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pytest_llmprune import fixes
from pytest_llmprune.graph.diff import differences
from pytest_llmprune.graph.expected import expected_groups
from pytest_llmprune.graph.snapshot import groups_of, index_map
from pytest_llmprune.graph.trace import trace

CONFIG = {
    "model_type": "llama",
    "hidden_size": 12,
    "intermediate_size": 20,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 2,
}


def _members(config):
    return [{f"{m.name}.{m.side}": m.channels for m in group.members} for group in expected_groups(config)]


def test_a_layer_has_an_attention_and_an_ffn_group_and_the_model_a_residual_one():
    layer, attention, mlp = "model.layers.0", "model.layers.0.self_attn", "model.layers.0.mlp"
    residual = [
        "model.embed_tokens.out",
        f"{layer}.input_layernorm.weight.out",
        *(f"{attention}.{name}_proj.in" for name in "qkv"),
        f"{attention}.o_proj.out",
        f"{layer}.post_attention_layernorm.weight.out",
        f"{mlp}.gate_proj.in",
        f"{mlp}.up_proj.in",
        f"{mlp}.down_proj.out",
        "model.norm.weight.out",
        "lm_head.in",
    ]
    assert _members(CONFIG) == [
        {f"{attention}.q_proj.out": 8, f"{attention}.k_proj.out": 4, f"{attention}.v_proj.out": 4}
        | {f"{attention}.o_proj.in": 8},
        {f"{mlp}.gate_proj.out": 20, f"{mlp}.up_proj.out": 20, f"{mlp}.down_proj.in": 20},
        dict.fromkeys(residual, 12),
    ]


def test_fused_projections_stand_for_the_layers_they_join():
    attention, mlp = "model.layers.0.self_attn", "model.layers.0.mlp"
    assert _members({**CONFIG, "model_type": "phi3"})[:2] == [
        {f"{attention}.qkv_proj.out": 16, f"{attention}.o_proj.in": 8},
        {f"{mlp}.gate_up_proj.out": 40, f"{mlp}.down_proj.in": 20},
    ]


def test_two_query_heads_read_one_kv_head():
    maps = {m.name.split(".")[-1]: m.index_map for m in expected_groups(CONFIG)[0].members}
    of_query = index_map((0, 1, 0, 1, 2, 3, 2, 3), tuple(range(8)))
    of_kv = index_map((0, 1, 2, 3), (0, 1, 2, 3))
    assert maps == {"q_proj": of_query, "o_proj": of_query, "k_proj": of_kv, "v_proj": of_kv}


def test_a_config_is_enough_without_torch():
    code = (
        "import sys; from pytest_llmprune.graph.expected import expected_groups;"
        f"assert len(expected_groups({CONFIG})) == 3;"
        "assert not {'torch', 'torch_pruning', 'transformers'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (8, 2), (9, 3), (4, 1)])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_llama_has_the_groups_its_config_implies(llama, heads, kv_heads, attention):
    model = llama(heads, kv_heads, attention)
    with fixes.applied():
        assert differences(expected_groups(model.config), groups_of(trace(model), every_root=True)) == []


@pytest.mark.parametrize("tied", [True, False])
def test_neither_biases_nor_tied_embeddings_change_the_groups(tied):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "head_dim": 8}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    config = LlamaConfig(**sizes, **heads, attention_bias=True, mlp_bias=True, tie_word_embeddings=tied)
    model = LlamaForCausalLM(config).eval()
    assert model.model.layers[0].self_attn.q_proj.bias is not None
    with fixes.applied():
        assert differences(expected_groups(config), groups_of(trace(model), every_root=True)) == []


def test_a_norm_of_heads_that_joins_the_attention_group_is_named():
    from transformers import Qwen3Config, Qwen3ForCausalLM

    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 8}
    config = Qwen3Config(**sizes, num_attention_heads=4, num_key_value_heads=2, attn_implementation="eager")
    model = Qwen3ForCausalLM(config).eval()
    with fixes.applied(["nested-outputs", "unsigned-dim", "gqa-map"]):
        found = differences(expected_groups(config), groups_of(trace(model)))
    assert found == [
        "layers 0, 1 attention: k_norm does not belong here",
        "layers 0, 1 attention: q_norm does not belong here",
    ]


def test_query_heads_that_read_another_kv_head_are_told(llama, monkeypatch):
    from torch_pruning._helpers import _HybridIndex
    from torch_pruning.dependency import index_mapping

    model = llama(4, 2)
    with fixes.applied():
        graph = trace(model)
        right = index_mapping._GQAIndexMapping.__call__

        def one_head_on(self, idxs):
            found = right(self, idxs)
            return found if self.reverse else [_HybridIndex((i.idx + self.head_dim) % 64, i.root_idx) for i in found]

        with monkeypatch.context() as patch:  # undone before the fixes are
            patch.setattr(index_mapping._GQAIndexMapping, "__call__", one_head_on)
            found = differences(expected_groups(model.config), groups_of(graph))
    # v_proj is reached from k_proj through query heads, so it is off by the same
    members = ("o_proj.in", "q_proj.out", "v_proj.out")
    assert found == [f"layers 0, 1 attention: other channels of {member} (index map)" for member in members]


@pytest.mark.parametrize(
    ("heads", "kv_heads", "joined"), [(4, 2, set()), (4, 1, {"k_norm"}), (1, 1, {"q_norm", "k_norm"})]
)
def test_norms_of_single_heads_are_in_the_attention_group_where_there_is_one_head(heads, kv_heads, joined):
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "head_dim": 4}
    config = {"model_type": "qwen3", "num_attention_heads": heads, "num_key_value_heads": kv_heads, **sizes}
    members = {member.name for group in expected_groups(config) for member in group.members}
    assert {name.split(".")[-2] for name in members if "q_norm" in name or "k_norm" in name} == joined
