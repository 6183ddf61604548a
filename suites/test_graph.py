"""Does torch-pruning couple the channels that the architecture couples?"""

from __future__ import annotations

import time

import pytest

from pytest_llmprune.errors import UserError
from pytest_llmprune.graph.budget import propagation_budget
from pytest_llmprune.graph.expected import differences, expected_groups
from pytest_llmprune.graph.snapshot import fingerprint, groups_of
from pytest_llmprune.graph.trace import trace
from pytest_llmprune.models.load import load_config
from pytest_llmprune.models.miniature import miniature


def _groups(graph, **arguments):
    with propagation_budget():
        return groups_of(graph, ignored=(graph.model.get_output_embeddings(),), **arguments)


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

    found = list(differences(expected_groups(llm_dense.model.config), groups))
    if found:
        pytest.fail("the graph is not what the architecture implies:\n  " + "\n  ".join(found), pytrace=False)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_neither_cache_nor_attention_kind_changes_the_groups_of_the_miniature(
    llm_spec, llm_fixes, llm_record, attention
):
    config = load_config(llm_spec)
    try:
        model = miniature(config, attention=attention)
    except ValueError as refusal:
        pytest.skip(
            f"transformers has no {attention} attention for {config.model_type}: {str(refusal).splitlines()[0][:80]}"
        )
    expected = expected_groups(model.config)
    found = []
    for use_cache in (False, True):
        with propagation_budget():
            graph = trace(model, use_cache=use_cache)
        found += [f"{line} (use_cache={use_cache})" for line in differences(expected, _groups(graph, every_root=True))]
    if found:
        pytest.fail("the graph is not what the architecture implies:\n  " + "\n  ".join(found), pytrace=False)


def test_a_published_architecture_at_full_size_has_the_groups_it_implies(full_llama_graph, llm_record):
    groups = _groups(full_llama_graph)
    llm_record.note(f"groups {fingerprint(groups)}")
    found = list(differences(expected_groups(full_llama_graph.model.config), groups))
    if found:
        pytest.fail("the graph is not what the architecture implies:\n  " + "\n  ".join(found), pytrace=False)


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
