"""Every mistake of a user gets one clear line and exit code 4, or a failed test without a traceback: never a pass."""

from __future__ import annotations

import json
import shutil
from fnmatch import fnmatch

import pytest

from pytest_llmprune.errors import UserError
from pytest_llmprune.quality.texts import evaluation_text
from pytest_llmprune.resources import data_dir, suites_dir

OPTIONS = {
    "unknown model": (["--llm-model", "tinny"], "unknown model 'tinny'"),
    "empty model": (["--llm-model", ""], "the model's name is empty"),
    "missing path": (["--llm-model", "./none"], "model './none': no such file or directory"),
    "directory without config": (["--llm-model", "."], "model '.': the directory holds no config.json"),
    "config that is no JSON": (["--llm-model", "broken"], "model 'broken': config.json can't be read"),
    "file that is no checkpoint": (["--llm-model", "./notes.txt"], "a file must be a .gguf checkpoint or a config"),
    "ratio 0": (["--llmprune-prune", "ffn:0"], "the ratio 0 is not between 0 and 1"),
    "ratio 1.5": (["--llmprune-prune", "ffn:1.5"], "the ratio 1.5 is not between 0 and 1"),
    "ratio -1": (["--llmprune-prune", "ffn:-1"], "the ratio -1 is not between 0 and 1"),
    "ratio abc": (["--llmprune-prune", "ffn:abc"], "'abc' is no number"),
    "no ratio": (["--llmprune-prune", "ffn"], "no ratio"),
    "unknown recipe": (["--llmprune-prune", "mlp:0.1"], "unknown recipe 'mlp'"),
    "unknown importance": (["--llmprune-importance", "l3"], "'l3' is none of taylor, magnitude, random"),
    "unknown weights": (["--llmprune-weights", "none"], "'none' is none of pretrained, random, meta"),
    "unknown device": (["--llmprune-device", "tpu"], "'tpu' is none of auto, cpu, cuda"),
    "unknown dtype": (["--llmprune-dtype", "int8"], "'int8' is none of auto, float32"),
    "unknown profile": (["--llmprune-profile", "huge"], "'huge' is none of smoke, standard"),
    "unknown fix": (["--llmprune-fixes", "gqa"], "unknown fix 'gqa'"),
    "unknown measurement": (["--llmprune-gate", "speed<=1"], "unknown measurement 'speed'"),
    "negative threshold": (["--llmprune-gate", "ppl_ratio<=-1"], "the threshold '-1' is no positive number"),
    "no gate": (["--llmprune-gate", "ppl_ratio"], "is no gate"),
    "seed": (["--llmprune-seed", "-3"], "'-3' is no seed"),
    "calibration seed": (["--llmprune-calibration-seed", "x"], "'x' is no seed"),
    "unknown perplexity": (["--llmprune-perplexity", "byte"], "'byte' is none of windows, rolling"),
    "missing text": (["--llmprune-text", "none.txt"], "'none.txt' is neither builtin nor wikitext2 nor a file"),
    "missing baseline": (["--llmprune-baseline", "none.json"], "'none.json': there is no such record"),
    "baseline that is no record": (["--llmprune-baseline", "notes.txt"], "notes.txt: no record"),
    "fail-on without a baseline": (["--llmprune-fail-on", "ppl:2%"], "it needs --llmprune-baseline"),
    "fail-on that is no percentage": (["--llmprune-fail-on", "ppl:2"], "'2' is no percentage"),
    "two models of one name": (["--llm-model", "broken", "--llm-model", "./broken"], "two models are called 'broken'"),
    "record in a missing directory": (["--llmprune-record", "none/r.json"], "the directory 'none' does not exist"),
    "record that is a directory": (["--llmprune-record", "."], "'.' is a directory"),
}


@pytest.fixture
def place(pytester):
    """A directory with a test that passes, and some files to name by mistake."""
    pytester.makepyfile("def test_it(): pass")
    (pytester.path / "notes.txt").write_text("a note")
    (pytester.path / "broken").mkdir()
    (pytester.path / "broken" / "config.json").write_text("{")
    return pytester


