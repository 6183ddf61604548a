"""The suite test_graph, as a user runs it: what it leaves, and what it says when the graph is wrong."""

from __future__ import annotations

import base64
import json

from pytest_llmprune.graph.snapshot import read
from pytest_llmprune.resources import suites_dir

SUITE = str(suites_dir() / "test_graph.py")


def test_a_run_keeps_the_graphs_it_saw_and_draws_the_models(pytester):
    result = pytester.runpytest_subprocess(SUITE, "--llm-model", "tiny", "--llmprune-report", "r.html")
    assert result.ret == 0
    graphs = {file.name: read(file) for file in pytester.path.glob(".llmprune/*/0001_tiny.details/*.graph.json")}
    names = [snapshot.name for snapshot in graphs.values()]
    assert sorted(names) == ["miniature of tiny"] * 4 + ["tiny"]
    page = (pytester.path / "r.html").read_text()
    (picture,) = (part.split('"')[0] for part in page.split("data:image/svg+xml;base64,")[1:])
    assert "tiny: decoder layer 0 of 4" in base64.b64decode(picture).decode()


def test_without_fixes_every_failure_is_a_sentence_about_the_graph(pytester):
    result = pytester.runpytest_subprocess(SUITE, "--llm-model", "tiny", "--llmprune-fixes", "off", "-rA")
    assert result.ret == 1
    text = result.stdout.str()
    assert "torch-pruning can't trace the model: AttributeError: 'tuple' object has no attribute 'grad_fn'" in text
    assert "During handling" not in text
    assert "trace.py" not in text


def test_without_the_fix_gqa_map_the_heads_are_named(pytester):
    fixes = "nested-outputs,unsigned-dim"
    result = pytester.runpytest_subprocess(
        SUITE, "--llm-model", "tiny", "--llmprune-fixes", fixes, "-k", "heads and eager"
    )
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "the graph is not what the architecture implies (implied -> traced):",
            "  layers 0, 1 attention: query head 0 of o_proj maps to kv head 0 of k_proj; expected no kv head*",
        ]
    )


def test_a_config_whose_heads_do_not_divide_fails_in_one_line(pytester):
    config = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 3}
    (pytester.path / "odd.json").write_text(json.dumps({**config, **heads}))
    result = pytester.runpytest_subprocess(SUITE, "--llm-model", "./odd.json", "--llmprune-weights", "meta")
    assert result.ret == 1
    says = "model './odd.json': the config's 4 query heads don't divide among its 3 kv heads"
    assert says in result.stdout.str()
    assert "Traceback" not in result.stdout.str()
    assert "load.py:" not in result.stdout.str()
