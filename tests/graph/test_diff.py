"""Every difference between two sets of groups is told, in the words of the model."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmprune.graph.diff import differences, other_model
from pytest_llmprune.graph.snapshot import GroupSnapshot, Member


def test_equal_groups_have_no_difference(snapshot):
    assert differences(snapshot.groups, tuple(reversed(snapshot.groups))) == []


def test_a_missing_member_is_named(snapshot, planted, without):
    found = planted(snapshot.groups, without("layers.7.self_attn.v_proj", "out"))
    assert differences(snapshot.groups, found, " in B") == ["layer 7 attention: v_proj.out is missing in B"]
    assert differences(snapshot.groups, found) == ["layer 7 attention: v_proj.out is missing"]
    assert differences(found, snapshot.groups, " in B") == ["layer 7 attention: v_proj.out is new in B"]


def test_equal_differences_are_folded_over_layers(snapshot, planted, without):
    found = planted(snapshot.groups, without("self_attn.v_proj", "out"))
    assert differences(snapshot.groups, found, " in B") == ["layers 0-11 attention: v_proj.out is missing in B"]
    found = planted(snapshot.groups, lambda m: None if ".input_layernorm" in m.name and "s.3." not in m.name else m)
    assert differences(snapshot.groups, found) == ["residual, layers 0-2, 4-11: input_layernorm is missing"]


def test_other_channels_are_told_with_their_number(snapshot, planted, with_values):
    found = planted(snapshot.groups, with_values("layers.3.mlp.up_proj", "out", channels=80))
    assert differences(snapshot.groups, found, " in B") == ["layer 3 FFN: up_proj.out 96 -> 80 channels"]


def test_another_index_map_is_told(snapshot, planted, with_values):
    found = planted(snapshot.groups, with_values("layers.0.self_attn.k_proj", "out", index_map="shifted"))
    assert differences(snapshot.groups, found) == ["layer 0 attention: other channels of k_proj.out (index map)"]


def test_a_member_in_another_group_is_told_with_the_group(snapshot):
    attention, ffn = (
        next(group for group in snapshot.groups if (f"model.layers.5.{name}", "out") in group.keys)
        for name in ("self_attn.k_proj", "mlp.up_proj")
    )
    k = next(member for member in attention.members if member.name.endswith("k_proj"))
    others = [group for group in snapshot.groups if group not in (attention, ffn)]
    rest = GroupSnapshot(tuple(member for member in attention.members if member is not k))
    with_k = GroupSnapshot(tuple(sorted((*ffn.members, k))))
    alone = GroupSnapshot((k,))
    both = GroupSnapshot(tuple(sorted((*ffn.members, *attention.members))))

    def found(*groups):
        return differences(snapshot.groups, (*others, *groups), " in B")

    assert found(rest, with_k) == [
        "layer 5 attention: k_proj.out is in the FFN group in B, with down_proj.in, gate_proj.out, up_proj.out"
    ]
    assert found(rest, ffn, alone) == ["layer 5 attention: k_proj.out is in a group of its own in B"]
    assert found(attention, with_k) == ["layer 5 FFN: k_proj.out of the attention group is here too in B"]
    assert found(attention, ffn, alone) == ["layer 5 attention: one group too many in B: k_proj.out"]
    few = differences((*snapshot.groups, alone), snapshot.groups, " in B")
    assert few == ["layer 5 attention: one group too few in B: k_proj.out"]
    assert found(both) == ["layer 5 FFN: one group with the attention group in B"]
    assert found(ffn) == ["layer 5 attention: all of it is missing in B"]


def test_a_residual_group_in_two_is_told_once(snapshot):
    residual = max(snapshot.groups, key=lambda group: len(group.members))
    late = {m for m in residual.members if m.name.startswith(("model.layers.10.", "model.layers.11."))}
    parts = [GroupSnapshot(tuple(sorted(part))) for part in (late, set(residual.members) - late)]
    found = differences(snapshot.groups, [*(group for group in snapshot.groups if group is not residual), *parts])
    assert found == [
        "residual, layers 10, 11: input_layernorm, down_proj.out, gate_proj.in and 6 more are in a group of their own"
    ]


def test_models_that_differ_are_told_by_what_differs(snapshot):
    deeper = dataclasses.replace(snapshot, model=dataclasses.replace(snapshot.model, layers=13, tied=True))
    assert other_model(snapshot, snapshot) == ""
    assert other_model(snapshot, deeper) == "layers 12 and 13, tied False and True"


_KEYS = [
    (f"model.layers.{n}.{path}", side)
    for n in "01"
    for path in ("self_attn.q_proj", "mlp.up_proj")
    for side in ("in", "out")
]
_GROUPS = st.lists(
    st.lists(
        st.builds(
            lambda key, channels, index_map: Member(*key, channels, index_map),
            st.sampled_from(_KEYS),
            st.sampled_from((4, 8)),
            st.sampled_from("ab"),
        ),
        min_size=1,
        max_size=4,
        unique_by=lambda member: member.key,
    ).map(lambda members: GroupSnapshot(tuple(sorted(members)))),
    max_size=4,
    unique_by=lambda group: group.keys,
)


@given(_GROUPS, _GROUPS, st.data())
@pytest.mark.parametrize("where", ["", " in B"])
def test_groups_are_told_apart_exactly_if_they_are_not_equal(where, wanted, found, data):
    found = data.draw(st.one_of(st.just(found), st.permutations(wanted), st.just(wanted[1:]), st.just(wanted + found)))
    if len({group.keys for group in found}) == len(found):
        by_members = [sorted(groups, key=lambda group: group.members) for groups in (wanted, found)]
        assert (differences(wanted, found, where) == []) == (by_members[0] == by_members[1])