def _one_line(result, says):
    assert result.ret == 4
    lines = [line for line in result.errlines + result.outlines if line.startswith("ERROR: ")]
    assert len(lines) == 1
    assert says in lines[0]
    text = result.stdout.str() + result.stderr.str()
    assert "Traceback" not in text
    assert "passed" not in text


@pytest.mark.parametrize(("arguments", "says"), OPTIONS.values(), ids=OPTIONS.keys())
def test_a_wrong_value_on_the_command_line(place, arguments, says):
    _one_line(place.runpytest_inprocess(*arguments), says)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("model", "tinny", "ini llmprune_model: unknown model 'tinny'"),
        ("prune", "ffn:1.5", "ini llmprune_prune: 'ffn:1.5': the ratio 1.5"),
        ("importance", "l3", "ini llmprune_importance: 'l3' is none of"),
        ("gate", "ppl<=-1", "ini llmprune_gate: 'ppl<=-1'"),
        ("trust_remote_code", "perhaps", "ini llmprune_trust_remote_code: 'perhaps' is neither true nor false"),
    ],
)
def test_a_wrong_value_in_an_ini_file(place, key, value, says):
    place.makeini(f"[pytest]\nllmprune_{key} = {value}\n")
    result = place.runpytest_inprocess()
    if key == "model":
        says = "unknown model 'tinny'"
    _one_line(result, says)


def test_a_wrong_value_in_pytest_addopts(place, monkeypatch):
    monkeypatch.setenv("PYTEST_ADDOPTS", "--llmprune-prune ffn:2")
    _one_line(place.runpytest_subprocess(), "the ratio 2 is not between 0 and 1")


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_wrong_value_under_xdist(place, workers):
    _one_line(
        place.runpytest_subprocess("-n", workers, "--llmprune-prune", "ffn:2"), "the ratio 2 is not between 0 and 1"
    )


def test_records_that_can_not_be_kept(place):
    (place.path / ".llmprune").write_text("a file where a directory should be")
    _one_line(place.runpytest_inprocess("--llm-model", "tiny"), "no record can be kept under")


def test_another_plugin_that_declares_llm_model_keeps_it(place):
    place.makeconftest('def pytest_addoption(parser):\n    parser.addoption("--llm-model", help="of another plugin")\n')
    result = place.runpytest_subprocess("--llm-model", "theirs", "--llmprune-model", "tiny")
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        ["llmprune: tiny; *", "llmprune: --llm-model belongs to another plugin here; use --llmprune-model"]
    )


def _checkpoint(folder, change):
    shutil.copytree(data_dir() / "tiny-llama", folder)
    change(folder)


