"""What generated code is made of: layers and containers, of torch and transformers alone. A script that shows a failure
carries the few that it uses, as they stand here.
"""
# ruff: noqa: F401, some imports are for generated code alone

from __future__ import annotations

import collections
import copy
import dataclasses
import faulthandler
import types
from typing import Any

import numpy
import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache, LlamaConfig, StaticCache
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils import ModelOutput

from .members import channels_of, group_of, mask, registered_in_reverse, reorder, returning

Pair = collections.namedtuple("Pair", "first rest")


@dataclasses.dataclass
class Holder:
    first: Any
    rest: Any = None


@dataclasses.dataclass
class Output(ModelOutput):  # type: ignore[misc]
    first: Any = None
    rest: Any = None


class Attributes:
    def __init__(self, *values: Any) -> None:
        self.first, self.rest = values[0], values[1:]


def dynamic_cache(*tensors: Tensor) -> Any:
    """Keys and values [batch, heads, time, head size] of a layer for each tensor, as generation keeps them."""
    cache = DynamicCache()
    for layer, tensor in enumerate(tensors):
        cache.update(tensor[None, None], tensor[None, None], layer)
    return cache


def static_cache(*tensors: Tensor) -> Any:
    """The same in tensors of a fixed length, written to in place."""
    width = tensors[0].shape[-1]
    config = LlamaConfig(hidden_size=width, num_attention_heads=1, num_hidden_layers=len(tensors))
    cache = StaticCache(config, max_cache_len=4)
    for layer, tensor in enumerate(tensors):
        cache.update(tensor[None, None], tensor[None, None], layer)
    return cache


def packed(tensor: Tensor) -> PackedSequence:
    return PackedSequence(tensor, torch.tensor([len(tensor)]))


class RMSNorm(nn.Module):  # type: ignore[misc]
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(1 + torch.rand(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


class InDict(nn.Module):  # type: ignore[misc]
    """A Linear layer whose output lies in a dict."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width_in, width_out)

    def forward(self, x: Tensor) -> dict[str, Any]:
        return {"extra": None, "hidden": self.linear(x)}


class InTuple(nn.Module):  # type: ignore[misc]
    """A Linear layer whose output lies in a tuple."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width_in, width_out)

    def forward(self, x: Tensor) -> tuple[Any, ...]:
        return self.linear(x), x.shape, None


def traced(model: nn.Module, x: Tensor) -> Any:
    return tp.DependencyGraph().build_dependency(model, x)


def groups(graph: Any) -> dict[tuple[str, str], set[Any]]:
    """The channels of the whole group of either side of every Linear layer."""
    found = {}
    for layer, module in graph.model.named_modules():
        if isinstance(module, nn.Linear):
            for side, width in (("in", module.in_features), ("out", module.out_features)):
                found[layer, side] = set(channels_of(graph, group_of(graph, layer, side, list(range(width)))))
    return found


def rotated(x: Tensor) -> Tensor:
    """Rotary position embedding of [batch, heads, time, head size]."""
    half = x.shape[-1] // 2
    times = torch.arange(x.shape[-2], device=x.device)
    angles = times[:, None] / 10 ** torch.linspace(0, 1, half, device=x.device)
    cos, sin = torch.cat([angles.cos()] * 2, dim=-1), torch.cat([angles.sin()] * 2, dim=-1)
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], dim=-1) * sin


def heads(x: Tensor, size: int = 2) -> Tensor:
    """[batch, time, channels] as [batch, heads, time, head size]."""
    return x.view(x.shape[0], x.shape[1], -1, size).transpose(1, 2)


def repeated(x: Tensor, copies: int) -> Tensor:
    """Each head `copies` times, as transformers repeats the heads of keys and values."""
    batch, heads, time, size = x.shape
    if copies == 1:
        return x
    return x[:, :, None, :, :].expand(batch, heads, copies, time, size).reshape(batch, heads * copies, time, size)


def eager(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention of [batch, heads, time, head size], as [batch, time, all]. k and v may have fewer heads."""
    copies = q.shape[1] // k.shape[1]
    k, v = repeated(k, copies), repeated(v, copies)
    future = torch.full((q.shape[-2], q.shape[-2]), float("-inf"), device=q.device).triu(1)
    y = torch.softmax(q @ k.transpose(2, 3) / q.shape[-1] ** 0.5 + future, dim=-1) @ v
    return y.transpose(1, 2).contiguous().flatten(2)


def sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The same in one call."""
    y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=q.shape[1] > k.shape[1])
    return y.transpose(1, 2).contiguous().flatten(2)
