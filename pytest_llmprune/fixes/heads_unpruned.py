"""heads-unpruned: a head ratio leaves every head in place without a word, and `pruner.num_heads` counts them as gone.

The pruner lowers num_heads before it has made the group, then decides by the lowered numbers whether k and v have fewer
heads than q and are to be left alone: when as many query heads remain as there are kv heads, they aren't, and
`check_pruning_group` refuses the group. It also refuses a ratio that rounds up to all heads (0.7 of 9 heads on 3 kv
heads). The fix lowers num_heads when the group has passed, and always leaves a head.
"""

from __future__ import annotations

from .patch import Edit, Fix

FINGERPRINTS = ("fff8b128d614",)


def _probe() -> bool:
    from . import toys

    def left(heads: int, kv_heads: int, ratio: float) -> set[tuple[int, ...]] | None:
        pruned = toys.prune_heads(toys.llama(heads, kv_heads), pruning_ratio=0.5, head_pruning_ratio=ratio)
        return None if pruned is None else {pruned.counted, pruned.real}

    return left(9, 3, ratio=0.5) not in (None, {(3, 3, 3)}) or left(4, 4, ratio=0.8) not in (None, {(1, 1, 1)})


FIX = Fix(
    id="heads-unpruned",
    symptom="a head ratio leaves all heads in place without a warning, and num_heads is wrong afterwards",
    upstream=(),
    affected=("torch-pruning>=1.3.7",),
    probe=_probe,
    edits=(
        Edit(
            module="pruner.algorithms.base_pruner",
            function="BasePruner._prune",
            fingerprints=FINGERPRINTS,
            old="""
            # Check if this is an Attention that requires head pruning 
            if len(ranking_scope[ATTN_HEAD_SCOPE]) > 0:
            """,
            new="""
            # Check if this is an Attention that requires head pruning 
            head_pruning_indices = []
            if len(ranking_scope[ATTN_HEAD_SCOPE]) > 0:
            """,
        ),
        Edit(
            module="pruner.algorithms.base_pruner",
            function="BasePruner._prune",
            fingerprints=FINGERPRINTS,
            old="""
            head_pruning_indices = torch.topk(
                head_imp, k=n_heads_removed_per_group, largest=False)[1]  # local ranking
            """,
            new="""
            head_pruning_indices = torch.topk( # one head stays, however the ratio rounds
                head_imp, k=min(n_heads_removed_per_group, len(head_imp) - 1), largest=False)[1]  # local ranking
            """,
        ),
        Edit(
            module="pruner.algorithms.base_pruner",
            function="BasePruner._prune",
            fingerprints=FINGERPRINTS,
            old="""
            n_heads_removed_per_group = math.ceil(
                n_heads_removed_per_group / num_kv_heads)
            """,
            new="""
            n_heads_removed_per_group = min(math.ceil(
                n_heads_removed_per_group / num_kv_heads), num_heads // num_kv_heads - 1)
            """,
        ),
        Edit(
            module="pruner.algorithms.base_pruner",
            function="BasePruner._prune",
            fingerprints=FINGERPRINTS,
            old="""
            head_pruning_indices = (
                head_imp <= head_thres).nonzero().view(-1)  # global ranking
            """,
            new="""
            n_heads_removed = min(int((head_imp <= head_thres).sum()), len(head_imp) - 1)
            head_pruning_indices = torch.topk(
                head_imp, k=n_heads_removed, largest=False)[1]  # global ranking
            """,
        ),
        Edit(
            module="pruner.algorithms.base_pruner",
            function="BasePruner._prune",
            fingerprints=FINGERPRINTS,
            old="""
            num_heads = max([self.num_heads[qkv_layer]
                            for qkv_layer in qkv_layers])
            for qkv_layer in qkv_layers:
                if self.num_heads[qkv_layer] == num_heads:
                    # update num heads after pruning
                    self.num_heads[qkv_layer] -= len(
                        head_pruning_indices)
                    # update out_channel_groups
                    self.out_channel_groups[qkv_layer] = self.num_heads[qkv_layer]
            """,
            new="",
        ),
        Edit(
            module="pruner.algorithms.base_pruner",
            function="BasePruner._prune",
            fingerprints=FINGERPRINTS,
            old="""
            if self.DG.check_pruning_group(group):
                yield group
            """,
            new="""
            if self.DG.check_pruning_group(group):
                num_heads = max([self.num_heads[qkv_layer]
                                for qkv_layer in qkv_layers], default=0)
                for qkv_layer in qkv_layers:
                    if self.num_heads[qkv_layer] == num_heads:
                        # update num heads of the layers that lose heads
                        self.num_heads[qkv_layer] -= len(
                            head_pruning_indices)
                        # update out_channel_groups
                        self.out_channel_groups[qkv_layer] = self.num_heads[qkv_layer]
                yield group
            """,
        ),
    ),
)
