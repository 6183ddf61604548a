"""global-gqa: with grouped-query attention, global head pruning removes the wrong heads, or all of them.

The heads of a model are counted by the first of q, k and v that a group names, so the ratio is taken of kv heads and the
threshold ends up too high; the weakest heads of kv group g are found at their place in the group, but shifted by g times
the number of kv heads instead of by the heads in a group. The fix counts query heads, shifts by the heads in a group,
leaves every kv group a head, and has a threshold also when earlier steps have removed enough.
"""

from __future__ import annotations

from .patch import Edit, Fix

FINGERPRINTS = ("fff8b128d614",)


def _probe() -> bool:
    from . import toys

    weak = (1, 5)
    model = toys.llama(heads=6, kv_heads=2, weak=weak)
    pruned = toys.prune_heads(model, global_pruning=True, pruning_ratio=0.5, head_pruning_ratio=len(weak) / 6)
    return pruned is not None and pruned.removed != weak


FIX = Fix(
    id="global-gqa",
    symptom="global head pruning with grouped-query attention removes the wrong heads, or all",
    upstream=(),
    affected=("torch-pruning>=1.4.3",),
    probe=_probe,
    edits=(
        Edit(
            module="pruner.algorithms.base_pruner",
            function="BasePruner.__init__",
            fingerprints=("e40ae273ea6c", "4b14efa5b54e"),
            old="""
            for dep, _ in group:
                if dep.target.module in self.num_heads and self.DG.is_out_channel_pruning_fn(dep.handler):
                    initial_total_heads += self.num_heads[dep.target.module]
                    break  # only count heads once
            """,
            new="""
            # only count heads once: as many as the queries have
            initial_total_heads += max([self.num_heads[qkv_layer] for qkv_layer in qkv_layers], default=0)
            """,
        ),
        Edit(
            module="pruner.algorithms.base_pruner",
            function="BasePruner._prune",
            fingerprints=FINGERPRINTS,
            old="""
            if n_heads_removed > 0:
                topk_head_imp, _ = torch.topk(
            """,
            new="""
            head_thres = -math.inf # earlier steps, rounded up, may have removed enough
            if n_heads_removed > 0:
                topk_head_imp, _ = torch.topk(
            """,
        ),
        Edit(
            module="pruner.algorithms.base_pruner",
            function="BasePruner._prune",
            fingerprints=FINGERPRINTS,
            old="""
            n_heads_removed_per_group = math.ceil(
                len(head_pruning_indices) / num_kv_heads)
            """,
            new="""
            n_heads_removed_per_group = min(math.ceil(
                len(head_pruning_indices) / num_kv_heads), len(head_imp) // num_kv_heads - 1)
            """,
        ),
        Edit(
            module="pruner.algorithms.base_pruner",
            function="BasePruner._prune",
            fingerprints=FINGERPRINTS,
            old="""
            head_pruning_indices.append(
                head_pruning_indices_kv + kv_head_id*num_kv_heads)
            """,
            new="""
            head_pruning_indices.append(
                head_pruning_indices_kv + kv_head_id*len(head_imp)//num_kv_heads)
            """,
        ),
    ),
)
