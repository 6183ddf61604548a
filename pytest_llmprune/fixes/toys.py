"""The toy models that probes look at: real transformers code, one layer, a few kilobytes.

A probe uses torch, transformers, torch_pruning and this module alone, so that it can be written out as a test for
upstream (see `upstream`).
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

HEAD_DIM = 4


class Runaway(Exception):
    """torch-pruning's propagation does not end."""


def llama(heads: int, kv_heads: int, attention: str = "eager", tied: bool = False, layers: int = 1) -> Any:
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


def graph_of(model: Any, use_cache: bool = False, outputs: Any = lambda output: output.logits) -> Any:
    """torch-pruning's graph of a toy, traced with six tokens and their mask, from its logits or what `outputs` picks."""
    import torch

    ids = torch.ones(1, 6, dtype=torch.long)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": use_cache}
    return traced(model, inputs, output_transform=outputs)


def traced(model: Any, inputs: Any, **arguments: Any) -> Any:
    """torch-pruning's graph of any model."""
    import torch_pruning as tp

    if "ignored_params" in inspect.signature(tp.DependencyGraph.build_dependency).parameters:
        arguments["ignored_params"] = []  # its default breaks 1.3.7 to 1.5.2
    return tp.DependencyGraph().build_dependency(model, example_inputs=inputs, verbose=False, **arguments)


def group_of(graph: Any, module: Any, indices: list[int], *, out: bool = True) -> Any:
    """The group that pruning `indices` of a Linear layer drags along. Raises Runaway where torch-pruning would hang."""
    import torch_pruning as tp

    with step_limit():
        root = tp.prune_linear_out_channels if out else tp.prune_linear_in_channels
        return graph.get_pruning_group(module, root, indices)


@contextlib.contextmanager
def step_limit(steps: int = 1000) -> Iterator[None]:
    """Within the block a group of more than so many steps raises Runaway; a healthy one of a toy has about a hundred."""
    import torch_pruning as tp

    add_dep = tp.Group.add_dep

    def counted(group: Any, dep: Any, idxs: Any) -> None:
        if len(group.items) >= steps:
            raise Runaway(f"more than {steps} steps")
        add_dep(group, dep, idxs)

    tp.Group.add_dep = counted
    try:
        yield
    finally:
        tp.Group.add_dep = add_dep


def touched(graph: Any, module: Any, indices: list[int], *, out: bool = True) -> dict[str, list[int]]:
    """{module name: sorted out-channel indices} of the group that pruning `indices` of a Linear layer drags along."""
    names = {module: name.split(".")[-1] for name, module in graph.model.named_modules()}
    return {
        names[dep.target.module]: sorted(idxs)
        for dep, idxs in group_of(graph, module, indices, out=out)
        if dep.target.module in names and graph.is_out_channel_pruning_fn(dep.handler)
    }
