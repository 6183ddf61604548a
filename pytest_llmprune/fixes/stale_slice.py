"""stale-slice: what was sliced in two and pruned once is pruned at the wrong places the second time.

When channels go, a slice is told which of its own go, and takes them for channels of what it is a slice of; of those
that go before it it never hears. The fix moves the bounds of every slice of a layer when that layer is pruned.
"""

from __future__ import annotations

from .patch import Addition, Edit, Fix

MOVE = '''
def move_slices(node, idxs):
    """Move the bounds of the slices of a node's output, of which the channels `idxs` go."""
    for consumer in node.outputs:
        if consumer.type == ops.OPTYPE.SLICE:
            module, gone = consumer.module, _helpers.to_plain_idxs(idxs)
            module.start, module.end = (b - sum(i < b for i in gone) for b in (module.start, module.end))
'''


def _probe() -> bool:
    import torch

    from . import toys

    class Sliced(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.whole, self.first, self.last = torch.nn.Linear(2, 5), torch.nn.Linear(3, 2), torch.nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.whole(x)
            return self.first(x[..., : self.first.in_features]) + self.last(x[..., self.first.in_features :])

    model = Sliced()
    graph = toys.traced(model, torch.ones(1, 2, 2))
    toys.group_of(graph, model.whole, [0]).prune()
    again = toys.group_of(graph, model.whole, [2])
    return {0} not in [set(idxs) for dep, idxs in again if dep.target.module is model.last]


FIX = Fix(
    id="stale-slice",
    symptom="a layer whose output is sliced, and that is pruned a second time, loses channels of the wrong slice",
    upstream=(),
    affected=("torch-pruning>=1.2.5",),
    probe=_probe,
    requires=("slice-bounds",),
    additions=(Addition("dependency.group", MOVE),),
    edits=(
        Edit(
            module="dependency.group",
            function="Group.prune",
            fingerprints=("f8a6ded93344",),
            old="""
            if dep.target.type == ops.OPTYPE.PARAMETER: # for nn.Parameter, we will craft a new nn.Parameter and have to update all depdencies
            """,
            new="""
            if self._DG.is_out_channel_pruning_fn(dep.handler):
                move_slices(dep.target, idxs)
            if dep.target.type == ops.OPTYPE.PARAMETER: # for nn.Parameter, we will craft a new nn.Parameter and have to update all depdencies
            """,
        ),
        Edit(
            module="ops",
            function="SlicePruner.prune_out_channels",
            fingerprints=("8244a2caf1c0",),
            old="""
            for i in idxs:
                if i < layer.start:
                    offset_start += 1
                    offset_end += 1
                elif i >= layer.start and i < layer.end:
                    offset_end += layer.step
            """,
            new="""
            # its bounds are moved with the layer that it is a slice of
            """,
        ),
    ),
)
