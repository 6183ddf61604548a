"""The toy models that probes look at: real transformers code, one layer, a few kilobytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel

HEAD_DIM = 4


def llama(heads: int, kv_heads: int, attention: str = "eager", tied: bool = False, layers: int = 1) -> PreTrainedModel:
    """A Llama with heads of `HEAD_DIM` channels."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=16,
        hidden_size=heads * HEAD_DIM,
        intermediate_size=24,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        tie_word_embeddings=tied,
        attn_implementation=attention,
    )
    return LlamaForCausalLM(config).eval()


def graph_of(model: Any, use_cache: bool = False) -> Any:
    """torch-pruning's graph of a toy, from its logits alone."""
    import torch
    import torch_pruning as tp

    ids = torch.ones(1, 3, dtype=torch.long)
    return tp.DependencyGraph().build_dependency(
        model,
        example_inputs={"input_ids": ids, "use_cache": use_cache},
        output_transform=lambda output: output.logits,
        ignored_params=[],
        verbose=False,
    )


def touched(graph: Any, module: Any, indices: list[int], *, out: bool = True) -> dict[str, list[int]]:
    """{module name: sorted out-channel indices} of the group that pruning `indices` of a Linear layer drags along."""
    import torch_pruning as tp

    root = tp.prune_linear_out_channels if out else tp.prune_linear_in_channels
    group = graph.get_pruning_group(module, root, indices)
    names = {module: name.split(".")[-1] for name, module in graph.model.named_modules()}
    return {
        names[dep.target.module]: sorted(idxs)
        for dep, idxs in group
        if dep.target.module in names and graph.is_out_channel_pruning_fn(dep.handler)
    }
