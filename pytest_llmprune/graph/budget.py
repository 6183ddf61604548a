"""A guard on torch-pruning's propagation: a hang becomes a result, with the cycle that repeats and the indices that
grow.

A healthy group visits each edge of the graph a few times (an attention group takes about a hundred steps); a runaway
takes thousands and never ends. Every step's indices are held against the width of the layer they are meant for, and the
steps against a budget scaled by the graph's edges. No clock is involved, so the verdict is the same on every machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import CheckFailed

STEPS_PER_EDGE = 6
MINIMUM_STEPS = 600
CYCLE_SHOWN = 8


class RunawayPropagation(CheckFailed):
    """Propagation left a layer's width or its step budget. The message names the root, the steps, the cycle and the
    indices.
    """


@contextmanager
def propagation_budget(steps_per_edge: int = STEPS_PER_EDGE) -> Iterator[None]:
    """Within the block, `DependencyGraph.get_pruning_group` raises RunawayPropagation where it would run away.

    Works by wrapping `get_pruning_group` and `Group.add_dep`, which every torch-pruning since 1.2.5 calls once per
    step; both are put back.
    """
    import torch_pruning as tp

    graph_class, group_class = tp.DependencyGraph, tp.Group
    get_pruning_group, add_dep = graph_class.get_pruning_group, group_class.add_dep
    budgets: list[_Budget] = []

    def guarded_get(graph: Any, *args: Any, **kwargs: Any) -> Any:
        budgets.append(_Budget(graph, steps_per_edge))
        try:
            return get_pruning_group(graph, *args, **kwargs)
        finally:
            budgets.pop()

    def guarded_add(group: Any, dep: Any, idxs: Any) -> None:
        add_dep(group, dep, idxs)
        if budgets:
            budgets[-1].check(group)

    graph_class.get_pruning_group, group_class.add_dep = guarded_get, guarded_add
    try:
        yield
    finally:
        graph_class.get_pruning_group, group_class.add_dep = get_pruning_group, add_dep


class _Budget:
    def __init__(self, graph: Any, steps_per_edge: int) -> None:
        self.graph = graph
        self.steps_per_edge = steps_per_edge
        self.steps: int | None = None  # counted when a group is large: most are not
        self.ranges: dict[int, tuple[Any, int, int]] = {}  # by id: steps that change no index share one list

    def check(self, group: Any) -> None:
        items = group.items
        dep, idxs = items[-1]
        if len(items) > MINIMUM_STEPS and len(items) > self._limit():
            raise RunawayPropagation(
                f"propagation from {_label(items[0][0])} took more than {self.steps:,} steps\n{_report(items)}"
            )
        width = self._width(dep)
        if width is not None and idxs:
            smallest, largest = self._range(idxs)
            wrong = largest if largest >= width else smallest
            if not 0 <= wrong < width:
                raise RunawayPropagation(
                    f"propagation from {_label(items[0][0])} reached index {wrong} of {_label(dep)},"
                    f" which is {width} wide,"
                    f" after {len(items):,} steps\n{_report(items)}"
                )

    def _limit(self) -> int:
        if self.steps is None:
            self.steps = self.steps_per_edge * sum(len(node.dependencies) for node in self.graph.module2node.values())
        return self.steps

    def _range(self, idxs: Any) -> tuple[int, int]:
        if id(idxs) not in self.ranges:
            from torch_pruning._helpers import to_plain_idxs

            indices = to_plain_idxs(idxs)
            self.ranges[id(idxs)] = (idxs, min(indices), max(indices))
        return self.ranges[id(idxs)][1:]

    def _width(self, dep: Any) -> int | None:
        import torch

        if not isinstance(dep.target.module, (torch.nn.Linear, torch.nn.Embedding)):
            return None
        out = self.graph.is_out_channel_pruning_fn(dep.handler)
        width: int | None = (self.graph.get_out_channels if out else self.graph.get_in_channels)(dep.target)
        return width


def _label(dep: Any) -> str:
    node = dep.target
    operation = node.grad_fn.name() if hasattr(node.grad_fn, "name") else type(node.module).__name__
    name = getattr(node, "_name", None) or operation
    return f"{name}.{'out' if 'out' in dep.handler.__name__ else 'in'}"


def _report(items: list[Any]) -> str:
    """The shortest run of layers that repeats at the end of the steps, and the range of indices at each round of it."""
    labels = [_label(dep) for dep, _ in items]
    period = _period(labels)
    if period is None:
        return "last steps: " + " -> ".join(labels[-CYCLE_SHOWN:])
    cycle = labels[-period:]
    shown = cycle if period <= CYCLE_SHOWN else [*cycle[: CYCLE_SHOWN - 1], f"... {period - CYCLE_SHOWN + 1} more"]
    rounds = [max((getattr(i, "idx", i) for i in idxs), default=0) for _, idxs in items[-1::-period][:5]]
    growth = ", ".join(f"{index:,}" for index in reversed(rounds))
    return f"the cycle that repeats: {' -> '.join(shown)} -> ...; its largest index, round by round: {growth}"


def _period(labels: list[str]) -> int | None:
    for period in range(1, len(labels) // 2 + 1):
        if labels[-period:] == labels[-2 * period : -period]:
            return period
    return None
