"""What a model costs: parameters, multiply-accumulates, checkpoint bytes, and the speed of reading a prompt and of
generating.

Speeds are measured dense and pruned in turn in one run, after a warm-up, and given as medians: numbers of one run
compare, numbers of two runs don't.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..models.layout import decoder_layers, shape_of

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Size:
    """params: a tied tensor counts once. macs: multiply-accumulates per token of a prompt of `MACS_CONTEXT` tokens.
    bytes: of the weights, in the dtype in memory.
    """

    params: int
    macs: int
    bytes: int


MACS_CONTEXT = 512


def size_of(model: PreTrainedModel) -> Size:
    """Count a model's size; works on meta as well.

    macs: every Linear layer once per token (in x out), and per layer the products with keys and with values over the
    average causal context of (512 + 1) / 2 tokens. Norms, activations and the embedding's look-up are not counted.
    """
    import torch

    parameters = list(model.parameters())
    linear = sum(m.in_features * m.out_features for m in model.modules() if isinstance(m, torch.nn.Linear))
    head_dim = shape_of(model.config).head_dim
    heads = sum(layer.o.in_features // head_dim for layer in decoder_layers(model))
    attention = heads * head_dim * (MACS_CONTEXT + 1)
    return Size(
        params=sum(p.numel() for p in parameters),
        macs=linear + attention,
        bytes=sum(p.numel() * p.element_size() for p in parameters),
    )


@dataclass(frozen=True)
class SpeedProtocol:
    """prompt: tokens read at once. new_tokens: generated one by one after it. rounds: measured after one round of
    warm-up.
    """

    prompt: int = 256
    new_tokens: int = 8
    rounds: int = 3


@dataclass(frozen=True)
class Speed:
    """Medians over rounds, in tokens per second."""

    prefill: float
    decode: float


def speeds(models: dict[str, PreTrainedModel], protocol: SpeedProtocol) -> dict[str, Speed]:
    """Measure all `models` in turn, round by round, so that what slows the machine slows each of them."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in models}
    for round_number in range(protocol.rounds + 1):
        for name, model in models.items():
            measured = _one_round(model, protocol)
            if round_number > 0:
                times[name].append(measured)
    return {
        name: Speed(
            prefill=protocol.prompt / statistics.median(prefill for prefill, _ in rounds),
            decode=protocol.new_tokens / statistics.median(decode for _, decode in rounds),
        )
        for name, rounds in times.items()
    }


def _one_round(model: Any, protocol: SpeedProtocol) -> tuple[float, float]:
    import torch

    prompt = torch.ones(1, protocol.prompt, dtype=torch.long, device=model.device)
    with torch.inference_mode():
        started = _now(model)
        output = model(input_ids=prompt, use_cache=True)
        read = _now(model)
        cache, token = output.past_key_values, output.logits[:, -1:].argmax(-1)
        for _ in range(protocol.new_tokens):
            output = model(input_ids=token, past_key_values=cache, use_cache=True)
            token = output.logits[:, -1:].argmax(-1)
        return read - started, _now(model) - read


def _now(model: Any) -> float:
    """The clock, once the device has done what it was given."""
    import torch

    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    return time.perf_counter()


def peak_memory(device: torch.device) -> int | None:
    """The most bytes held so far: by tensors on a CUDA device, else by this process (None where that isn't told)."""
    import torch

    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def growth_exponent(seconds: dict[int, float]) -> float:
    """b of seconds = a * size ** b, fitted by least squares on logarithms: 1 is linear, 2 quadratic."""
    logarithms = [math.log(size) for size in seconds], [math.log(time) for time in seconds.values()]
    return statistics.linear_regression(*logarithms).slope
