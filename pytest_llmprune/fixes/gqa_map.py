"""gqa-map: with grouped-query attention, kv channels are listed twice or with wrong indices, and groups rooted at k or
v miss the rest.

Query channel (h, d) uses the kv channel (h // n_rep, d). So from the query side a kv channel goes only when all of its
n_rep copies go, and then once; from the kv side all copies go with it. What came from the query side is not expanded
again: it has been counted there. n_rep is taken from the layers as they are now, since pruning heads changes it after
tracing.
"""

from __future__ import annotations

from .indices import INDICES
from .patch import Addition, Edit, Fix

HELPER = '''
def source_channels(graph, node):
    """How many channels the Linear layer has that a node's values come from, or the slice of a fused one; else None."""
    queue, seen = [node], set()
    while queue:
        node = queue.pop(0)
        if node.type == ops.OPTYPE.LINEAR:
            return graph.get_out_channels(node)
        if node.type == ops.OPTYPE.SLICE and len(node.grad_fn._saved_self_sym_sizes) == 3:  # of channels, not of heads
            channels = source_channels(graph, node.inputs[0])
            return channels and max(0, min(node.module.end, channels) - node.module.start)
        if id(node) not in seen:
            seen.add(id(node))
            queue.extend(node.inputs)
    return None
'''


def _probe() -> bool:
    from . import toys

    graph = toys.graph_of(model := toys.llama(heads=8, kv_heads=2))
    attention = model.model.layers[0].self_attn
    one_head = list(range(toys.HEAD_DIM))
    from_query = toys.touched(graph, attention.o_proj, one_head, out=False)
    from_key = toys.touched(graph, attention.k_proj, one_head)
    four_heads = list(range(4 * toys.HEAD_DIM))
    return from_query != {"q_proj": one_head} or from_key != {
        "k_proj": one_head,
        "v_proj": one_head,
        "q_proj": four_heads,
    }


FIX = Fix(
    id="gqa-map",
    symptom="grouped-query attention: kv channels duplicated or negative, a kv head goes with any one of its query heads",
    upstream=(),
    affected=("torch-pruning>=1.2.5",),
    probe=_probe,
    additions=(INDICES, Addition("dependency.index_mapping", HELPER)),
    edits=(
        Edit(
            module="dependency.index_mapping",
            function="_GQAIndexMapping.__call__",
            fingerprints=("8e47ffe60b4a", "37052b749d91"),
            old="""
            if self.reverse == True: 
                new_idxs = [ _helpers._HybridIndex(idx=( i.idx - i.idx // (head_dim * repeat) * head_dim * (repeat - 1) - i.idx//head_dim%repeat * head_dim ), root_idx=None) for i in idxs ]
            else:
                new_idxs = []
            """,
            new="""
            roots = dict(zip(_helpers.to_plain_idxs(idxs), _helpers.to_root_idxs(idxs)))
            new_roots = {}
            if self.reverse == True:
                for first in sorted(idx for idx in roots if idx // head_dim % repeat == 0):
                    of_copies = [roots.get(first + copy * head_dim, -1) for copy in range(repeat)]
                    if -1 not in of_copies:
                        kv_idx = first // (head_dim * repeat) * head_dim + first % head_dim
                        new_roots[kv_idx] = of_copies[0] if len(set(of_copies)) == 1 else None
            else:
                for idx in sorted(roots):
                    if roots[idx] is not None:
                        first = idx // head_dim * repeat * head_dim + idx % head_dim
                        new_roots.update((first + copy * head_dim, roots[idx]) for copy in range(repeat))
                new_roots = dict(sorted(new_roots.items()))
            new_idxs = _helpers._HybridIndices(list(new_roots), list(new_roots.values()))
            """,
        ),
        Edit(
            module="dependency.index_mapping",
            function="update_expand_index_mapping",
            fingerprints=("321ae8fb48e5", "67e499bf8793"),
            old="""
            in_channels = num_key_value_heads * n_rep * head_dim
            if out_channels is None or in_channels is None: return
            repeat = out_channels // in_channels
            """,
            new="""
            in_channels = source_channels(graph, node)
            if not out_channels or not in_channels: return
            repeat = out_channels // in_channels
            """,
        ),
    ),
)
