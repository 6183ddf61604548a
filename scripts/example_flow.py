"""The flow of torch-pruning's `examples/LLMs/prune_llm.py` on miniatures of every family, and what it makes of them.

Half of the channels and half of the heads are to go. Some heads of every model are made weak, as many as are to go, so
that a magnitude ranking must take exactly them; and the pruned model must compute what the dense one does with those
heads' columns of `o_proj` set to zero.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

RATIO = 0.5
HEAD_DIM = 16
WEAK = 0.5  # what the weights of weak heads are multiplied by: enough to rank them, not enough to hide a wrong mask
STEPS = 3000  # a healthy group of a miniature takes about a hundred
TOLERANCE = 1e-4  # of the largest logit, between the pruned and the masked model

LLAMAS = {"llama 4/4": (4, 4), "llama 4/2": (4, 2), "llama 8/2": (8, 2), "llama 9/3": (9, 3), "llama 4/1": (4, 1)}
TIED = "llama 4/4, tied"
PUBLISHED = {
    "mistral": "mistralai/Mistral-7B-v0.1",
    "qwen2": "Qwen/Qwen2.5-0.5B",
    "qwen3": "Qwen/Qwen3-0.6B",
    "phi3": "microsoft/Phi-3-mini-4k-instruct",
    "gemma2": "google/gemma-2-2b",
}
FUSED = "phi3 16/4"  # four query heads per kv head, as in Phi-3-medium and Phi-4
FAMILIES = (*LLAMAS, TIED, *PUBLISHED, FUSED)
ATTENTIONS = ("eager", "sdpa")
OUTPUTS = {"no cache": False, "cache, logits alone": True, "cache": True}  # the example returns its cache


def build(family: str, attention: str):
    """The miniature of a family, and which of its query heads are weak.

    Its weights are so large that every head matters to the logits.
    """
    from pytest_llmprune.models.load import load_config
    from pytest_llmprune.models.miniature import miniature
    from pytest_llmprune.models.spec import ModelSpec

    if family in PUBLISHED or family == FUSED:
        config = load_config(ModelSpec(PUBLISHED[family.split()[0]]))
        if family == FUSED:
            config.num_key_value_heads = config.num_attention_heads // 4
    else:
        from transformers import LlamaConfig

        heads, kv_heads = LLAMAS.get(family, LLAMAS["llama 4/4"])
        config = LlamaConfig(
            hidden_size=HEAD_DIM * heads,
            intermediate_size=2 * HEAD_DIM * heads,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            tie_word_embeddings=family == TIED,
        )
    config.initializer_range = 0.2
    model = miniature(config, attention=attention)
    return model, weaken(model)


def weaken(model) -> set[int]:
    """Make as many query heads weak as torch-pruning removes, alike in every kv group; returns which."""
    import torch

    from pytest_llmprune.models.layout import decoder_layers, shape_of

    shape = shape_of(model.config)
    each = shape.queries_per_kv
    if each == 1:
        weak = {head for head in range(shape.heads) if head % 2}
    else:
        number = math.ceil(math.ceil(RATIO * shape.heads) / shape.kv_heads)
        chosen = [*range(1, each, 2), *range(0, each, 2)][:number]
        weak = {group * each + head for group in range(shape.kv_heads) for head in chosen}
    own_kv = [head + offset for head in weak for offset in (shape.heads, 2 * shape.heads)] if each == 1 else []
    with torch.no_grad():
        for layer in decoder_layers(model):
            scale(layer.o.weight.T, weak)
            if layer.qkv is not None:
                scale(layer.qkv.weight, [*weak, *own_kv])
            else:
                scale(layer.q.weight, weak)
                for kv in (layer.k, layer.v) if each == 1 else ():
                    scale(kv.weight, weak)
    return weak


def scale(rows, heads) -> None:
    for head in heads:
        rows[head * HEAD_DIM : (head + 1) * HEAD_DIM] *= WEAK


def outcome(family: str, attention: str, output: str) -> str:
    """What the example's flow does to a family, in a few words, with the fixes that are active."""
    from pytest_llmprune.errors import UserError
    from pytest_llmprune.fixes import toys

    try:
        model, weak = build(family, attention)
    except ValueError:
        return f"transformers has no {attention} attention for it"
    try:
        return example(model, weak, output)
    except toys.Runaway:
        return "runs away"
    except UserError as error:
        return str(error)
    except Exception as error:  # any of them is what the table is to show
        return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def example(model, weak: set[int], output: str) -> str:
    """Prune as the example does, and judge what is left."""
    import torch

    from pytest_llmprune.errors import CheckFailed
    from pytest_llmprune.fixes import toys
    from pytest_llmprune.prune.config import synchronise

    dense, before = copy.deepcopy(model), heads_of(model)
    ids = torch.arange(1, 13).reshape(1, 12)
    model.config.use_cache = OUTPUTS[output]
    removed = []
    with toys.step_limit(STEPS):
        pruner = make_pruner(model, ids, logits_alone="logits" in output)
        for group in pruner.step(interactive=True):
            removed += attention_removals(pruner.DG, group)
            group.prune()
    if before == heads_of(model):
        return f"{before}, no head pruned"
    result = f"{before} -> {heads_of(model)}"
    try:
        synchronise(model)
    except (CheckFailed, ZeroDivisionError) as error:
        return f"{result}, no model: {error}"
    with torch.inference_mode():
        model(ids)
        model.generate(ids, max_new_tokens=2, do_sample=False, pad_token_id=0)
        error = mask_error(dense, removed, ids)
    taken = [{i // HEAD_DIM for i in indices} for name, out, indices in removed if name.endswith("o_proj") and not out]
    if error > TOLERANCE:
        return f"{result}, wrong channels: the masked model differs by {error:.1g}"
    if any(heads != weak for heads in taken):
        return f"{result}, wrong heads: not the weakest"
    if model.config.tie_word_embeddings and model.lm_head.weight is not model.model.embed_tokens.weight:
        return f"{result}, ties broken"
    return f"ok, {result}"


def make_pruner(model, ids, logits_alone: bool):
    """torch-pruning's pruner as the example makes it, with the argument names of the installed version."""
    from pytest_llmprune import torch_pruning_api as api
    from pytest_llmprune.models.layout import decoder_layers, shape_of

    layers, shape = decoder_layers(model), shape_of(model.config)
    heads = {layer.qkv: shape.heads for layer in layers} | {layer.q: shape.heads for layer in layers}
    heads |= {linear: shape.kv_heads for layer in layers for linear in (layer.k, layer.v)}
    return api.make_pruner(
        model,
        example_inputs=ids,
        importance=api.make_importance("magnitude"),
        global_pruning=False,
        pruning_ratio=RATIO,
        ignored_layers=[model.lm_head],
        num_heads={linear: number for linear, number in heads.items() if linear is not None},
        prune_num_heads=True,
        prune_head_dims=False,
        head_pruning_ratio=RATIO,
        in_channel_groups={},  # the default is shared between all pruners of a process
        out_channel_groups={layer.gate_up: 2 for layer in layers if layer.gate_up is not None},
        round_to=4,
        **({"output_transform": lambda output: output.logits} if logits_alone else {}),
    )


def heads_of(model) -> str:
    """Query heads / kv heads of the first layer, from the widths of its projections."""
    from pytest_llmprune.models.layout import decoder_layers

    layer = decoder_layers(model)[0]
    query = layer.o.in_features
    kv = layer.k.out_features if layer.k is not None else (layer.qkv.out_features - query) // 2
    return f"{query / HEAD_DIM:g}/{kv / HEAD_DIM:g}"


def attention_removals(graph, group) -> Iterator[tuple[str, bool, list[int]]]:
    """(layer, whether its out channels, indices) of all that a group of heads removes; nothing of another group."""
    import torch

    members = [
        (graph._module2name[dep.target.module], graph.is_out_channel_pruning_fn(dep.handler), list(indices))
        for dep, indices in group
        if isinstance(dep.target.module, torch.nn.Linear)
    ]
    if any(name.endswith("o_proj") and not out for name, out, _ in members):
        yield from members


def mask_error(dense, removed: list[tuple[str, bool, list[int]]], ids) -> float:
    """How far, of the largest logit, removing the heads alone is from zeroing `o_proj`'s columns that read them."""
    import torch

    from pytest_llmprune.prune.config import synchronise

    pruned, masked = copy.deepcopy(dense), dense
    for name, out, indices in removed:
        layer, axis = pruned.get_submodule(name), 0 if out else 1
        kept = torch.tensor([i for i in range(layer.weight.shape[axis]) if i not in set(indices)])
        layer.weight = torch.nn.Parameter(layer.weight.index_select(axis, kept))
        layer.out_features, layer.in_features = layer.weight.shape
        if out and layer.bias is not None:
            layer.bias = torch.nn.Parameter(layer.bias[kept])
        if name.endswith("o_proj"):
            masked.get_submodule(name).weight[:, indices] = 0
    synchronise(pruned)
    wanted, found = masked(ids).logits, pruned(ids).logits
    return ((wanted - found).abs().max() / wanted.abs().max()).item()