def _truncate(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def _set(folder, name, index, value):
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    tensors[name][index] = value
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _poison(folder):
    _set(folder, "model.layers.1.mlp.up_proj.weight", (3, 4), float("nan"))


def _poison_with_infinity(folder):
    _set(folder, "model.layers.1.mlp.up_proj.weight", (3, 4), float("inf"))


def _drop(folder):
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.2.self_attn.q_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _no_tokenizer(folder):
    for file in folder.glob("*token*"):
        file.unlink()


def _foreign_tokenizer(folder):
    values = json.loads((folder / "config.json").read_text())
    values["vocab_size"] = 1000
    (folder / "config.json").write_text(json.dumps(values))
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"][:1000].clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


CHECKPOINTS = {
    "truncated safetensors": (_truncate, "model 'ckpt': it can't be loaded: *incomplete*"),
    "weights with NaN": (_poison, "model 'ckpt': model.layers.1.mlp.up_proj.weight holds NaN or infinite weights*"),
    "weights with inf": (
        _poison_with_infinity,
        "model 'ckpt': model.layers.1.mlp.up_proj.weight holds NaN or infinite weights*",
    ),
    "a tensor missing": (
        _drop,
        "model 'ckpt': the checkpoint lacks 1 tensors, the first is model.layers.2.self_attn.q_proj.weight",
    ),
    "no tokenizer": (_no_tokenizer, "model 'ckpt': its tokenizer can't be loaded: *"),
    "tokenizer of another vocabulary": (
        _foreign_tokenizer,
        "model 'ckpt': the tokenizer has 1536 tokens, the model's vocabulary 1000;*",
    ),
}


@pytest.mark.parametrize(("change", "says"), CHECKPOINTS.values(), ids=CHECKPOINTS.keys())
def test_a_damaged_checkpoint_fails_in_one_line(pytester, change, says):
    _checkpoint(pytester.path / "ckpt", change)
    _fails(
        pytester.runpytest_subprocess(
            str(suites_dir()), "--llm-model", "ckpt", "--llmprune-prune", "ffn:0.2", "-k", "test_quality", "-q"
        ),
        says,
    )


def _fails(result, says):
    assert result.ret == 1
    result.stdout.fnmatch_lines([says])
    assert "Traceback" not in result.stdout.str()
    assert "fixtures.py" not in result.stdout.str()
    assert "1 passed" not in result.stdout.str()


TEXTS = {
    "empty text": ("", "*the file is empty, so there is nothing to measure on"),
    "blank text": (" \n\n ", "*the file is empty, so there is nothing to measure on"),
    "text of one token": ("A", "the evaluation text has 1 tokens, which make 0 windows of 256; *give a longer text"),
    "text of few windows": (
        "To be, or not to be. " * 100,
        "*which make [34] windows of 256; an interval needs at least 5*",
    ),
    "text that is not UTF-8": (b"\xff\xfe\x00", "*not UTF-8"),
}


@pytest.mark.parametrize(("text", "says"), TEXTS.values(), ids=TEXTS.keys())
def test_a_useless_text_fails_in_one_line(pytester, text, says):
    file = pytester.path / "text.txt"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    _fails(
        pytester.runpytest_subprocess(
            str(suites_dir()), "--llmprune-text", str(file), "--llmprune-prune", "ffn:0.2", "-k", "test_quality", "-q"
        ),
        says,
    )


JSONL = {
    "JSONL that is none": ("{", "text '*': line 1 is no JSON object with a string under \"text\""),
    "JSONL without text": ('{"text": "To be."}\n{"body": "x"}', "text '*': line 2 is no JSON object with*"),
    "JSONL with a number for a text": ('{"text": 3}', "text '*': line 1 is no JSON object with*"),
    "empty JSONL": ("\n", "*the file is empty, so there is nothing to measure on"),
}


@pytest.mark.parametrize(("text", "says"), JSONL.values(), ids=JSONL.keys())
def test_useless_jsonl_is_one_line(tmp_path, text, says):
    (tmp_path / "text.jsonl").write_text(text)
    with pytest.raises(UserError) as caught:
        evaluation_text(str(tmp_path / "text.jsonl"))
    assert fnmatch(str(caught.value), says)


def test_a_device_that_is_not_there_fails_in_one_line(pytester):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    result = pytester.runpytest_subprocess(
        str(suites_dir()), "--llmprune-device", "cuda:7", "-k", "test_groups_are", "-q"
    )
    _fails(result, "device 'cuda:7': torch sees 0 CUDA devices on this machine")


def test_a_recipe_that_the_model_does_not_admit_is_a_usage_error(pytester):
    config = json.loads((data_dir() / "tiny-llama" / "config.json").read_text())
    (pytester.path / "mqa.json").write_text(json.dumps({**config, "num_key_value_heads": 1}))
    result = pytester.runpytest_inprocess(
        "--llm-model", "./mqa.json", "--llmprune-weights", "random", "--llmprune-prune", "kv-groups:0.5"
    )
    _one_line(result, "the model has 1 kv heads in steps of 1, so none can go")
