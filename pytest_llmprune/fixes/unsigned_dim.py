"""unsigned-dim: concatenation and splitting along the last dimension are mistaken for channel operations, and
propagation never returns.

Autograd stores dim=-1 as the unsigned 2**64-1. torch-pruning (since 1.5.3) takes everything from 100 on for an
uninitialised value and maps channels as if the channel dimension had been meant: RoPE's rotate_half at two query heads
per kv head, and a cache's concatenation over time, then shift indices further with every round. The fix reads the value
as signed, and believes that an operation works on channels only if the dimension is where channels lie and has as many
entries as there are channels.
"""

from __future__ import annotations

from .patch import Addition, Edit, Fix

HELPER = '''
def works_on_channels(grad_fn, shape, channels):
    """Whether a concatenation or split with this grad_fn, of a tensor of this shape, is along `channels` channels."""
    dim = grad_fn._saved_dim
    if dim >= 2**63:  # a negative dim, stored unsigned
        dim -= 2**64
    if dim < 0:
        dim += len(shape)
    return dim in (1, len(shape) - 1) and (channels is None or shape[dim] == channels)
'''


def _probe() -> bool:
    from . import toys

    def runs_away(kv_heads: int, use_cache: bool) -> bool:
        graph = toys.graph_of(model := toys.llama(4, kv_heads), use_cache)
        try:
            toys.touched(graph, model.model.layers[0].self_attn.q_proj, list(range(toys.HEAD_DIM)))
        except toys.Runaway:
            return True
        return False

    return runs_away(kv_heads=2, use_cache=False) or runs_away(kv_heads=4, use_cache=True)


FIX = Fix(
    id="unsigned-dim",
    symptom="propagation never returns: indices grow along RoPE's concatenation or the cache's",
    upstream=(527, 474, 456),
    affected=("torch-pruning>=1.5.3",),
    probe=_probe,
    additions=(Addition("dependency.shape_infer", HELPER),),
    edits=(
        Edit(
            module="dependency.index_mapping",
            function="update_concat_index_mapping",
            fingerprints=("36a375db39d6", "a1c7aaf1ceea"),
            old="""
            if hasattr(cat_node.grad_fn, '_saved_dim') and cat_node.grad_fn._saved_dim != 1 and cat_node.grad_fn._saved_dim < constants.MAX_VALID_DIM:
                return 
            """,
            new="""
            if not cat_node.enable_index_mapping:
                return
            """,
        ),
        Edit(
            module="dependency.index_mapping",
            function="update_concat_index_mapping",
            fingerprints=("36a375db39d6", "a1c7aaf1ceea"),
            old="""
                chs.append(shape_infer.infer_channels_between(graph, n, cat_node))
            cat_node.module.concat_sizes = chs
            """,
            new="""
                chs.append(shape_infer.infer_channels_between(graph, n, cat_node))
            if None in chs or not shape_infer.works_on_channels(cat_node.grad_fn, cat_node.grad_fn._input_metadata[0].shape, sum(chs)):
                cat_node.enable_index_mapping = False
                return
            cat_node.module.concat_sizes = chs
            """,
        ),
        Edit(
            module="dependency.index_mapping",
            function="update_split_index_mapping",
            fingerprints=("bd760bec4b7b", "78c35e188fc9"),
            old="""
            if hasattr(split_node.grad_fn, '_saved_dim'): # this only works for Pytorch>=1.12
            """,
            new="""
            if split_node.module.offsets is None and hasattr(split_node.grad_fn, '_saved_dim'): # no split of channels
            """,
        ),
        Edit(
            module="dependency.shape_infer",
            function="init_shape_information",
            fingerprints=("b0fdb57f8cdc", "b838a0b521a0"),
            old="""
            if hasattr(grad_fn, '_saved_split_sizes') and hasattr(grad_fn, '_saved_dim') :
                if grad_fn._saved_dim != 1 and grad_fn._saved_dim < constants.MAX_VALID_DIM: # a temp fix for pytorch==1.11, where the _saved_dim is an uninitialized value like 118745347895359
                    continue
            """,
            new="""
            channels = infer_out_channels_recursively(graph, node.inputs[0], [0]) if node.inputs else None
            if not works_on_channels(grad_fn, grad_fn._saved_self_sym_sizes, channels):
                continue
            if hasattr(grad_fn, '_saved_split_sizes') and hasattr(grad_fn, '_saved_dim') :
            """,
        ),
        Edit(
            module="dependency.shape_infer",
            function="init_shape_information",
            fingerprints=("b0fdb57f8cdc", "b838a0b521a0"),
            old="""
                if grad_fn._saved_dim != 1 and grad_fn._saved_dim < constants.MAX_VALID_DIM: # a temp fix for pytorch==1.11, where the _saved_dim is an uninitialized value like 118745347895359
                    continue
                chs = [grad_fn._saved_split_size for _ in range(len(node.outputs))]
            """,
            new="""
                chs = [grad_fn._saved_split_size for _ in range(len(node.outputs))]
            """,
        ),
    ),
)
