"""What was measured of dense is found again under everything it depends on, and never where it was damaged."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from pytest_llmprune.errors import UserError
from pytest_llmprune.models.load import load
from pytest_llmprune.models.spec import ModelSpec
from pytest_llmprune.quality.assess import measure_dense
from pytest_llmprune.quality.coherence import CoherenceProtocol
from pytest_llmprune.quality.dense_cache import CACHED, MEASURED, folder_of, found_or_measured, key_for, weights_hash
from pytest_llmprune.quality.perplexity import Perplexity, PerplexityProtocol
from pytest_llmprune.quality.profiles import profile
from pytest_llmprune.quality.texts import builtin


@pytest.fixture(scope="module")
def tiny():
    return load(ModelSpec("tiny"))


@pytest.fixture(scope="module")
def short():
    """The smallest profile that measures everything."""
    return replace(
        profile("smoke", tiny=True),
        perplexity=PerplexityProtocol(window=32, stride=32, windows=5),
        coherence=CoherenceProtocol(("Enter",), new_tokens=4),
    )


@pytest.fixture
def key(tiny):
    return key_for(tiny, "ppl", {"window": 32}, weights="w", tokenizer="t", text="x")


VALUE = Perplexity((1.5, 2.5), (3, 4))


def _ask(folder, key, value=VALUE):
    return found_or_measured(folder, key, lambda: value, Perplexity.from_json)


def test_a_second_run_finds_what_the_first_measured_and_another_seed_only_samples_anew(tiny, short, tmp_path):
    text = builtin("hamlet")
    first, second = (measure_dense(tiny, text, short, cache=tmp_path) for _ in range(2))
    assert set(first.sources.values()) == {MEASURED}
    assert set(second.sources.values()) == {CACHED}
    assert (second.perplexity, second.coherence) == (first.perplexity, first.coherence)

    resampled = replace(short, coherence=replace(short.coherence, seed=1))
    third = measure_dense(tiny, text, resampled, cache=tmp_path)
    assert third.sources == {"dense.ppl": CACHED, "dense.coherence": MEASURED}
    assert third.protocol == first.protocol
    other = measure_dense(tiny, "Another text. " * 200, short, cache=tmp_path)
    assert set(other.sources.values()) == {MEASURED}


def test_every_part_of_the_key_counts(key, tmp_path):
    assert _ask(tmp_path, key) == (VALUE, MEASURED)
    assert _ask(tmp_path, key) == (VALUE, CACHED)
    for name, part in vars(key).items():
        other = {"window": 33} if name == "protocol" else part + "'"
        assert _ask(tmp_path, replace(key, **{name: other}))[1] == MEASURED


def test_the_hash_of_weights_sees_a_single_weight_and_the_config(llama):
    model = llama(4, 2)
    before = weights_hash(model)
    assert weights_hash(llama(4, 2)) == before
    with torch.no_grad():
        model.lm_head.weight[3, 5] += 1e-3
    assert weights_hash(model) != before
    other = llama(4, 2)
    other.config.rms_norm_eps *= 10
    assert weights_hash(other) != before
    assert weights_hash(llama(4, 2).bfloat16()) != before


def _cut(text):
    return text[: len(text) // 2]


def _changed(text):
    return text.replace("1.5", "1.25")


def _of_another_key(text):
    entry = json.loads(text)
    entry["key"]["weights"] = "other"
    return json.dumps(entry)


@pytest.mark.parametrize("damage", [_cut, _changed, _of_another_key, lambda _: "", lambda _: "[]"])
def test_a_damaged_entry_is_measured_anew_and_replaced(key, tmp_path, damage):
    _ask(tmp_path, key)
    (file,) = tmp_path.glob("*.json")
    file.write_text(damage(file.read_text()))
    fresh = Perplexity((9.0,), (9,))
    assert _ask(tmp_path, key, fresh) == (fresh, MEASURED)
    assert _ask(tmp_path, key) == (fresh, CACHED)


def test_a_folder_that_can_not_be_written_is_one_line(key, tmp_path):
    (tmp_path / "dense").write_text("a file")
    with pytest.raises(UserError, match="can't be kept there"):
        _ask(tmp_path / "dense", key)


def test_the_folder_is_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.delenv("LLMPRUNE_DENSE_CACHE", raising=False)
    assert folder_of(tmp_path) == tmp_path / ".llmprune" / "dense"
    monkeypatch.setenv("LLMPRUNE_DENSE_CACHE", str(tmp_path / "elsewhere"))
    assert folder_of(tmp_path) == tmp_path / "elsewhere"
