"""On torch-pruning as it is, the fuzzer finds what it was built for, and says it in a program that stands alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, find, settings

from pytest_llmprune import fixes
from pytest_llmprune.fuzz import Cut, Network, llama_configs, nests, oracles, parts, scripts
from pytest_llmprune.fuzz.modules import Block
from pytest_llmprune.graph.budget import RunawayPropagation
from pytest_llmprune.resources import suites_dir

SUITE = str(suites_dir() / "test_tracer_fuzz.py")
PLAIN = settings(deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.fixture(autouse=True)
def _unfixed():
    with fixes.applied(()):
        yield


def _run(script, folder):
    """A script's (exit status, error output), with torch-pruning alone."""
    file = folder / "script.py"
    file.write_text(script)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PYTHONPATH"] = str(Path(__import__("torch_pruning").__file__).parents[1])
    done = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, env=environment, cwd=folder)
    return done.returncode, done.stderr


def _with_fixes(script):
    """The same program, run here with the fixes."""
    with fixes.applied():
        exec(script.replace("faulthandler.dump_traceback_later", "(lambda *_, **__: None)"), {"__name__": "script"})


class _Returning(torch.nn.Module):
    def __init__(self, nest):
        super().__init__()
        self.layer, self.nest = torch.nn.Linear(2, 2), nest

    def forward(self, x):
        return self.nest([self.layer(x)])


def test_the_tuple_defect_is_found_within_50_examples_and_shrunk_to_one_layer():
    def breaks(nest):
        nonlocal tried
        tried += not found
        try:
            oracles.graph_of(_Returning(nest), torch.ones(2, 2))
        except (AttributeError, TypeError) as error:
            found.append(error)
            return True
        return False

    tried, found = 0, []
    nest = find(nests(), breaks, settings=settings(PLAIN, max_examples=50))
    assert tried <= 50
    assert nest.source in ("(None, tensors[0],)", "(tensors[0], None,)")
    assert nest.count == 1


def test_the_suite_tells_the_tuple_defect_with_a_script_that_fails_on_plain_torch_pruning(pytester):
    result = pytester.runpytest_subprocess(SUITE, "--llmprune-fixes", "off", "-k", "nest_of_outputs")
    assert result.ret == 1
    text = result.stdout.str()
    assert "hypothesis/" not in text
    script = text.split("to see it on plain torch-pruning:\n\n")[1].split("\n===")[0]
    assert "range(1)" in script
    status, error = _run(script, pytester.path)
    assert status == 1
    assert "object has no attribute 'grad_fn'" in error or "is not iterable" in error


def test_the_runaway_is_found_and_told_as_a_cycle_without_waiting_for_a_clock():
    def runs_away(config):
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
        inputs = {"input_ids": torch.ones(1, 6, dtype=torch.long), "use_cache": False}
        head = config.head_dim
        cut = Cut("model.layers.0.self_attn.q_proj", True, tuple(range(head)))
        with fixes.applied(["nested-outputs"]):
            try:
                oracles.pruned_equals_masked(model, inputs, cut)
            except RunawayPropagation as error:
                errors.append(str(error))
                return True
            except Exception:
                return False
        return False

    errors = []
    config = find(llama_configs(("llama",)), runs_away, settings=settings(PLAIN, max_examples=200))
    assert config.num_hidden_layers == 1
    assert config.num_attention_heads == 2 * config.num_key_value_heads
    assert "the cycle that repeats: " in errors[-1]


FROM_THE_END = Network(3, (Block("slice", (3, 2, 1)),))  # the second slice begins at -2
FROM_THE_START = Network(3, (Block("slice", (3, 2, 2)),))
LAST = Cut("layer1", True, (4,))
NETWORKS = {
    "takes": scripts.takes(FROM_THE_END, ("layer1", "out", 4)),
    "masked": scripts.masked(FROM_THE_END, LAST),
    "again": scripts.again(FROM_THE_START, Cut("layer1", True, (0,))),
    "reordered": scripts.reordered(FROM_THE_END, FROM_THE_END.orders[2]),
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_script_of_a_network_fails_on_plain_torch_pruning_and_not_with_the_fixes(kind, tmp_path):
    script = NETWORKS[kind]
    assert "pytest_llmprune" not in script
    status, error = _run(script, tmp_path)
    assert status == 1
    assert "script.py" in error
    _with_fixes(script)


def test_a_script_that_replays_a_history_runs(tmp_path):
    assert _run(scripts.replayed(FROM_THE_START, LAST), tmp_path) == (0, "")


def test_a_script_of_a_config_fails_on_plain_torch_pruning_and_not_with_the_fixes(tmp_path):
    config = find(
        llama_configs(("llama",)), lambda c: (c.num_attention_heads, c.num_key_value_heads) == (6, 2), settings=PLAIN
    )
    script = scripts.implied(config, "eager", True)
    assert _run(script, tmp_path)[0] == 1
    _with_fixes(script)
    head = tuple(range(config.head_dim))
    script = scripts.masked_config(config, "sdpa", Cut("model.layers.0.self_attn.k_proj", True, head))
    assert _run(script, tmp_path)[0] == 1
    _with_fixes(script)


def test_a_script_of_a_change_compares_two_graphs():
    network = Network(2, (Block("gated"),))
    _with_fixes(scripts.changed(network, "traced(registered_in_reverse(model), x)"))
    with pytest.raises(AssertionError):
        _with_fixes(scripts.changed(network, "traced(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)), x)"))
    assert callable(parts.registered_in_reverse)
