"""qk-norm: the norm that Qwen3 applies to every head of q and k is taken for a norm over all their channels, so heads
are never pruned.

A parameter over the last axis of a [batch, time, heads, head size] view has as many entries as a head, not as there are
channels. The fix unlinks, before dependencies are built, a one-dimensional parameter from an operation on heads whose
channels come from a Linear layer of another width.
"""

from __future__ import annotations

from .patch import Addition, Edit, Fix

UNLINK = '''
def _unlink_parameters_of_other_axes(module2node):
    """Drop one-dimensional parameters whose length is not the number of channels that they are combined with."""
    for parameter, node in list(module2node.items()):
        if node.type != ops.OPTYPE.PARAMETER or parameter.dim() != 1:
            continue
        for consumer in list(node.outputs):
            if len(consumer.grad_fn._input_metadata[0].shape) <= 3: # no heads of their own: the last axis has the channels
                continue
            last = consumer
            while len(last.inputs) == 1 and len(last.outputs) == 1: # a cast, or gemma's 1 + weight
                last = last.outputs[0]
            queue, seen, width = [n for n in last.inputs if n.type != ops.OPTYPE.PARAMETER], {node, consumer}, None
            while queue and width is None:
                source = queue.pop(0)
                if source.type == ops.OPTYPE.LINEAR:
                    width = source.module.out_features
                elif source not in seen:
                    seen.add(source)
                    queue.extend(source.inputs)
            if width is not None and width != len(parameter):
                consumer.inputs.remove(node)
                node.outputs.remove(consumer)
        if len(node.outputs) == 0:
            del module2node[parameter]
'''


def _probe() -> bool:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from . import toys

    config = Qwen3Config(
        vocab_size=16,
        hidden_size=4 * toys.HEAD_DIM,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=toys.HEAD_DIM,
        attn_implementation="eager",
    )
    graph = toys.graph_of(model := Qwen3ForCausalLM(config).eval())
    attention = model.model.layers[0].self_attn
    group = toys.group_of(graph, attention.q_proj, list(range(toys.HEAD_DIM)))
    return any(dep.target.module is attention.q_norm.weight for dep, _ in group)


FIX = Fix(
    id="qk-norm",
    symptom="heads of models that norm q and k by head (Qwen3) are never pruned, and pruning one directly empties the norm",
    upstream=(),
    affected=("torch-pruning>=1.2.5", "transformers>=4.51"),
    probe=_probe,
    additions=(Addition("dependency.graph", UNLINK),),
    edits=(
        Edit(
            module="dependency.graph",
            function="DependencyGraph.build_dependency",
            fingerprints=("48794f679f13", "abec4b21fe33", "3dbd52465f5d"),
            old="""
            # Build dependency graph
            self._build_dependency(self.module2node)
            """,
            new="""
            # Build dependency graph
            _unlink_parameters_of_other_axes(self.module2node)
            self._build_dependency(self.module2node)
            """,
        ),
    ),
)
