"""What the tests of graphs share."""

from __future__ import annotations

import dataclasses

import pytest

from pytest_llmprune import fixes
from pytest_llmprune.graph.snapshot import GroupSnapshot, groups_of, snapshot_of
from pytest_llmprune.graph.trace import trace


@pytest.fixture(scope="session")
def snapshot(llama):
    """The snapshot of a healthy Llama with 12 layers, 4 query heads on 2 kv heads."""
    with fixes.applied():
        graph = trace(llama(4, 2, layers=12))
        return snapshot_of(graph, "small", groups_of(graph))


@pytest.fixture(scope="session")
def planted():
    """`planted(groups, change)`: the groups with `change(member)` in place of every member; None drops it."""

    def plant(groups, change):
        changed = (tuple(sorted(filter(None, map(change, group.members)))) for group in groups)
        return tuple(GroupSnapshot(members) for members in changed if members)

    return plant


@pytest.fixture(scope="session")
def without():
    """`without(ending, side)`: a change for `planted` that drops the members whose name ends so."""
    return lambda ending, side: lambda m: None if m.side == side and m.name.endswith(ending) else m


@pytest.fixture(scope="session")
def with_values():
    """`with_values(ending, side, channels=80)`: a change for `planted` that gives the members so named other values."""
    return lambda ending, side, **values: (
        lambda m: dataclasses.replace(m, **values) if m.side == side and m.name.endswith(ending) else m
    )
