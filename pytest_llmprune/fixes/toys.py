"""The toy models that probes look at: real transformers code, one layer, a few kilobytes.

A probe uses torch, transformers, torch_pruning and this module alone, so that it can be written out as a test for
upstream (see `upstream`).
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

HEAD_DIM = 4


class Runaway(Exception):
    """torch-pruning's propagation does not end."""


def llama(
    heads: int,
    kv_heads: int,
    attention: str = "eager",
    tied: bool = False,
    layers: int = 1,
    weak: tuple[int, ...] = (),
) -> Any:
    """A Llama with heads of `HEAD_DIM` channels; the query heads in `weak` have next to no weights."""
    import torch
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
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for attention_layer in [layer.self_attn for layer in model.model.layers]:
            for head in weak:
                channels = slice(head * HEAD_DIM, (head + 1) * HEAD_DIM)
                attention_layer.q_proj.weight[channels] *= 1e-4
                attention_layer.o_proj.weight[:, channels] *= 1e-4
    return model


def graph_of(model: Any, use_cache: bool = False, outputs: Any = lambda output: output.logits) -> Any:
    """torch-pruning's graph of a toy, traced with six tokens and their mask, from its logits or what `outputs` picks."""
    return traced(model, tokens(use_cache), output_transform=outputs)


def tokens(use_cache: bool = False) -> dict[str, Any]:
    """Six tokens and their mask."""
    import torch

    ids = torch.ones(1, 6, dtype=torch.long)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": use_cache}


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


@dataclass(frozen=True)
class PrunedHeads:
    """What torch-pruning's pruner did to the attention of a toy: the query heads that it removed (by their numbers at
    the time), and the heads of q, k and v, as it counts them afterwards and as they are.
    """

    removed: tuple[int, ...]
    counted: tuple[int, ...]
    real: tuple[int, ...]


def prune_heads(model: Any, **arguments: Any) -> PrunedHeads | None:
    """Run torch-pruning's pruner on a toy, heads ranked by magnitude; None where it knows no heads (1.2.5), or none that
    share keys and values (1.3.7).
    """
    import torch_pruning as tp

    pruner_class = getattr(tp.pruner, "BasePruner", None) or tp.pruner.MetaPruner  # its name before 1.5.0
    if "prune_num_heads" not in inspect.signature(pruner_class.__init__).parameters:
        return None
    importances = ("GroupMagnitudeImportance", "GroupNormImportance", "MagnitudeImportance")
    attention = model.model.layers[0].self_attn
    qkv = (attention.q_proj, attention.k_proj, attention.v_proj)
    removed: set[int] = set()
    try:
        with step_limit():
            pruner = pruner_class(
                model,
                tokens(),
                output_transform=lambda output: output.logits,
                importance=next(getattr(tp.importance, name)() for name in importances if hasattr(tp.importance, name)),
                num_heads={layer: layer.out_features // HEAD_DIM for layer in qkv},
                prune_num_heads=True,
                prune_head_dims=False,
                in_channel_groups={},
                out_channel_groups={},
                ignored_layers=[model.lm_head],
                **arguments,
            )
            for _ in range(pruner.iterative_steps):
                for group in pruner.step(interactive=True):
                    dep, idxs = group[0]
                    if dep.target.module is attention.o_proj and pruner.DG.is_in_channel_pruning_fn(dep.handler):
                        removed |= {index // HEAD_DIM for index in idxs}
                    group.prune()
    except RuntimeError:
        return None
    return PrunedHeads(
        removed=tuple(sorted(removed)),
        counted=tuple(pruner.num_heads[layer] for layer in qkv),
        real=tuple(layer.out_features // HEAD_DIM for layer in qkv),
    )
