"""stale-split: what was split in two and pruned once is pruned at the wrong places the second time.

After pruning, the split's new offsets are stored with the pruner, which nobody reads, instead of with the operation. A
fused projection (gate_up_proj of Phi-3) then loses other channels of one half than of the other in iterative pruning.
"""

from __future__ import annotations

from .patch import Edit, Fix


def _probe() -> bool:
    import torch

    from . import toys

    class Fused(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.gate_up, self.down = torch.nn.Linear(2, 8), torch.nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            gate, up = self.gate_up(x).chunk(2, dim=1)
            return self.down(gate * up)

    model = Fused()
    graph = toys.traced(model, torch.ones(1, 2))
    toys.group_of(graph, model.down, [0], out=False).prune()
    again = toys.group_of(graph, model.down, [0], out=False)
    return {0, 3} not in [set(idxs) for dep, idxs in again if dep.target.module is model.gate_up]


FIX = Fix(
    id="stale-split",
    symptom="a fused projection (gate_up_proj) that is pruned a second time loses the wrong channels of its second half",
    upstream=(),
    affected=("torch-pruning>=1.2.5",),
    probe=_probe,
    edits=(
        Edit(
            module="ops",
            function="SplitPruner.prune_out_channels",
            fingerprints=("08ab86f00d64",),
            old="self.offsets = offsets",
            new="layer.offsets = offsets",
        ),
    ),
)
