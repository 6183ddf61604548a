"""A dry run says of every family and recipe what really pruning its miniature gives, to the last shape and config
value.
"""

from __future__ import annotations

import json

import pytest

from pytest_llmprune import fixes
from pytest_llmprune.errors import CheckFailed, UserError
from pytest_llmprune.models import smollm2
from pytest_llmprune.models.load import load, load_config
from pytest_llmprune.models.miniature import shrink
from pytest_llmprune.models.spec import ModelSpec
from pytest_llmprune.prune.apply import prune
from pytest_llmprune.prune.checkpoint import save
from pytest_llmprune.prune.dryrun import dry_run
from pytest_llmprune.prune.recipes import Case
from pytest_llmprune.quality.cost import size_of
from pytest_llmprune.words import RECIPES

LLAMA, PHI3 = "meta-llama/Llama-3.2-1B", "microsoft/Phi-3-mini-4k-instruct"
FAMILIES = {
    "llama": (LLAMA, {}),
    "llama-mha": ("meta-llama/Llama-2-7b-hf", {}),
    "llama-mqa": ("meta-llama/Llama-2-7b-hf", {"num_key_value_heads": 1}),
    "llama-untied": (LLAMA, {"tie_word_embeddings": False}),
    "llama-bias": (LLAMA, {"attention_bias": True, "mlp_bias": True}),
    "llama-odd": (LLAMA, {"num_attention_heads": 5, "num_key_value_heads": 5, "hidden_size": 80}),
    "mistral": ("mistralai/Mistral-7B-v0.1", {}),
    "qwen2": ("Qwen/Qwen2.5-0.5B", {}),
    "qwen3": ("Qwen/Qwen3-0.6B", {}),
    "phi3": (PHI3, {}),
    "gemma2": ("google/gemma-2-2b", {}),
}


@pytest.fixture(scope="module", autouse=True)
def _fixed():
    with fixes.applied():
        yield


def _miniature(folder, name, changes):
    """A spec of the family's miniature: a directory that holds its config."""
    config = shrink(load_config(ModelSpec(name)))
    for key, value in changes.items():
        setattr(config, key, value)
    config.save_pretrained(folder)
    return ModelSpec(str(folder), weights="random", dtype="float32")


def _assert_equal(planned, spec, case, folder):
    model = load(spec).model
    assert planned.dense == size_of(model)
    pruned = prune(model, case)
    assert planned.pruned == size_of(pruned.model)
    assert planned.reductions == pruned.plan.reductions
    kinds = {kind.name: kind for kind in planned.kinds}
    counts = dict.fromkeys(kinds, 0)
    for name, parameter in pruned.model.named_parameters():
        kind = kinds[name.replace(".0.", ".*.").replace(".1.", ".*.")]
        assert tuple(parameter.shape) == kind.pruned
        counts[kind.name] += 1
    assert counts == {kind.name: kind.count for kind in planned.kinds}
    assert planned.config == _saved_config(pruned.model, folder)


def _saved_config(model, folder):
    try:
        return json.loads((save(model, folder) / "config.json").read_text())
    except CheckFailed:  # transformers >= 5 reads no Gemma of 128 channels and 6 heads
        return None


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize(("name", "changes"), FAMILIES.values(), ids=FAMILIES.keys())
def test_a_dry_run_equals_pruning(name, changes, recipe, tmp_path):
    spec, case = _miniature(tmp_path / "dense", name, changes), Case(recipe, 0.3, "random")
    refusal = None
    if recipe == "kv-groups" and changes.get("num_key_value_heads") == 1:
        refusal = "the model has 1 kv heads in steps of 1"
    if recipe == "kv-groups" and name == PHI3:
        refusal = "fuses q, k and v"
    if refusal:
        with pytest.raises(UserError, match=refusal):
            dry_run(spec, case)
        return
    _assert_equal(dry_run(spec, case), spec, case, tmp_path / "pruned")


@pytest.mark.parametrize("recipe", ["ffn", "width", "all"])
@pytest.mark.parametrize("name", [LLAMA, PHI3, "Qwen/Qwen2.5-0.5B"])
def test_a_rounded_dry_run_equals_rounded_pruning(name, recipe, tmp_path):
    spec, case = _miniature(tmp_path / "dense", name, {}), Case(recipe, 0.3, "random", round_to=16)
    planned = dry_run(spec, case)
    for part in planned.reductions:
        assert part.unit == "query heads" or (part.total - part.removed) % 16 == 0
    _assert_equal(planned, spec, case, tmp_path / "pruned")


def test_bytes_are_counted_in_the_dtype_asked_for():
    halves, singles = (dry_run(ModelSpec("tiny", dtype=dtype), Case("ffn", 0.2)) for dtype in ("float16", "float32"))
    assert 2 * halves.pruned.bytes == singles.pruned.bytes == 4 * singles.pruned.params
    assert (halves.config["dtype"], singles.config["dtype"]) == ("float16", "float32")


def test_a_gguf_file_is_planned_by_the_config_it_carries():
    pytest.importorskip("gguf")
    try:
        file = smollm2.find_gguf()
    except UserError as missing:
        pytest.skip(str(missing))
    assert (
        dry_run(ModelSpec(str(file)), Case("all", 0.2)).pruned == dry_run(ModelSpec("smollm2"), Case("all", 0.2)).pruned
    )


@pytest.mark.parametrize("recipe", ["heads", "all"])
def test_heads_that_torch_pruning_can_not_rank_are_refused_in_the_dry_run_too(recipe, tmp_path):
    fused_groups = _miniature(tmp_path, PHI3, {"num_attention_heads": 8, "num_key_value_heads": 4})
    for attempt in (lambda case: dry_run(fused_groups, case), lambda case: prune(load(fused_groups).model, case)):
        with pytest.raises(UserError, match="takes a fused qkv_proj for three equal parts"):
            attempt(Case(recipe, 0.3, "random"))


@pytest.mark.parametrize("recipe", ["ffn", "width"])
def test_a_dry_run_of_fused_grouped_query_attention_equals_real_pruning(recipe, tmp_path):
    spec = _miniature(tmp_path / "dense", PHI3, {"num_attention_heads": 8, "num_key_value_heads": 4})
    case = Case(recipe, 0.3, "random")
    _assert_equal(dry_run(spec, case), spec, case, tmp_path / "pruned")
