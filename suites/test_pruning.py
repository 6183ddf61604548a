"""Is the pruned model the model that pruning promises, and can it be used, trained, saved and read back?"""

from __future__ import annotations

import copy

import pytest
import torch

from pytest_llmprune.errors import CheckFailed
from pytest_llmprune.prune.checkpoint import logits_in_fresh_process, save
from pytest_llmprune.prune.mask import MASKABLE, mask
from pytest_llmprune.quality.cost import size_of

# of the largest logit, where nothing but rounding may differ; other precisions: LOW_PRECISION
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-8}
# masked and pruned models sum in another order in every layer: SmolLM2, 30 layers, wrecked by magnitude, showed 2e-5
MASK_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-8}
LOW_PRECISION = 5e-2


def _ids(model, length=16):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(3, model.config.vocab_size, (2, length), generator=generator).to(model.device)


def _logits(model, ids):
    with torch.inference_mode():
        return model(input_ids=ids, use_cache=False).logits.float()


def test_pruned_equals_masked(llm_dense, llm_pruned, llm_case, llm_record):
    if llm_case.recipe not in MASKABLE:
        pytest.skip(f"recipe {llm_case.recipe} changes what norms average over, so no mask is equal to it")
    masked = copy.deepcopy(llm_dense.model)
    mask(masked, llm_pruned.plan)
    ids = _ids(masked)
    dense, wanted, found = _logits(llm_dense.model, ids), _logits(masked, ids), _logits(llm_pruned.model, ids)
    scale = wanted.abs().max().item()
    error, effect = (wanted - found).abs().max().item() / scale, (wanted - dense).abs().max().item() / scale
    llm_record.measure("mask_error", error)
    tolerance = MASK_TOLERANCE.get(llm_dense.dtype, LOW_PRECISION)
    assert error < tolerance, (
        f"pruned and masked logits differ by {error:.2g} of their largest value, more than {tolerance:g}"
    )
    assert effect > 10 * error, (
        f"the mask itself changed the logits by only {effect:.2g}, so the comparison shows nothing"
    )


def test_pruned_is_smaller_and_its_config_agrees_with_its_weights(llm_dense, llm_pruned, llm_record):
    before, after = size_of(llm_dense.model), size_of(llm_pruned.model)
    llm_record.keep_plan(llm_pruned.plan)
    for part in llm_pruned.plan.reductions:
        llm_record.note(f"{part.removed} of {part.total} {part.unit} removed")
    assert after.params < before.params
    assert after.macs < before.macs
    with torch.device("meta"):
        rebuilt = type(llm_pruned.model)(copy.deepcopy(llm_pruned.model.config))
    wanted = {name: tuple(p.shape) for name, p in rebuilt.named_parameters()}
    found = {name: tuple(p.shape) for name, p in llm_pruned.model.named_parameters()}
    assert found == wanted


def test_pruned_generates_with_a_cache_what_it_generates_without(llm_pruned, llm_record):
    ids = _ids(llm_pruned.model, 8)
    settings = {"max_new_tokens": 6, "do_sample": False, "attention_mask": torch.ones_like(ids), "pad_token_id": 0}
    with torch.inference_mode():
        cached = llm_pruned.model.generate(
            ids, use_cache=True, output_logits=True, return_dict_in_generate=True, **settings
        )
    length = ids.shape[1]
    again = _logits(llm_pruned.model, cached.sequences)[:, length - 1 : -1]
    step_by_step = torch.stack(cached.logits, dim=1).float()[:, : again.shape[1]]
    assert cached.sequences.shape[1] > length
    scale = again.abs().max()
    assert (again - step_by_step).abs().max() / scale < TOLERANCE.get(llm_pruned.model.dtype, LOW_PRECISION) * 10


def test_pruned_has_gradients_everywhere(llm_pruned, llm_record):
    model = copy.deepcopy(llm_pruned.model)
    ids = _ids(model)
    loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    loss.backward()
    lacking = [
        name
        for name, p in model.named_parameters()
        if p.grad is None or p.grad.shape != p.shape or not p.grad.isfinite().all()
    ]
    assert not lacking, f"no finite gradient of the right shape for {lacking[:5]}"


def test_pruned_reloads_in_a_fresh_process_with_equal_logits(llm_pruned, llm_record, tmp_path):
    ids = _ids(llm_pruned.model)
    dtype = str(llm_pruned.model.dtype).removeprefix("torch.")
    try:
        save(llm_pruned.model, tmp_path)
        found, tied = logits_in_fresh_process(tmp_path, ids, dtype)
    except CheckFailed as error:
        pytest.fail(str(error), pytrace=False)
    wanted = _logits(copy.deepcopy(llm_pruned.model).cpu(), ids.cpu())
    error = ((wanted - found.float()).abs().max() / wanted.abs().max()).item()
    llm_record.measure("reload_error", error)
    assert error < TOLERANCE.get(llm_pruned.model.dtype, LOW_PRECISION), (
        f"logits differ by {error:.2g} of their largest value after reloading"
    )
    assert tied == llm_pruned.model.config.tie_word_embeddings
