"""split-order: the parts of a split are told apart by the order in which tracing meets them, not by their numbers.

Tracing goes backward and meets the last part first, meets a part twice that is used twice, and never meets one that is
not used. Channels of one part are then pruned for another. Autograd says with each edge which output it comes from;
the fix keeps that number. It also reads the sizes and the axis of a split into parts of one size from autograd, as
torch-pruning does of other splits, instead of guessing them from who reads the parts.
"""

from __future__ import annotations

from .patch import Addition, Edit, Fix

SIZES = '''
def sizes_of_split(grad_fn):
    """The sizes of the parts of a split into parts of one size, the last of which may be smaller."""
    shape, size, dim = grad_fn._saved_self_sym_sizes, grad_fn._saved_split_size, grad_fn._saved_dim
    total = shape[dim - 2**64 if dim >= 2**63 else dim]
    return [min(size, total - start) for start in range(0, total, size)]
'''


def _probe() -> bool:
    import torch

    from . import toys

    class Split(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.whole = torch.nn.Linear(2, 5)
            self.first, self.second = torch.nn.Linear(2, 2), torch.nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            first, second = self.whole(x).split([2, 3], dim=1)
            return self.first(first) + self.second(second)

    model = Split()
    group = toys.group_of(toys.traced(model, torch.ones(1, 2)), model.whole, [0])
    return model.first not in [dep.target.module for dep, _ in group]


FIX = Fix(
    id="split-order",
    symptom="the channels of one part of a split are pruned for another part",
    upstream=(),
    affected=("torch-pruning>=1.2.5",),
    probe=_probe,
    requires=("unsigned-dim",),
    additions=(Addition("dependency.shape_infer", SIZES),),
    edits=(
        Edit(
            module="dependency.graph",
            function="DependencyGraph._trace_computational_graph",
            fingerprints=("0cc728028063", "0fb447765829"),
            old="""
            input_node.add_output(node)
            """,
            new="""
            input_node.add_output(node)
            input_node.__dict__.setdefault("output_numbers", []).append(f[1])
            """,
        ),
        Edit(
            module="dependency.index_mapping",
            function="update_split_index_mapping",
            fingerprints=("bd760bec4b7b", "78c35e188fc9"),
            old="""
            for i, out_node in enumerate(split_node.outputs):
                for dep in split_node.dependencies:
            """,
            new="""
            for i, out_node in zip(split_node.output_numbers, split_node.outputs):
                for dep in split_node.dependencies:
            """,
        ),
        Edit(
            module="dependency.index_mapping",
            function="update_split_index_mapping",
            fingerprints=("bd760bec4b7b", "78c35e188fc9"),
            old="""
            for i, out_node in enumerate(split_node.outputs):
                for dep in out_node.dependencies:
            """,
            new="""
            for i, out_node in zip(split_node.output_numbers, split_node.outputs):
                for dep in out_node.dependencies:
            """,
        ),
        Edit(
            module="dependency.shape_infer",
            function="init_shape_information",
            fingerprints=("b0fdb57f8cdc", "b838a0b521a0"),
            old="chs = [grad_fn._saved_split_size for _ in range(len(node.outputs))]",
            new="chs = sizes_of_split(grad_fn)",
        ),
        Edit(
            module="dependency.shape_infer",
            function="init_shape_information",
            fingerprints=("b0fdb57f8cdc", "b838a0b521a0"),
            old="if hasattr(grad_fn, '_saved_self_sizes') or hasattr(grad_fn, '_saved_split_sizes'):",
            new="if hasattr(grad_fn, '_saved_split_size') or hasattr(grad_fn, '_saved_split_sizes'):",
        ),
        Edit(
            module="dependency.shape_infer",
            function="infer_out_channels_recursively",
            fingerprints=("c93012b9654d", "609c0aeed0f9"),
            old="for i, split_out_node in enumerate(in_node.outputs):",
            new="for i, split_out_node in zip(in_node.output_numbers, in_node.outputs):",
        ),
        Edit(
            module="dependency.shape_infer",
            function="infer_channels_between",
            fingerprints=("d92a9594786a", "6b49a15afbd3"),
            old="if node_1.type == ops.OPTYPE.SPLIT:",
            new="if node_1.type == ops.OPTYPE.SPLIT and node_1.module.split_sizes is not None:",
        ),
        Edit(
            module="dependency.shape_infer",
            function="infer_channels_between",
            fingerprints=("d92a9594786a", "6b49a15afbd3"),
            old="for i, n in enumerate(node_1.outputs):",
            new="for i, n in zip(node_1.output_numbers, node_1.outputs):",
        ),
    ),
)
