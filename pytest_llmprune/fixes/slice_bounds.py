"""slice-bounds: a slice counted from the end is mapped to channels that do not exist.

Autograd stores a negative bound of a slice as the unsigned 2**64 - n, and torch-pruning reckons with that: the channels
of `x[..., -2:]` get indices near 2**64, those of `x[..., :-2]` are taken to the end. The fix reads the bounds as signed and
counts them from the start.
"""

from __future__ import annotations

from .patch import Addition, Edit, Fix

BOUNDS = '''
def bounds_of_slice(grad_fn):
    """Where a slice starts and ends, counted from the start."""
    size = grad_fn._saved_self_sym_sizes[grad_fn._saved_dim]
    start, end = (bound - 2**64 if bound >= 2**63 else bound for bound in (grad_fn._saved_start, grad_fn._saved_end))
    return slice(start, end).indices(size)[:2]
'''


def _probe() -> bool:
    import torch

    from . import toys

    class Sliced(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.whole, self.last = torch.nn.Linear(2, 4), torch.nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.whole(x)[..., -2:])

    model = Sliced()
    group = toys.group_of(toys.traced(model, torch.ones(1, 2, 2)), model.whole, [2])
    return {0} not in [set(idxs) for dep, idxs in group if dep.target.module is model.last]


FIX = Fix(
    id="slice-bounds",
    symptom="a slice counted from the end (x[..., -n:]) couples the wrong channels, or some that do not exist",
    upstream=(),
    affected=("torch-pruning>=1.2.5",),
    probe=_probe,
    additions=(Addition("ops", BOUNDS),),
    edits=(
        Edit(
            module="ops",
            function="_SliceOp.__init__",
            fingerprints=("d5a4967ff62f",),
            old="""
            self.start = grad_fn._saved_start
            self.end = grad_fn._saved_end
            """,
            new="""
            self.start, self.end = bounds_of_slice(grad_fn)
            """,
        ),
    ),
)
