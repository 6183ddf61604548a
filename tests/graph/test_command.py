"""`llmprune graph`, as it is typed."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import pytest

from pytest_llmprune import cli
from pytest_llmprune.graph.snapshot import dumps, fingerprint, read
from pytest_llmprune.torch_pruning_api import heard

LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 64,
}


@pytest.fixture
def graph(tmp_path, monkeypatch, capsys):
    """`graph(ARGUMENTS)`: (exit code, lines of output, lines of errors) of `llmprune graph` in a directory with
    `llama.json`, the config of a small Llama.
    """
    monkeypatch.chdir(tmp_path)
    (tmp_path / "llama.json").write_text(json.dumps(LLAMA))

    def run(*arguments):
        heard()  # what torch-pruning said in tests before
        code = cli.main(["graph", *arguments])
        out, err = capsys.readouterr()
        return code, out.splitlines(), err.splitlines()

    return run


def test_a_summary_names_model_versions_and_groups(graph):
    code, lines, _ = graph("./llama.json")
    assert code == 0
    assert lines[0] == (
        "LlamaForCausalLM, 2 layers: hidden 64, FFN 96, 4 query heads on 2 kv heads of 16, embeddings not tied"
    )
    assert lines[1].startswith("torch-pruning ")
    assert lines[2:] == [
        "residual: lm_head.in, embed_tokens.out, norm (64); in layers 0, 1 input_layernorm, down_proj.out,"
        " gate_proj.in, up_proj.in, post_attention_layernorm, k_proj.in, o_proj.out, q_proj.in, v_proj.in (64)",
        "layers 0, 1 attention: k_proj.out, v_proj.out (32); o_proj.in, q_proj.out (64)",
        "layers 0, 1 FFN: down_proj.in, gate_proj.out, up_proj.out (96)",
        "torch-pruning warned once: 5 unwrapped parameters, all of them norms",
        "as the architecture implies",
    ]


def test_a_snapshot_and_a_picture_are_written(graph, tmp_path):
    code, lines, _ = graph("./llama.json", "--weights", "random", "-o", "a.json", "--picture", "a.svg")
    assert code == 0
    snapshot = read(tmp_path / "a.json")
    assert [len(group.members) for group in snapshot.groups] == [21, 3, 4, 3, 4]
    assert lines[:2] == [f"snapshot: a.json (5 groups, {fingerprint(snapshot.groups)})", "picture: a.svg"]
    assert "decoder layer 0 of 2" in (tmp_path / "a.svg").read_text()


def test_a_graph_that_is_not_as_implied_exits_1_and_says_where(graph):
    code, lines, errors = graph("./llama.json", "--fixes", "nested-outputs,unsigned-dim")
    assert (code, errors) == (1, [])
    assert lines[-5:] == [
        "not as the architecture implies (implied -> traced):",
        "  layers 0, 1 attention: k_proj.out 32 -> 64 channels",
        "  layers 0, 1 attention: v_proj.out 32 -> 64 channels",
        "  layers 0, 1 attention: one group too many: k_proj.out",
        "  layers 0, 1 attention: one group too many: v_proj.out",
    ]


@pytest.mark.usefixtures("graph")
def test_a_runaway_exits_1_without_a_traceback():
    command = [sys.executable, "-m", "pytest_llmprune.cli", "graph", "./llama.json", "--fixes", "off"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("llmprune: propagation from model.layers.0.self_attn.k_proj.out took more than ")
    assert "Traceback" not in result.stderr


@pytest.fixture
def diff(tmp_path, monkeypatch, capsys, snapshot):
    """`diff(groups=..., environment=...)`: (exit code, lines) of `llmprune graph --diff` with a changed copy."""
    monkeypatch.chdir(tmp_path)

    def run(**changes):
        (tmp_path / "a.json").write_text(dumps(snapshot))
        (tmp_path / "b.json").write_text(dumps(dataclasses.replace(snapshot, **changes)))
        code = cli.main(["graph", "--diff", "a.json", "b.json"])
        out, err = capsys.readouterr()
        return code, (out + err).splitlines()

    return run


def test_equal_snapshots_exit_0(diff):
    assert diff() == (0, ["A a.json, B b.json: made in equal environments", "equal: 25 groups in A, 25 in B"])


def test_versions_are_told_and_not_compared(diff, snapshot):
    code, lines = diff(environment={**snapshot.environment, "torch-pruning": "9.9"})
    assert code == 0
    assert lines[0] == f"A a.json, B b.json: torch-pruning {snapshot.environment['torch-pruning']} -> 9.9"


def test_a_change_exits_3_and_is_explained(diff, snapshot, planted, without):
    code, lines = diff(groups=planted(snapshot.groups, without("self_attn.v_proj", "out")))
    assert code == 3
    assert lines[1:] == ["layers 0-11 attention: v_proj.out is missing in B", "changed: 25 groups in A, 25 in B"]


def test_snapshots_of_different_models_exit_2(diff, snapshot):
    assert diff(model=dataclasses.replace(snapshot.model, layers=13, hidden=80)) == (
        2,
        [
            "llmprune: a.json and b.json are snapshots of different models, which can't be compared: layers 12 and 13,"
            " hidden 64 and 80"
        ],
    )


MISTAKES = {
    "neither model nor diff": ((), "graph: give either a MODEL or --diff A.json B.json"),
    "both": (("tiny", "--diff", "a.json", "b.json"), "graph: give either a MODEL or --diff A.json B.json"),
    "no snapshot": (("--diff", "llama.json", "b.json"), "llama.json: not a snapshot of a graph; write one with"),
    "no file": (("--diff", "a.json", "b.json"), "a.json: no snapshot can be read: No such file or directory"),
    "no directory": (("tiny", "-o", "none/a.json"), "none/a.json: no file can be written there"),
    "unknown model": (("tinny",), "unknown model 'tinny'"),
    "unknown fix": (("tiny", "--fixes", "gqa"), "unknown fix 'gqa'"),
}


@pytest.mark.parametrize(("arguments", "says"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_one_line_and_exit_code_2(graph, arguments, says):
    code, _, errors = graph(*arguments)
    assert code == 2
    assert len(errors) == 1
    assert errors[0].startswith(f"llmprune: {says}")


USELESS = {
    "heads that don't divide": (
        {"num_key_value_heads": 3},
        "the config's 4 query heads don't divide among its 3 kv heads",
    ),
    "unknown model_type": ({"model_type": "lama"}, "knows no model_type 'lama'"),
    "no Linear layers": (
        {"model_type": "gpt2"},
        "the config is not of the Llama family: it has no num_attention_heads",
    ),
    "another family": (
        {"model_type": "gpt_neox"},
        "GPTNeoXForCausalLM is no causal model of the Llama family: it has no decoder layers that this tool knows",
    ),
    "no causal model": ({"model_type": "clip_vision_model"}, "it can't be loaded: Unrecognized configuration class"),
}


@pytest.mark.parametrize(("changes", "says"), USELESS.values(), ids=USELESS.keys())
def test_a_model_that_can_not_be_traced_is_one_line_and_exit_code_2(graph, tmp_path, changes, says):
    (tmp_path / "odd.json").write_text(json.dumps({**LLAMA, **changes}))
    code, lines, errors = graph("./odd.json")
    assert (code, lines) == (2, [])
    assert errors[-1].startswith("llmprune: model './odd.json': ")
    assert says in errors[-1]
