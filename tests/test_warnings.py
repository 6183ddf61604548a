"""torch-pruning's warnings bury nothing, and none is lost."""

from __future__ import annotations

import json
import warnings

import pytest

from pytest_llmprune import fixes
from pytest_llmprune.errors import CheckFailed
from pytest_llmprune.graph.trace import trace
from pytest_llmprune.torch_pruning_api import heard, quiet, summarised

NORMS = "Unwrapped parameters detected: ['model.layers.0.input_layernorm.weight', 'model.norm.weight'].\n Torch-Pruning"
OTHERS = NORMS.replace("'model.norm.weight'", "'model.scale', 'model.shift'")
UNKNOWN = "[Warning] Unknown operation <X object at 0x7f00> encountered, which will be handled as an element-wise op"


@pytest.mark.parametrize(
    ("texts", "line"),
    [
        ((), ""),
        ((NORMS,), "torch-pruning warned once: 2 unwrapped parameters, all of them norms"),
        (
            (NORMS, UNKNOWN, UNKNOWN.replace("7f00", "7f11")),
            "torch-pruning warned 3 times: 2 unwrapped parameters, all of them norms; [Warning] Unknown operation"
            " <X object> encountered, which will be handled as an element-wise op (2 times)",
        ),
        (
            (OTHERS,),
            "torch-pruning warned once: 3 unwrapped parameters, norms and model.scale, model.shift",
        ),
    ],
)
def test_warnings_are_summarised_in_one_line(texts, line):
    assert summarised(texts) == line


def test_tracing_shows_no_warning_and_keeps_its_full_text(llama, recwarn):
    heard()
    trace(llama(4, 2), use_cache=False)
    assert not recwarn.list
    (text,) = heard()
    assert text.startswith("Unwrapped parameters detected: [")
    assert text.count("norm.weight'") == 5
    assert heard() == []


def test_what_torch_pruning_warned_of_before_it_failed_is_kept(llama):
    heard()
    with fixes.applied(()), pytest.raises(CheckFailed, match="can't trace the model"):
        trace(llama(4, 2), use_cache=True)
    (text,) = heard()
    assert text.startswith("Unwrapped parameters detected: [")


def test_warnings_of_others_are_shown():
    with pytest.warns(UserWarning, match="of another"), quiet():
        warnings.warn("of another", stacklevel=1)
    assert heard() == []


def test_a_run_says_in_one_line_what_torch_pruning_warned_of_and_keeps_it_in_full(pytester, plugin_args):
    pytester.makepyfile(
        """
        def test_it(llm_graph, llm_record):
            llm_record.measure("groups", 1)
        """
    )
    result = pytester.runpytest_subprocess("--llm-model", "tiny", *plugin_args)
    assert result.ret == 0
    said = (
        "torch-pruning warned once: 9 unwrapped parameters, all of them norms; in full: .llmprune/*/0001_tiny.details/*"
    )
    result.stdout.fnmatch_lines([said])
    result.stdout.no_fnmatch_line("*input_layernorm*")
    (file,) = pytester.path.glob(".llmprune/*/0001_tiny.details/torch-pruning-warnings.jsonl")
    (text,) = map(json.loads, file.read_text().splitlines())
    assert text.count("norm.weight'") == 9
