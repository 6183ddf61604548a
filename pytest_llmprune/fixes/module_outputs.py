"""module-outputs: tracing breaks at a layer that returns anything but one tensor, or loses the layer without a word.

The hook that ties a layer to autograd's graph takes `.grad_fn` of the output, or of its first element. A dictionary or a
None in front raises; of an LSTM whose last state is used, not its outputs, nothing is left in the graph, and the
channels before and behind it are joined. The fix lets a layer stand for every tensor that it made. If those are
several, it also stands for what lies between its inputs and them: outputs and states of an LSTM lead through each
other, and past each other to what was before.
"""

from __future__ import annotations

from .patch import Addition, Edit, Fix

RECORD = '''
def _record_module(module, inputs, outputs, gradfn2module, edges_within):
    """Let one call of a module stand for the grad_fns of its outputs, and for all between its inputs and several."""
    given = {tensor.grad_fn for tensor in _tensors_with_history(inputs)}
    stack = [tensor.grad_fn for tensor in _tensors_with_history(outputs) if tensor.grad_fn not in given]
    within = set(stack)
    while len(within) > 1 and stack:
        grad_fn = stack.pop()
        for source, _ in grad_fn.next_functions:
            if source is None or not source.next_functions or source in given or source in gradfn2module:
                continue  # a leaf, or the outside
            edges_within.add((grad_fn, source))
            if source not in within:
                within.add(source)
                stack.append(source)
    gradfn2module.update(dict.fromkeys(within, module))
'''


def _probe() -> bool:
    import torch

    from . import toys

    class LastState(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.embed = torch.nn.Linear(2, 3)
            self.lstm = torch.nn.LSTM(3, 4, batch_first=True)
            self.head = torch.nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            _, (state, _) = self.lstm(self.embed(x))
            return self.head(state[-1])

    model = LastState()
    graph = toys.traced(model, torch.ones(1, 2, 2))
    return model.lstm not in graph.module2node


TRACE = ("f48181597e01", "47fd51d97970", "a9621816229d")

FIX = Fix(
    id="module-outputs",
    symptom="tracing raises at a layer that returns a dict or None first, or an LSTM whose last state is used goes missing",
    upstream=(),
    affected=("torch-pruning>=1.2.5",),
    probe=_probe,
    requires=("nested-outputs",),
    additions=(Addition("dependency.graph", RECORD),),
    edits=(
        Edit(
            module="dependency.graph",
            function="DependencyGraph._trace",
            fingerprints=TRACE,
            old="""
            def _record_grad_fn(module, inputs, outputs):
            """,
            new="""
            self._edges_within = set() # edges of autograd's graph that lie within one call of a module
            def _record_grad_fn(module, inputs, keywords, outputs):
            """,
        ),
        Edit(
            module="dependency.graph",
            function="DependencyGraph._trace",
            fingerprints=TRACE,
            old="""
            if isinstance(module, nn.Linear) and len(outputs.shape)==3:
                self._2d_4d=False

            if isinstance(outputs, tuple):
                outputs = outputs[0]
            if isinstance(outputs, torch.nn.utils.rnn.PackedSequence):
                outputs = outputs.data

            gradfn2module[outputs.grad_fn] = module
            """,
            new="""
            if isinstance(module, nn.Linear) and any(len(o.shape)==3 for o in _tensors_with_history(outputs)):
                self._2d_4d=False

            _record_module(module, (inputs, keywords), outputs, gradfn2module, self._edges_within)
            """,
        ),
        Edit(
            module="dependency.graph",
            function="DependencyGraph._trace",
            fingerprints=TRACE,
            old="""
            m.register_forward_hook(_record_grad_fn)
            """,
            new="""
            m.register_forward_hook(_record_grad_fn, with_kwargs=True)
            """,
        ),
        Edit(
            module="dependency.graph",
            function="DependencyGraph._trace_computational_graph",
            fingerprints=("0cc728028063", "0fb447765829", "40f560b4daf9", "9581b791e14d"),
            old="""
            node.add_input(input_node)
            input_node.add_output(node)
            """,
            new="""
            if (grad_fn, f[0]) not in self._edges_within:
                node.add_input(input_node)
                input_node.add_output(node)
            """,
        ),
    ),
)
