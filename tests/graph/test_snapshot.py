"""A snapshot says what a graph's groups are, and the expected structure says what they must be."""

from __future__ import annotations

import pytest

from pytest_llmprune import fixes
from pytest_llmprune.graph.expected import differences, expected_groups
from pytest_llmprune.graph.snapshot import GroupSnapshot, fingerprint, groups_of
from pytest_llmprune.graph.trace import trace


@pytest.fixture(scope="module", autouse=True)
def _fixed():
    with fixes.applied():
        yield


def _groups(model):
    return groups_of(trace(model), ignored=(model.lm_head,), every_root=True)


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (8, 2), (9, 3), (4, 1)])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_llama_has_the_groups_its_config_implies(llama, heads, kv_heads, attention):
    model = llama(heads, kv_heads, attention)
    assert list(differences(expected_groups(model.config), _groups(model))) == []


def test_equal_models_have_equal_fingerprints_and_others_do_not(llama):
    assert fingerprint(_groups(llama(4, 2))) == fingerprint(_groups(llama(4, 2, "sdpa", seed=1)))
    assert fingerprint(_groups(llama(4, 2))) != fingerprint(_groups(llama(4, 4)))


def test_a_difference_names_layer_and_member(llama):
    model = llama(4, 2)
    groups = _groups(model)
    broken = tuple(
        GroupSnapshot(tuple(m for m in g.members if m.name != "model.layers.1.self_attn.v_proj" or m.side == "in"))
        for g in groups
    )
    found = list(differences(expected_groups(model.config), broken))
    assert found == ["layer 1 attention: model.layers.1.self_attn.v_proj.out is missing from the group"]


def test_a_group_that_should_not_be_is_named(llama):
    model = llama(4, 2)
    groups = _groups(model)
    extra = GroupSnapshot(groups[0].members[:1])
    assert any("does not imply" in line for line in differences(expected_groups(model.config), (*groups, extra)))
