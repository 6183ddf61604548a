"""Whatever torch-pruning gets wrong about which query head reads which kv head is found, from every side."""

from __future__ import annotations

import pytest

from pytest_llmprune import fixes
from pytest_llmprune.graph.budget import propagation_budget
from pytest_llmprune.graph.heads import head_map_differences
from pytest_llmprune.graph.trace import trace

READERS = ["nested-outputs", "unsigned-dim"]  # without these no graph comes about, or none that ends


def _differences(model, ids=None):
    with fixes.applied(ids), propagation_budget():
        return head_map_differences(trace(model))


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (8, 2), (9, 3), (4, 1)])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_with_the_fixes_the_map_is_the_configs(llama, heads, kv_heads, attention):
    assert _differences(llama(heads, kv_heads, attention)) == []


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize(("model_type", "kv_heads"), [("phi3", 4), ("phi3", 2), ("qwen2", 2), ("qwen3", 2)])
def test_with_the_fixes_the_map_of_other_families_is_the_configs(model_type, kv_heads, attention):
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "pad_token_id": 0}
    heads = {"num_attention_heads": 4, "num_key_value_heads": kv_heads}
    config = AutoConfig.for_model(model_type, **sizes, **heads)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()
    assert _differences(model) == []


def test_without_the_fix_gqa_map_a_kv_head_goes_with_any_of_its_query_heads(llama):
    assert _differences(llama(8, 2), READERS) == [
        f"layers 0, 1 attention: {line}"
        for line in (
            "query head 0 of o_proj maps to kv head 0 of k_proj; expected no kv head (and 10 more like it)",
            "query head 0 of o_proj maps to kv head 0 of v_proj; expected no kv head (and 10 more like it)",
            "query head 0 of q_proj maps to kv head 0 of k_proj; expected no kv head (and 10 more like it)",
            "query head 0 of q_proj maps to kv head 0 of v_proj; expected no kv head (and 10 more like it)",
            "kv head 0 of k_proj maps to no query head of o_proj; expected query heads 0-3 (and 1 more like it)",
            "kv head 0 of k_proj maps to no query head of q_proj; expected query heads 0-3 (and 1 more like it)",
            "kv head 0 of k_proj maps to no kv head of v_proj; expected kv head 0 (and 1 more like it)",
            "kv head 0 of v_proj maps to no query head of o_proj; expected query heads 0-3 (and 1 more like it)",
            "kv head 0 of v_proj maps to no query head of q_proj; expected query heads 0-3 (and 1 more like it)",
            "kv head 0 of v_proj maps to no kv head of k_proj; expected kv head 0 (and 1 more like it)",
        )
    ]


def test_without_the_fix_sdpa_gqa_heads_are_joined_one_to_one_and_leave_their_layer(llama):
    found = _differences(llama(8, 2, "sdpa"), [*READERS, "gqa-map"])
    where = "layers 0, 1 attention:"
    assert (
        f"{where} kv head 0 of k_proj maps to query head 0 of q_proj; expected query heads 0-3 (and 1 more like it)"
        in found
    )
    assert any(
        line.startswith(f"{where} query head 2 of o_proj: propagation from o_proj.in reached index 47")
        for line in found
    )


def _mapping(forward, reverse):
    """A `_GQAIndexMapping.__call__` that takes kv heads to query heads and back as told."""
    from torch_pruning._helpers import _HybridIndex

    def call(self, idxs):
        size, copies = self.head_dim, self.repeat
        if self.reverse:
            heads = reverse({i.idx // size for i in idxs}, copies)
            return [_HybridIndex(head * size + channel, None) for head in heads for channel in range(size)]
        return [
            _HybridIndex(head * size + i.idx % size, i.root_idx)
            for i in idxs
            if i.root_idx is not None
            for head in forward(i.idx // size, copies)
        ]

    return call


def _right_forward(kv_head, copies):
    return range(kv_head * copies, (kv_head + 1) * copies)


def _right_reverse(heads, copies):
    return [kv for kv in range(8 // copies) if set(_right_forward(kv, copies)) <= heads]


WRONG_MAPS = {
    "strided instead of blocked": (lambda kv, copies: range(kv, 8, 8 // copies), _right_reverse),
    "the next kv head's query heads": (
        lambda kv, copies: _right_forward((kv + 1) % (8 // copies), copies),
        _right_reverse,
    ),
    "one query head too few": (lambda kv, copies: _right_forward(kv, copies)[1:], _right_reverse),
    "no query head": (lambda kv, copies: (), _right_reverse),
    "any query head takes its kv head along": (_right_forward, lambda heads, copies: {h // copies for h in heads}),
    "all but one take it along": (
        _right_forward,
        lambda heads, copies: [
            k for k in range(8 // copies) if len(heads & set(_right_forward(k, copies))) >= copies - 1
        ],
    ),
    "no query head takes one along": (_right_forward, lambda heads, copies: ()),
    "all take the next one along": (
        _right_forward,
        lambda heads, copies: [(kv + 1) % (8 // copies) for kv in _right_reverse(heads, copies)],
    ),
    "it goes twice": (_right_forward, lambda heads, copies: 2 * _right_reverse(heads, copies)),
}


def test_the_right_map_seeded_by_hand_is_found_right(llama, monkeypatch):
    assert _seeded(llama, monkeypatch, "eager", _right_forward, _right_reverse) == []


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize(("forward", "reverse"), WRONG_MAPS.values(), ids=WRONG_MAPS.keys())
def test_every_seeded_wrong_map_is_caught(llama, monkeypatch, attention, forward, reverse):
    assert _seeded(llama, monkeypatch, attention, forward, reverse) != []


def _seeded(llama, monkeypatch, attention, forward, reverse):
    from torch_pruning.dependency import index_mapping

    model = llama(8, 2, attention, layers=1)
    with fixes.applied(), propagation_budget():
        graph = trace(model)
        with monkeypatch.context() as patch:
            patch.setattr(index_mapping._GQAIndexMapping, "__call__", _mapping(forward, reverse))
            return head_map_differences(graph)


def test_a_line_names_layer_heads_and_what_was_expected(llama, monkeypatch):
    shifted = _seeded(llama, monkeypatch, "eager", *WRONG_MAPS["the next kv head's query heads"])
    assert shifted[0] == (
        "layer 0 attention: kv head 0 of k_proj maps to query heads 4-7 of o_proj; expected query heads 0-3"
        " (and 1 more like it)"
    )
    too_early = _seeded(llama, monkeypatch, "eager", *WRONG_MAPS["all but one take it along"])
    assert too_early[0] == (
        "layer 0 attention: query heads 0-6 of o_proj map to kv heads 0, 1 of k_proj; expected kv head 0"
    )
    twice = _seeded(llama, monkeypatch, "eager", *WRONG_MAPS["it goes twice"])
    assert twice[-1] == (
        "layer 0 attention: kv head 0 of v_proj maps to 16 channels of kv head 0 of k_proj, some twice;"
        " expected kv head 0 (and 1 more like it)"
    )


def test_layers_can_be_chosen(llama):
    with fixes.applied(READERS), propagation_budget():
        found = head_map_differences(trace(llama(4, 2, layers=3)), layers=[1])
    assert found
    assert all(line.startswith("layer 1 attention: ") for line in found)
