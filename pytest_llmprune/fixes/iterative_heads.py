"""iterative-heads: pruned in several steps, heads go below the ratio that was asked for: at 0.5 in four steps, one of
eight is left.

A step's ratio is of the heads at the start, as it is for channels and for heads ranked globally; locally the pruner takes
it of the heads that are left. The fix takes it of the heads at the start, less those that are gone.
"""

from __future__ import annotations

from .patch import Edit, Fix


def _probe() -> bool:
    from . import toys

    model = toys.llama(heads=8, kv_heads=8)
    pruned = toys.prune_heads(model, pruning_ratio=0.5, head_pruning_ratio=0.5, iterative_steps=2)
    return pruned is not None and pruned.real != (4, 4, 4)


FIX = Fix(
    id="iterative-heads",
    symptom="local head pruning in several steps removes more heads than the ratio says",
    upstream=(),
    affected=("torch-pruning>=1.4.3",),
    probe=_probe,
    edits=(
        Edit(
            module="pruner.algorithms.base_pruner",
            function="BasePruner._prune",
            fingerprints=("fff8b128d614",),
            old="""
            n_heads_removed_per_group = math.ceil(
                self.get_target_head_pruning_ratio(qkv_layers[0]) * len(head_imp))
            """,
            new="""
            # the ratio is of the heads at the start, and some may be gone
            initial_heads = max([self.init_num_heads[qkv_layer] for qkv_layer in qkv_layers])
            n_heads_removed_per_group = max(0, len(head_imp) - initial_heads + math.ceil(
                self.get_target_head_pruning_ratio(qkv_layers[0]) * initial_heads))
            """,
        ),
    ),
)
