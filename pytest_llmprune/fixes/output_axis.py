"""output-axis: a group that reaches an output of the model whose second axis holds no channels is skipped without a word.

`check_pruning_group` takes an output's second axis for channels. A sliding-window cache returns [batch, heads, time, head
size]; removing a head's channels then looks like removing more than there are, and heads stay. The fix lets outputs have
no say: what they are made from is in the group itself.
"""

from __future__ import annotations

from .patch import Edit, Fix


def _probe() -> bool:
    from transformers import MistralConfig, MistralForCausalLM

    from . import toys

    config = MistralConfig(
        vocab_size=16,
        hidden_size=2 * toys.HEAD_DIM,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        sliding_window=4,
    )
    graph = toys.graph_of(
        model := MistralForCausalLM(config).eval(),
        use_cache=True,
        outputs=lambda output: [output.logits, *_cached(output.past_key_values)],
    )
    try:
        group = toys.group_of(graph, model.model.layers[0].self_attn.o_proj, list(range(toys.HEAD_DIM)), out=False)
    except toys.Runaway:  # unsigned-dim comes first: such a group can't even be made
        return True
    return not graph.check_pruning_group(group)


def _cached(cache: object) -> list[object]:
    """The key and value tensors of a cache that has layers (transformers since 4.54); nothing of another."""
    return [t for layer in getattr(cache, "layers", ()) for t in (layer.keys, layer.values)]


FIX = Fix(
    id="output-axis",
    symptom="a group that reaches an output with no channels on its second axis (a sliding-window cache) is skipped silently",
    upstream=(),
    affected=("torch-pruning>=1.5.3", "transformers>=4.56"),
    probe=_probe,
    requires=("unsigned-dim",),
    edits=(
        Edit(
            module="dependency.graph",
            function="DependencyGraph.check_pruning_group",
            fingerprints=("d2be413ec56e",),
            old="""
            for dep, idxs in group:
                if self.is_out_channel_pruning_fn(dep.handler):
            """,
            new="""
            for dep, idxs in group:
                if dep.target.type == ops.OPTYPE.OUTPUT: # its second axis need not hold channels
                    continue
                if self.is_out_channel_pruning_fn(dep.handler):
            """,
        ),
    ),
)
