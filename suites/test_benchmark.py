"""How long does torch-pruning take to trace, to group, and to prune? Measured with pytest-benchmark, never judged here.

A baseline judges it: `--llmprune-fail-on step-time:30%`.
"""

from __future__ import annotations

import copy
import platform
import time

import pytest
import torch
import transformers

from pytest_llmprune.graph.budget import propagation_budget
from pytest_llmprune.graph.snapshot import groups_of
from pytest_llmprune.graph.trace import trace
from pytest_llmprune.models.load import build_on_meta
from pytest_llmprune.prune.apply import apply_plan
from pytest_llmprune.prune.plan import make_plan
from pytest_llmprune.prune.recipes import Case
from pytest_llmprune.quality.cost import growth_exponent, peak_memory
from pytest_llmprune.torch_pruning_api import version

pytest.importorskip(
    "pytest_benchmark", reason="pytest-benchmark is not installed: pip install 'pytest-llmprune[benchmark]'"
)

ROUNDS = 3
LAYERS = (8, 16, 32, 64, 126)
CASE = Case("ffn", 0.2, "random")  # no time goes into ranking


@pytest.fixture
def timed(benchmark, llm_dense, llm_record):
    """`timed(name, function, setup)` runs a function ROUNDS times after a warm-up and records the median in seconds,
    with the fastest and the slowest round."""
    if benchmark.disabled:
        pytest.skip("pytest-benchmark measures nothing under xdist or with --benchmark-disable")

    def measure(name, function, setup=None):
        benchmark.pedantic(function, setup=setup, rounds=ROUNDS, warmup_rounds=1)
        benchmark.extra_info.update(
            torch_pruning=version(),
            torch=torch.__version__,
            transformers=transformers.__version__,
            device=str(llm_dense.device),
            dtype=str(llm_dense.dtype),
            machine=platform.machine(),
            peak_memory=peak_memory(llm_dense.device),
        )
        rounds = benchmark.stats.stats
        llm_record.measure(name, rounds.median, (rounds.min, rounds.max))

    return measure


@pytest.mark.benchmark(group="trace")
def test_trace(timed, llm_dense):
    timed("trace_time", lambda: trace(llm_dense.model))


@pytest.mark.benchmark(group="all groups")
def test_all_groups(timed, llm_dense):
    graph = trace(llm_dense.model)
    with propagation_budget():
        timed("group_time", lambda: groups_of(graph))


@pytest.mark.benchmark(group="pruner construction and choice of channels")
def test_plan(timed, llm_dense):
    with propagation_budget():
        timed("plan_time", lambda: make_plan(llm_dense.model, CASE))


@pytest.mark.benchmark(group="one pruning step")
def test_step(timed, llm_dense):
    def planned():
        model = copy.deepcopy(llm_dense.model)
        plan, graph = make_plan(model, CASE)
        return (model, graph, plan), {}

    with propagation_budget():
        timed("step_time", apply_plan, planned)


@pytest.mark.llm_slow
@pytest.mark.benchmark(group="trace and all groups of 126 layers")
def test_growth_over_layers(timed, llm_dense, llm_record):
    def seconds(layers):
        config = copy.deepcopy(llm_dense.model.config)
        config.num_hidden_layers = layers
        if getattr(config, "layer_types", None):
            config.layer_types = [config.layer_types[i % len(config.layer_types)] for i in range(layers)]
        model = build_on_meta(config)
        started = time.perf_counter()
        with propagation_budget():
            groups_of(trace(model))
        return time.perf_counter() - started

    seconds(2)
    llm_record.measure("growth_exponent", growth_exponent({layers: seconds(layers) for layers in LAYERS}))
    timed("layers_time", lambda: seconds(LAYERS[-1]))
