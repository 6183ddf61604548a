"""Sizes are counted, not estimated."""

from __future__ import annotations

import torch

from pytest_llmprune.quality.cost import MACS_CONTEXT, SpeedProtocol, size_of, speeds


def test_a_tied_tensor_counts_once_and_bytes_follow_the_dtype(llama):
    free, tied = size_of(llama(4, 2)), size_of(llama(4, 2, tied=True))
    assert free.params - tied.params == 64 * 64
    assert free.macs == tied.macs
    assert size_of(llama(4, 2).half()).bytes * 2 == free.bytes == 4 * free.params


def test_macs_are_those_of_the_matrix_products(llama):
    from torch.utils.flop_counter import FlopCounterMode

    model = llama(4, 4)
    length = MACS_CONTEXT
    model.config.max_position_embeddings = 2 * length
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(input_ids=torch.ones(1, length, dtype=torch.long), use_cache=False)
    # eager attention multiplies the full square; causal attention needs (length + 1) / 2 keys per token
    attention = 2 * 4 * 16 * 2 * length * length
    causal = attention * (length + 1) / (2 * length)
    assert size_of(model).macs * length == (counter.get_total_flops() / 2) - attention + causal


def test_speeds_of_both_models_are_positive(llama):
    model = llama(4, 2)
    found = speeds({"dense": model, "pruned": model}, SpeedProtocol(prompt=8, new_tokens=2, rounds=1))
    assert all(speed.prefill > 0 and speed.decode > 0 for speed in found.values())
