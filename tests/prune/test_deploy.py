"""Where a pruned model can be used, and what would help where it can't."""

from __future__ import annotations

import pytest

from pytest_llmprune.errors import UserError
from pytest_llmprune.models import catalog
from pytest_llmprune.models.layout import shape_of
from pytest_llmprune.models.load import load_config
from pytest_llmprune.models.spec import ModelSpec
from pytest_llmprune.prune.deploy import uses
from pytest_llmprune.prune.recipes import Case
from pytest_llmprune.words import RECIPES


def _uses(model, case, **changes):
    config = load_config(ModelSpec(model))
    for name, value in changes.items():
        setattr(config, name, value)
    return {use.name: use for use in uses(config, case)}


def test_ffn_channels_that_do_not_divide_name_the_round_to_that_helps():
    found = _uses("meta-llama/Llama-2-7b-hf", Case("ffn", 0.2))
    assert [name for name, use in found.items() if use.ok] == ["transformers", "vLLM on 1 GPU", "vLLM on 2 GPUs"]
    assert all(use.dense_ok for use in found.values())
    assert found["vLLM on 4 GPUs"].why == "8806 FFN channels are no multiple of 4"
    remedies = {use.name: use.remedy.round_to for use in found.values() if use.remedy}
    assert remedies == {
        "vLLM on 4 GPUs": 4,
        "vLLM on 8 GPUs": 8,
        "llama.cpp Q4_0, Q8_0": 32,
        "llama.cpp Q4_K, Q6_K": 256,
        "tensor cores, 16 bits": 8,
        "tensor cores, 8 bits": 16,
        "tensor cores, full tiles": 64,
    }


def test_heads_that_do_not_divide_name_the_nearest_ratio_that_helps():
    use = _uses("meta-llama/Llama-2-7b-hf", Case("heads", 0.2))["vLLM on 4 GPUs"]
    assert "26 query heads are no multiple of 4" in use.why
    assert (use.remedy.ratio, use.remedy.round_to) == (0.25, 1)


def test_kv_heads_may_be_fewer_than_gpus_if_they_go_into_them():
    def kv(heads, gpus):
        case = Case("ffn", 0.2, round_to=256)
        return _uses("meta-llama/Llama-3.1-405B", case, num_key_value_heads=heads)[f"vLLM on {gpus} GPUs"].ok

    assert kv(2, 8)
    assert kv(8, 8)
    assert kv(16, 8)
    found = _uses("HuggingFaceTB/SmolLM2-135M", Case("ffn", 0.2, round_to=256))["vLLM on 2 GPUs"]
    assert not found.ok
    assert "3 kv heads can't be shared evenly by 2" in found.why


def test_what_dense_fails_already_is_told_apart():
    found = _uses("HuggingFaceTB/SmolLM2-135M", Case("ffn", 0.2, round_to=256))["llama.cpp Q4_K, Q6_K"]
    assert not found.ok
    assert not found.dense_ok
    assert found.remedy is None
    assert "576 hidden channels are no multiple of 256" in found.why


def test_vllm_takes_no_head_size_of_a_qwen2():
    pruned = _uses("Qwen/Qwen2.5-0.5B", Case("width", 0.2))["vLLM on 1 GPU"]
    assert not pruned.ok
    assert pruned.dense_ok
    assert _uses("Qwen/Qwen3-0.6B", Case("width", 0.2))["vLLM on 1 GPU"].ok


def test_a_llama_that_transformers_would_refuse_is_said_to_be_written_as_a_mistral():
    use = _uses("meta-llama/Llama-2-7b-hf", Case("heads", 0.2))["transformers"]
    assert use.ok
    assert use.why in ("", "its checkpoint is written as a mistral")  # transformers 4 refuses nothing


@pytest.mark.parametrize("name", catalog.names())
def test_a_remedy_helps(name):
    config = load_config(ModelSpec(name))
    seen = 0
    for recipe in RECIPES:
        for ratio in (0.1, 0.25, 0.5):
            try:
                found = uses(config, Case(recipe, ratio))
            except UserError:
                assert recipe == "kv-groups"
                assert shape_of(config).kv_heads == 1
                continue
            for use in found:
                assert not (use.ok and use.remedy)
                if use.remedy:
                    seen += 1
                    assert {after.name: after.ok for after in uses(config, use.remedy)}[use.name]
    assert seen > 0
