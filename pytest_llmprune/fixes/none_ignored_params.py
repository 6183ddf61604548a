"""none-ignored-params: a DependencyGraph that was built without `ignored_params` makes no group:
"'NoneType' object is not iterable".

The argument's default None is kept and iterated. torch-pruning 1.5.3 keeps an empty list instead (pull request #466);
the fix does the same before.
"""

from __future__ import annotations

from .patch import Edit, Fix


def _probe() -> bool:
    import torch
    import torch_pruning as tp

    class Scaled(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(2, 2)
            self.scale = torch.nn.Parameter(torch.ones(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x) * self.scale

    model = Scaled()
    graph = tp.DependencyGraph().build_dependency(model, torch.ones(1, 2), verbose=False)
    try:
        graph.get_pruning_group(model.linear, tp.prune_linear_out_channels, [0])
    except TypeError:
        return True
    return False


FIX = Fix(
    id="none-ignored-params",
    symptom="get_pruning_group raises \"'NoneType' object is not iterable\" when ignored_params was not given",
    upstream=(466,),
    affected=("torch-pruning>=1.3.7", "torch-pruning<1.5.3"),
    probe=_probe,
    edits=(
        Edit(
            module="dependency.graph",
            function="DependencyGraph.build_dependency",
            fingerprints=("1d745f773d12", "3dbd52465f5d"),
            old="self.ignored_params = ignored_params",
            new="self.ignored_params = ignored_params if ignored_params is not None else []",
        ),
    ),
)
