"""Every family of the catalogue prunes by every recipe it admits, to a model that runs and equals its mask."""

from __future__ import annotations

import copy

import pytest
import torch

from pytest_llmprune import fixes
from pytest_llmprune.errors import UserError
from pytest_llmprune.models.load import load_config
from pytest_llmprune.models.miniature import miniature
from pytest_llmprune.models.spec import ModelSpec
from pytest_llmprune.prune.apply import prune
from pytest_llmprune.prune.mask import MASKABLE, mask
from pytest_llmprune.prune.recipes import Case
from pytest_llmprune.words import RECIPES

FAMILIES = {
    "llama": "meta-llama/Llama-3.2-1B",
    "mistral": "mistralai/Mistral-7B-v0.1",
    "qwen2": "Qwen/Qwen2.5-0.5B",
    "qwen3": "Qwen/Qwen3-0.6B",
    "phi3": "microsoft/Phi-3-mini-4k-instruct",
    "gemma2": "google/gemma-2-2b",
}
IDS = torch.arange(3, 27).reshape(2, 12)


@pytest.fixture(scope="module", autouse=True)
def _fixed():
    with fixes.applied():
        yield


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", FAMILIES.values(), ids=FAMILIES.keys())
def test_a_family_prunes_by_a_recipe(name, recipe):
    dense = miniature(load_config(ModelSpec(name)))
    if recipe == "kv-groups" and "Phi-3" in name:
        with pytest.raises(UserError, match="fuses q, k and v"):
            prune(copy.deepcopy(dense), Case(recipe, 0.3, "magnitude"))
        return
    pruned = prune(copy.deepcopy(dense), Case(recipe, 0.3, "magnitude"))
    with torch.inference_mode():
        found = pruned.model(input_ids=IDS).logits
        assert found.isfinite().all()
        assert (found - dense(input_ids=IDS).logits).abs().max() > 1e-3
        if recipe in MASKABLE:
            mask(dense, pruned.plan)
            assert (found - dense(input_ids=IDS).logits).abs().max() < 1e-5
    again = type(pruned.model)(copy.deepcopy(pruned.model.config))
    shapes = {n: p.shape for n, p in again.named_parameters()}
    assert shapes == {n: p.shape for n, p in pruned.model.named_parameters()}
