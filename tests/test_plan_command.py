"""`llmprune plan`, as it is typed: most cases in one process, since importing torch takes seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from pytest_llmprune.resources import data_dir

DRIVER = """
import contextlib, io, json, sys
from pytest_llmprune.cli import main

def run(arguments):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(["plan", *arguments])
        except SystemExit as exit:
            code = exit.code
    return code, out.getvalue(), err.getvalue()

print(json.dumps({name: run(arguments) for name, arguments in json.load(sys.stdin).items()}))
"""

TINY = {
    "heads.json": {"num_attention_heads": 7},
    "kv.json": {"num_key_value_heads": 3},
    "mqa.json": {"num_key_value_heads": 1},
    "empty.json": {"hidden_size": 0},
    "unknown.json": {"model_type": "llama9"},
}
OTHERS = {
    "bert.json": {"model_type": "bert", "num_hidden_layers": 1},
    "vit.json": {"model_type": "vit"},
    "albert.json": {"model_type": "albert"},
    "mamba.json": {"model_type": "mamba"},
    "untyped.json": {"hidden_size": 64},
}
PHI3 = "microsoft/Phi-3-mini-4k-instruct"
MISTAKES = {
    "ratio 1.5": (["tiny", "--ratio", "1.5"], "the ratio 1.5 is not between 0 and 1"),
    "ratio abc": (["tiny", "--recipe", "ffn", "--ratio", "abc"], "'abc' is no number"),
    "unknown recipe": (["tiny", "--recipe", "mlp"], "unknown recipe 'mlp'; there are ffn, heads"),
    "unknown model": (["tinny"], "unknown model 'tinny'"),
    "model that is not there": (["none/none"], "model 'none/none': it can't be loaded"),
    "missing path": (["./none.json"], "no such file or directory"),
    "unknown model_type": (["unknown.json"], "knows no model_type 'llama9'"),
    "no model_type": (["untyped.json"], "its config names no model_type"),
    "heads that don't divide the hidden size": (["heads.json"], "7"),
    "kv heads that don't divide the heads": (["kv.json"], "8 query heads don't divide among its 3 kv heads"),
    "a size of 0": (["empty.json"], "its hidden size is 0"),
    "no causal model": (["albert.json"], "model 'albert.json': it can't be loaded: Unrecognized configuration class"),
    "no language model": (["vit.json"], "the config is of no language model: it has no vocab_size"),
    "another family": (["bert.json"], "BertLMHeadModel is no causal model of the Llama family"),
    "no attention": (["mamba.json"], "the config is not of the Llama family: it has no num_attention_heads"),
    "fused projections": ([PHI3, "--recipe", "kv-groups"], "this model fuses q, k and v in one layer"),
    "one kv head": (["mqa.json", "--recipe", "kv-groups"], "1 kv heads in steps of 1, so none can go"),
    "round-to 0": (["tiny", "--round-to", "0"], "round_to is 0; it must be 1 or more"),
    "round-to too large": (["tiny", "--recipe", "ffn", "--round-to", "512"], "512 FFN channels in steps of 512"),
    "round-to without channels": (["tiny", "--recipe", "heads", "--round-to", "8"], "removes heads, not channels"),
    "one file for many configs": (["tiny", "-o", "config.json"], "-o writes one config"),
    "a file in no directory": (["tiny", "--recipe", "ffn", "-o", "none/config.json"], "No such file or directory"),
}
PLANS = {
    "full": ["tiny", "--recipe", "ffn", "--ratio", "0.2", "-o", "small.json"],
    "rounded": ["tiny", "--recipe", "ffn", "--round-to", "64"],
    "json": ["tiny", "--recipe", "ffn", "--json"],
    "table": ["mqa.json"],
    "many": ["tiny", "--recipe", "ffn", "--recipe", "width", "--ratio", "0.1,0.3", "--json"],
    "again": ["small.json", "--recipe", "ffn", "--json"],
}


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What every command of this module returned, printed and complained of."""
    folder = tmp_path_factory.mktemp("plan")
    values = json.loads((data_dir() / "tiny-llama" / "config.json").read_text())
    for name, changes in TINY.items():
        (folder / name).write_text(json.dumps({**values, **changes}))
    for name, config in OTHERS.items():
        (folder / name).write_text(json.dumps(config))
    commands = {**PLANS, **{name: arguments for name, (arguments, _) in MISTAKES.items()}}
    process = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=json.dumps(commands),
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    return json.loads(process.stdout)


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(said, name):
    code, out, err = said[name]
    assert (code, out) == (2, "")
    assert MISTAKES[name][1] in err
    assert err.startswith("llmprune: ")
    assert err.count("\n") == 1


