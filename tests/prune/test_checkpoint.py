"""What is saved can be read back by plain transformers, with equal logits and ties."""

from __future__ import annotations

import json

import pytest
import torch

from pytest_llmprune import fixes
from pytest_llmprune.errors import CheckFailed
from pytest_llmprune.prune.apply import prune
from pytest_llmprune.prune.checkpoint import logits_in_fresh_process, save
from pytest_llmprune.prune.recipes import Case

IDS = torch.arange(2, 26).reshape(2, 12)


@pytest.fixture(scope="module", autouse=True)
def _fixed():
    with fixes.applied():
        yield


def _logits(model):
    with torch.inference_mode():
        return model(input_ids=IDS).logits


def test_a_tied_model_stays_tied_through_pruning_saving_and_reading(llama, tmp_path):
    model = prune(llama(4, 2, "sdpa", tied=True), Case("width", 0.2, "magnitude")).model
    assert model.lm_head.weight is model.model.embed_tokens.weight
    found, tied = logits_in_fresh_process(save(model, tmp_path), IDS, "float32")
    assert tied
    torch.testing.assert_close(found, _logits(model), atol=1e-5, rtol=1e-5)


def test_a_llama_whose_config_would_be_refused_is_written_as_a_mistral(llama, tmp_path):
    model = prune(llama(5, 5, "sdpa", hidden=40, head_dim=8), Case("heads", 0.4, "magnitude")).model
    assert (model.config.hidden_size, model.config.num_attention_heads) == (40, 3)
    save(model, tmp_path)
    found, _ = logits_in_fresh_process(tmp_path, IDS, "float32")
    torch.testing.assert_close(found, _logits(model), atol=1e-5, rtol=1e-5)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] in ("llama", "mistral")


def test_a_config_that_nothing_can_read_writes_nothing(llama, tmp_path):
    model = llama(4, 4)
    model.config.attention_bias = True
    model.config.num_attention_heads = 3
    try:
        type(model.config)(**model.config.to_dict())
    except Exception:
        with pytest.raises(CheckFailed, match="no checkpoint was written"):
            save(model, tmp_path)
        assert list(tmp_path.iterdir()) == []
    else:
        pytest.skip("this transformers reads any Llama config")


def test_a_checkpoint_that_can_not_be_loaded_is_one_line(llama, tmp_path):
    model = llama(4, 4)
    save(model, tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckFailed, match="a fresh process can't load the checkpoint: ") as caught:
        logits_in_fresh_process(tmp_path, IDS, "float32")
    assert "\n" not in str(caught.value)
