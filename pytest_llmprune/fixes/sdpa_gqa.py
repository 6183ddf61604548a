"""sdpa-gqa: scaled_dot_product_attention with enable_gqa hides the repetition of kv heads, so q, k and v are joined
channel by channel.

The fix gives the edges from k and v into the attention node the map that the eager form's expand node has (see
gqa_map).
"""

from __future__ import annotations

from .patch import Addition, Edit, Fix

MAPPING = '''
def update_sdpa_index_mapping(graph, node: Node):
    """Map between kv heads and query heads on the edges into a fused attention node that repeats kv heads itself."""
    if node.grad_fn._saved_key.shape[1] == node.grad_fn._saved_query.shape[1]:
        return # an expand node before it has repeated them, as where a mask is given
    head_dim = node.grad_fn._input_metadata[0].shape[-1]
    out_channels = shape_infer.infer_in_channels_recursively(graph, node, [0])
    for in_node in node.inputs:
        in_channels = source_channels(graph, in_node)
        if not out_channels or not in_channels:
            continue
        repeat = out_channels // in_channels
        for source, target, reverse in ((in_node, node, False), (node, in_node, True)):
            for dep in source.dependencies:
                if dep.target is target:
                    dep.index_mapping[0] = (
                        _GQAIndexMapping(repeat=repeat, head_dim=head_dim, reverse=reverse) if repeat > 1 else None
                    )
'''


def _probe() -> bool:
    from . import toys

    graph = toys.graph_of(model := toys.llama(heads=8, kv_heads=2, attention="sdpa"))
    fused = [node.grad_fn for node in graph.module2node.values() if "ScaledDotProduct" in str(node.grad_fn)]
    if all(grad_fn._saved_key.shape == grad_fn._saved_query.shape for grad_fn in fused):
        return False  # transformers has repeated the kv heads itself, as the eager form does
    attention = model.model.layers[0].self_attn
    one_head = list(range(toys.HEAD_DIM))
    return toys.touched(graph, attention.o_proj, one_head, out=False) != {"q_proj": one_head}


FIX = Fix(
    id="sdpa-gqa",
    symptom="grouped-query attention in sdpa form: the wrong heads are ranked and removed, or the view of the output fails",
    upstream=(516,),
    affected=("torch-pruning>=1.2.5", "transformers>=4.54"),
    probe=_probe,
    requires=("gqa-map",),
    additions=(Addition("dependency.index_mapping", MAPPING),),
    edits=(
        Edit(
            module="dependency.index_mapping",
            function="update_index_mapping",
            fingerprints=("5abe6f2597d6", "6585286744f6"),
            old="""
            if node.type == ops.OPTYPE.SLICE:
                update_slice_index_mapping(graph, node)
            """,
            new="""
            if node.type == ops.OPTYPE.SLICE:
                update_slice_index_mapping(graph, node)
            if node.type == ops.OPTYPE.ELEMENTWISE and "ScaledDotProduct" in str(getattr(module, "_grad_fn", "")):
                update_sdpa_index_mapping(graph, node)
            """,
        ),
    ),
)
