"""Does torch-pruning couple the channels that the architecture couples?"""

from __future__ import annotations

import time

import pytest

from pytest_llmprune.errors import UserError
from pytest_llmprune.graph.budget import propagation_budget
from pytest_llmprune.graph.diff import differences
from pytest_llmprune.graph.expected import expected_groups
from pytest_llmprune.graph.heads import head_map_differences
from pytest_llmprune.graph.snapshot import dumps, fingerprint, groups_of, snapshot_of
from pytest_llmprune.graph.trace import trace
from pytest_llmprune.models.miniature import miniature


def _fail(found):
    if found:
        lines = "\n  ".join(found)
        pytest.fail(f"the graph is not what the architecture implies (implied -> traced):\n  {lines}", pytrace=False)


def _groups(graph, **arguments):
    with propagation_budget():
        return groups_of(graph, **arguments)


def _miniature(config, attention):
    try:
        return miniature(config, attention=attention)
    except ValueError as refusal:
        why = str(refusal).splitlines()[0][:80]
        pytest.skip(f"transformers has no {attention} attention for {config.model_type}: {why}")


def _miniature_graphs(config, attention):
    """(use_cache, graph) of the miniature, without and with a cache."""
    model = _miniature(config, attention)
    for use_cache in (False, True):
        with propagation_budget():
            yield use_cache, trace(model, use_cache=use_cache)


def test_groups_are_those_the_architecture_implies(llm_dense, llm_record, llm_progress):
    llm_progress("tracing the graph")
    started = time.perf_counter()
    with propagation_budget():
        graph = trace(llm_dense.model)
    traced = time.perf_counter()
    llm_progress("collecting its groups")
    groups = _groups(graph)
    llm_record.measure("trace_time", traced - started)
    llm_record.measure("group_time", time.perf_counter() - traced)
    llm_record.measure("groups", len(groups))
    llm_record.note(f"groups {fingerprint(groups)}")
    llm_record.keep_graph(dumps(snapshot_of(graph, llm_dense.spec.name, groups)))
    _fail(differences(expected_groups(llm_dense.model.config), groups))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_neither_cache_nor_attention_kind_changes_the_groups_of_the_miniature(
    llm_spec, llm_config, llm_fixes, llm_record, attention
):
    found = []
    for use_cache, graph in _miniature_graphs(llm_config, attention):
        groups = _groups(graph, every_root=True)
        name = f"miniature of {llm_spec.name}"
        llm_record.keep_graph(dumps(snapshot_of(graph, name, groups)), "cache" if use_cache else "no-cache")
        lines = differences(expected_groups(graph.model.config), groups)
        found += [f"{line} (use_cache={use_cache})" for line in lines]
    _fail(found)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_heads_of_the_miniature_go_with_the_heads_the_config_implies(
    llm_config, llm_spec, llm_fixes, llm_record, attention
):
    found = []
    for use_cache, graph in _miniature_graphs(llm_config, attention):
        with propagation_budget():
            lines = head_map_differences(graph)
        found += [f"{line} (use_cache={use_cache})" for line in lines]
    _fail(found)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_propagation_ends_in_a_graph_of_the_logits_of_the_miniature_with_a_cache(
    llm_config, llm_fixes, llm_record, attention
):
    model = _miniature(llm_config, attention)
    with propagation_budget():  # so torch-pruning's own example of pruning LLMs traces them
        graph = trace(model, use_cache=True, outputs=lambda output: output.logits)
        groups_of(graph, every_root=True)


def test_a_published_architecture_at_full_size_has_the_groups_it_implies(full_llama_graph, llm_record):
    groups = _groups(full_llama_graph)
    llm_record.note(f"groups {fingerprint(groups)}")
    llm_record.keep_graph(dumps(snapshot_of(full_llama_graph, llm_record.key.variant, groups)))
    _fail(differences(expected_groups(full_llama_graph.model.config), groups))


def test_a_model_without_a_traceable_output_is_refused(llm_fixes, llm_record):
    import torch
    import torch_pruning as tp

    class Detached(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(2, 2)

        def forward(self, x):
            return {"logits": self.linear(x).detach()}

    with pytest.raises((ValueError, AttributeError, UserError)):
        tp.DependencyGraph().build_dependency(Detached(), torch.ones(1, 2), verbose=False)