def test_one_case_is_shown_in_full(said):
    code, out, err = said["full"]
    assert (code, err) == (0, "")
    rows = {" ".join(line.split()) for line in out.splitlines()}
    assert "tiny, ffn 0.2" in rows
    assert "FFN channels 512 -> 410 (-19.9%)" in rows
    assert "4 x model.layers.*.mlp.up_proj 512 x 192 -> 410 x 192" in rows
    assert "4 x model.layers.*.mlp.down_proj 192 x 512 -> 192 x 410" in rows
    assert "yes transformers" in rows
    assert "no vLLM on 4 GPUs 410 FFN channels are no multiple of 4; with --round-to 4 (ratio 0.2031) it is" in rows
    assert out.splitlines()[-1] == "next: llmprune gate tiny --llmprune-prune ffn:0.2"


def test_a_rounded_case_ends_with_the_ratio_that_does_the_same(said):
    code, out, _ = said["rounded"]
    assert code == 0
    assert "tiny, ffn 0.2, channels left in multiples of 64" in out
    assert out.splitlines()[-1] == "next: llmprune gate tiny --llmprune-prune ffn:0.25"


def test_without_a_recipe_each_has_a_row_and_the_one_that_can_not_be_says_why(said):
    code, out, _ = said["table"]
    assert code == 0
    lines = [line.split()[0] for line in out.splitlines()]
    assert lines == ["mqa.json", "parameters", "dense", "ffn", "heads", "width", "all", "kv-groups", "next:"]
    assert "kv-groups 0.2: recipe kv-groups: the model has 1 kv heads in steps of 1, so none can go" in out


def test_what_torch_pruning_can_not_do_is_a_row_and_exit_code_1(monkeypatch, capsys):
    from pytest_llmprune import cli
    from pytest_llmprune.errors import CheckFailed
    from pytest_llmprune.prune import dryrun

    def dry_run(spec, case):
        if case.recipe == "heads":
            raise CheckFailed("layers are left with different num_attention_heads")
        return real(spec, case)

    real = dryrun.dry_run
    monkeypatch.setattr(dryrun, "dry_run", dry_run)
    assert cli.main(["plan", "tiny"]) == 1
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "512 FFN channels" in rows["ffn"]
    assert rows["heads"].strip() == "heads 0.2: layers are left with different num_attention_heads"


def test_json_holds_the_facts_and_a_config_that_can_be_planned_again(said):
    (plan,) = json.loads(said["json"][1])["plans"]
    assert plan["reductions"] == [{"unit": "FFN channels", "total": 512, "step": 1, "removed": 102, "ratio": 102 / 512}]
    assert plan["config"]["intermediate_size"] == 410
    assert plan["pruned"]["params"] < plan["dense"]["params"]
    assert {use["name"] for use in plan["uses"] if not use["ok"]} >= {"vLLM on 4 GPUs"}
    (again,) = json.loads(said["again"][1])["plans"]
    assert again["dense"] == plan["pruned"]


def test_recipes_and_ratios_are_multiplied(said):
    found = json.loads(said["many"][1])
    assert [(plan["recipe"], plan["ratio"]) for plan in found["plans"]] == [
        ("ffn", 0.1),
        ("ffn", 0.3),
        ("width", 0.1),
        ("width", 0.3),
    ]
    assert found["refused"] == []


def test_the_command_itself_exits_with_the_code(tmp_path):
    command = [sys.executable, "-m", "pytest_llmprune.cli", "plan", "tinny"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith("llmprune: unknown model 'tinny'")
