"""head-ratio-gated: a head ratio does nothing where the channels' ratio is 0.

The pruner looks at the heads of a group inside `if n_pruned > 0`, where n_pruned counts channels. The fix goes on when
there are heads to rank, and yields no group from which nothing goes.
"""

from __future__ import annotations

from .patch import Edit, Fix

FINGERPRINTS = ("fff8b128d614",)


def _probe() -> bool:
    from . import toys

    pruned = toys.prune_heads(toys.llama(heads=4, kv_heads=4), pruning_ratio=0.0, head_pruning_ratio=0.5)
    return pruned is not None and pruned.real != (2, 2, 2)


FIX = Fix(
    id="head-ratio-gated",
    symptom="head_pruning_ratio does nothing when pruning_ratio is 0",
    upstream=(),
    affected=("torch-pruning>=1.4.3",),
    probe=_probe,
    edits=(
        Edit(
            module="pruner.algorithms.base_pruner",
            function="BasePruner._prune",
            fingerprints=FINGERPRINTS,
            old="""
            if n_pruned > 0:
                topk_imp, topk_indices = torch.topk(
                    concat_imp, k=n_pruned, largest=False)
                thres = topk_imp[-1]
            """,
            new="""
            n_pruned = max(n_pruned, 0)
            if n_pruned > 0 or len(ranking_scope[ATTN_HEAD_SCOPE]) > 0: # heads have a ratio of their own
                topk_imp, topk_indices = torch.topk(
                    concat_imp, k=n_pruned, largest=False)
                thres = topk_imp[-1] if n_pruned > 0 else -math.inf
            """,
        ),
        Edit(
            module="pruner.algorithms.base_pruner",
            function="BasePruner._prune",
            fingerprints=FINGERPRINTS,
            old="""
            pruning_indices = torch.unique(
                torch.cat(pruning_indices, 0)).tolist()
            """,
            new="""
            pruning_indices = torch.unique(
                torch.cat(pruning_indices, 0)).tolist()
            if len(pruning_indices) == 0:
                continue
            """,
        ),
    ),
)
