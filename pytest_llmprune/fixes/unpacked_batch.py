"""unpacked-batch: traced with a tensor of batch 1, a model is called without the batch's axis.

Example inputs are unpacked, and given whole only if that raises. A tensor of batch 1 unpacks to its one row, which most
models take: what was [1, time, channels] is [time, channels], and an operation on time looks like one on channels. What
was called before an error counts as called twice. The fix unpacks no tensor.
"""

from __future__ import annotations

from .patch import Edit, Fix


def _probe() -> bool:
    import torch

    from . import toys

    class Axes(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.axes = x.dim()
            return self.linear(x)

    model = Axes()
    toys.traced(model, torch.ones(1, 3, 2))
    return bool(model.axes != 3)


FIX = Fix(
    id="unpacked-batch",
    symptom="traced with a tensor of batch 1 a model is called without the batch's axis, and time is taken for channels",
    upstream=(),
    affected=("torch-pruning>=1.2.5",),
    probe=_probe,
    edits=(
        Edit(
            module="dependency.graph",
            function="DependencyGraph._trace",
            fingerprints=("f48181597e01", "47fd51d97970", "a9621816229d", "7c2744d12e20", "2520e0074b15"),
            old="""
            else:
                try:
                    out = model(*example_inputs)
            """,
            new="""
            elif isinstance(example_inputs, torch.Tensor):
                out = model(example_inputs) # unpacked, a batch of one would lose its axis
            else:
                try:
                    out = model(*example_inputs)
            """,
        ),
    ),
)
