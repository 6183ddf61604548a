"""Pruning equals masking, for every recipe that has a mask, every head layout and both attention kinds; and a wrong
mask is seen.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from pytest_llmprune import fixes
from pytest_llmprune.errors import UserError
from pytest_llmprune.prune.apply import prune
from pytest_llmprune.prune.mask import MASKABLE, mask
from pytest_llmprune.prune.recipes import Case

HEADS = [(4, 4), (4, 2), (8, 2), (9, 3)]
IDS = torch.arange(2, 26).reshape(2, 12)
CALIBRATION = torch.arange(64).repeat(2).reshape(4, 32)


@pytest.fixture(scope="module", autouse=True)
def _fixed():
    with fixes.applied():
        yield


def _logits(model):
    with torch.inference_mode():
        return model(input_ids=IDS).logits


@pytest.mark.parametrize("importance", ["magnitude", "taylor"])
@pytest.mark.parametrize("recipe", MASKABLE)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize(("heads", "kv_heads"), HEADS)
def test_pruned_equals_masked_and_a_wrong_mask_does_not(llama, heads, kv_heads, attention, recipe, importance):
    dense = llama(heads, kv_heads, attention)
    pruned = prune(copy.deepcopy(dense), Case(recipe, 0.3, importance), calibration=CALIBRATION)
    masked, wrong = copy.deepcopy(dense), copy.deepcopy(dense)
    mask(masked, pruned.plan)
    first = pruned.plan.removals[0]
    width = dense.get_submodule(first.module).weight.shape[0 if first.out else 1]
    step = 1 if recipe == "ffn" else pruned.plan.shape.head_dim
    shifted = replace(first, indices=tuple(sorted((i + step) % width for i in first.indices)))
    mask(wrong, replace(pruned.plan, removals=(shifted, *pruned.plan.removals[1:])))
    found = _logits(pruned.model)
    assert (found - _logits(masked)).abs().max() < 1e-5
    assert (found - _logits(wrong)).abs().max() > 1e-3


def test_width_has_no_mask(llama):
    model = llama(4, 4)
    plan = prune(copy.deepcopy(model), Case("width", 0.1, "magnitude")).plan
    with pytest.raises(UserError, match="no masked equivalent"):
        mask(model, plan)
