"""nested-outputs: a model whose output is not tensors all the way down can't be traced.

`flatten_as_list` hands back whatever is no list, tuple or dict, and its caller iterates that (a DynamicCache yields
tuples) and takes `.grad_fn` of whatever comes. The fix collects the tensors that autograd knows from containers and
plain holders of attributes, latest first: a tensor that another output was computed from must not be taken for the
model's end. A model without such a tensor is refused, where upstream returned an empty graph.
"""

from __future__ import annotations

from .patch import Addition, Edit, Fix

COLLECT = '''
def _tensors_with_history(output):
    """Every tensor in `output` that has a grad_fn, however it is nested, the one computed last first."""
    import dataclasses
    from collections.abc import Iterable, Mapping

    tensors, seen, stack = [], {}, [output]
    while stack:
        item = stack.pop()
        if id(item) in seen or isinstance(item, (str, bytes, Number, type, nn.Module, torch.Size)):
            continue
        seen[id(item)] = item  # kept alive, so that no later object can take its id
        if isinstance(item, torch.Tensor):
            if item.grad_fn is not None:
                tensors.append(item)
        elif isinstance(item, Mapping):
            stack.extend(item.values())
        elif dataclasses.is_dataclass(item):
            stack.extend(getattr(item, field.name) for field in dataclasses.fields(item))
        elif getattr(item, "__dict__", None):
            stack.extend(vars(item).values())
        elif isinstance(item, Iterable):
            stack.extend(item)
    return sorted(tensors, key=lambda tensor: tensor.grad_fn._sequence_nr(), reverse=True)
'''


def _probe() -> bool:
    import torch
    import torch_pruning as tp

    class Nested(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, None]]:
            return self.linear(x), {"cache": None}

    try:
        tp.DependencyGraph().build_dependency(Nested(), torch.ones(1, 2), verbose=False)
    except (AttributeError, TypeError):
        return True
    return False


FIX = Fix(
    id="nested-outputs",
    symptom="tracing raises \"'tuple' object has no attribute 'grad_fn'\" for a model that returns a cache, a dataclass or None",
    upstream=(455, 461, 467),
    affected=("torch-pruning>=1.2.5",),
    probe=_probe,
    additions=(Addition("dependency.graph", COLLECT),),
    edits=(
        Edit(
            module="dependency.graph",
            function="DependencyGraph._trace",
            fingerprints=("f48181597e01", "47fd51d97970", "a9621816229d"),
            old="""
            for o in utils.flatten_as_list(out):
            """,
            new="""
            outputs = _tensors_with_history(out)
            if len(outputs) == 0:
                raise ValueError("no tensor in the model's output has a grad_fn: there is nothing to trace")
            for o in outputs:
            """,
        ),
    ),
)
