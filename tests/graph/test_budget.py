"""A runaway propagation ends in a report, and a healthy one is left alone."""

from __future__ import annotations

import pytest

from pytest_llmprune import fixes
from pytest_llmprune.fixes import toys
from pytest_llmprune.graph.budget import RunawayPropagation, propagation_budget
from pytest_llmprune.graph.trace import trace
from pytest_llmprune.torch_pruning_api import in_channels


@pytest.fixture(autouse=True)
def _unpatched():
    fixes.undo()
    yield
    fixes.undo()


def _everything(model, **arguments):
    """The attention group of a toy, without the step limit that toys have of their own."""
    graph = toys.graph_of(model, **arguments)
    o_proj = model.model.layers[0].self_attn.o_proj
    return graph.get_pruning_group(o_proj, in_channels(), list(range(o_proj.in_features)))


def test_a_runaway_is_reported_with_its_cycle_and_growing_indices():
    with pytest.raises(RunawayPropagation) as caught, propagation_budget():
        _everything(toys.llama(heads=4, kv_heads=2))
    message = str(caught.value)
    assert "model.layers.0.self_attn.o_proj.in" in message
    assert "the cycle that repeats: " in message
    growth = [int(n.replace(",", "")) for n in message.split("round by round: ")[1].split(", ")]
    assert growth == sorted(growth)
    assert growth[0] < growth[-1]


def test_a_cache_runs_away_without_the_fix_and_not_with_it():
    model = toys.llama(heads=4, kv_heads=4)
    with pytest.raises(RunawayPropagation), propagation_budget():
        _everything(model, use_cache=True)
    with fixes.applied(), propagation_budget():
        reached = {dep.target.module for dep, _ in _everything(model, use_cache=True)}
    attention = model.model.layers[0].self_attn
    assert {attention.q_proj, attention.k_proj, attention.v_proj} <= reached


def test_an_index_outside_its_layer_is_reported():
    model = toys.llama(heads=4, kv_heads=4)
    with fixes.applied(), propagation_budget():
        graph = trace(model)
        with pytest.raises(RunawayPropagation, match=r"reached index 16 of .*q_proj.out, which is 16 wide"):
            toys.touched(graph, model.model.layers[0].self_attn.q_proj, [16])


def test_the_guard_is_taken_off_again():
    import torch_pruning as tp

    before = tp.DependencyGraph.get_pruning_group, tp.Group.add_dep
    with propagation_budget():
        assert tp.Group.add_dep is not before[1]
    assert (tp.DependencyGraph.get_pruning_group, tp.Group.add_dep) == before


def test_the_deepest_healthy_graph_stays_within_the_budget(llama):
    with fixes.applied(), propagation_budget():
        model = llama(8, 4, layers=12)
        graph = trace(model)
        down = model.model.layers[0].mlp.down_proj
        assert "embed_tokens" in toys.touched(graph, down, list(range(down.out_features)))
