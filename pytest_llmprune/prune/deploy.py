"""Where a pruned model can be used, from its sizes: what loaders, servers and kernels want divided by what."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from ..errors import CheckFailed, UserError
from ..models.layout import Shape, shape_of
from .checkpoint import readable_config
from .config import set_sizes
from .recipes import Case, left, reductions


@dataclass(frozen=True)
class Use:
    """One place to use a pruned model.

    why: what is in the way; if nothing is, what is to know, or nothing. dense_ok: whether the unpruned model can be
    used there. remedy: the nearest case of the same recipe that can be used there, if this one can't: with the smallest
    `round_to` that ensures it, and with another ratio only if no `round_to` does.
    """

    name: str
    ok: bool
    why: str
    dense_ok: bool
    remedy: Case | None = None


@dataclass(frozen=True)
class _Need:
    """obstacles: what is in the way of a model of some shape. multiple: the `round_to` that clears channels of them.
    note: what to know if nothing is in the way.
    """

    name: str
    multiple: int
    obstacles: Callable[[Shape], list[str]]
    note: Callable[[Shape], str] = lambda shape: ""


def uses(config: Any, case: Case) -> tuple[Use, ...]:
    """Where the model of `config` can be used once `case` has pruned it. Raises UserError if the config is of no
    language model, or the case can't prune it.
    """
    shape = shape_of(config)
    if getattr(config, "vocab_size", None) is None:
        raise UserError("the config is of no language model: it has no vocab_size")
    return tuple(_judge(need, shape, case) for need in _needs(config))


def _judge(need: _Need, shape: Shape, case: Case) -> Use:
    pruned = left(shape, case)
    obstacles, dense_ok = need.obstacles(pruned), not need.obstacles(shape)
    if not obstacles:
        return Use(need.name, True, need.note(pruned), dense_ok)
    remedy = next((other for other in _nearest(need, shape, case) if not need.obstacles(left(shape, other))), None)
    return Use(need.name, False, "; ".join(obstacles), dense_ok, remedy)


def _nearest(need: _Need, shape: Shape, case: Case) -> Iterator[Case]:
    """Cases of the same recipe, the nearest first: channels rounded, then as many heads as there can be."""
    heads = [part for part in reductions(shape, case) if part.unit.endswith("heads")]
    others = {round(steps * part.step / part.total, 4) for part in heads for steps in range(1, part.total // part.step)}
    for ratio in (case.ratio, *sorted(others, key=lambda other: abs(other - case.ratio))):
        for round_to in (case.round_to, math.lcm(case.round_to, need.multiple)):
            other = replace(case, ratio=ratio, round_to=round_to)
            try:
                reductions(shape, other)
            except UserError:
                continue
            yield other


def _needs(config: Any) -> tuple[_Need, ...]:
    vocabulary = config.vocab_size
    return (
        _transformers(config),
        *(_Need(f"vLLM on {gpus} GPU{'s' * (gpus > 1)}", gpus, _vllm(config, gpus)) for gpus in (1, 2, 4, 8)),
        # llama.cpp quantizes each row of a weight in blocks; a row is as long as the layer's input. Where a K-quant's
        # block of 256 doesn't fit, it takes a type with blocks of 32; where those don't, it stops, or keeps 16 bits
        # (src/llama-quant.cpp, tensor_type_fallback).
        _Need("llama.cpp Q4_0, Q8_0", 32, lambda shape: _odd(32, _inputs(shape))),
        _Need("llama.cpp Q4_K, Q6_K", 256, lambda shape: _odd(256, _inputs(shape))),
        # Tensor cores read 16 bytes at a time: 8 numbers of 16 bits, 16 of 8 bits (torch._scaled_mm refuses float8
        # otherwise). From the A100 on they are fastest on multiples of 64 (NVIDIA, Matrix Multiplication Background).
        _Need("tensor cores, 16 bits", 8, lambda shape: _odd(8, _widths(shape, vocabulary))),
        _Need("tensor cores, 8 bits", 16, lambda shape: _odd(16, _widths(shape, vocabulary))),
        _Need("tensor cores, full tiles", 64, lambda shape: _odd(64, _widths(shape, vocabulary))),
    )


def _transformers(config: Any) -> _Need:
    def written(shape: Shape) -> Any:
        sized = copy.deepcopy(config)
        set_sizes(sized, shape)
        return readable_config(sized)

    def obstacles(shape: Shape) -> list[str]:
        try:
            written(shape)
        except CheckFailed as error:
            return [str(error).rsplit(": ", 1)[-1]]
        return []

    def note(shape: Shape) -> str:
        model_type = written(shape).model_type
        return "" if model_type == config.model_type else f"its checkpoint is written as a {model_type}"

    return _Need("transformers", 1, obstacles, note)


def _vllm(config: Any, gpus: int) -> Callable[[Shape], list[str]]:
    """vLLM gives each GPU as many query heads and FFN channels as any other, and as many kv heads; of fewer kv heads
    than GPUs, each goes to as many GPUs as any other. It pads the vocabulary itself, to a multiple of 64. Its Qwen2
    takes no head size from the config but divides the hidden size by the heads. (vllm/model_executor:
    models/llama.py, models/qwen2.py, layers/vocab_parallel_embedding.py)
    """

    def obstacles(shape: Shape) -> list[str]:
        found = _odd(gpus, {"query heads": shape.heads, "FFN channels": shape.ffn})
        if max(shape.kv_heads, gpus) % min(shape.kv_heads, gpus):
            found.append(f"{shape.kv_heads} kv heads can't be shared evenly by {gpus}")
        if config.model_type == "qwen2" and shape.head_dim * shape.heads != shape.hidden:
            found.append(
                f"it takes {shape.hidden} / {shape.heads} for the head size of a Qwen2, which is {shape.head_dim}"
            )
        return found

    return obstacles


def _inputs(shape: Shape) -> dict[str, int]:
    """What the layers of a model read."""
    return {
        "hidden channels": shape.hidden,
        "FFN channels": shape.ffn,
        "channels of all query heads": shape.heads * shape.head_dim,
    }


def _widths(shape: Shape, vocabulary: int) -> dict[str, int]:
    """What the layers of a model read or write."""
    return {**_inputs(shape), "channels of all kv heads": shape.kv_heads * shape.head_dim, "tokens": vocabulary}


def _odd(multiple: int, sizes: dict[str, int]) -> list[str]:
    return [f"{size} {unit} are no multiple of {multiple}" for unit, size in sizes.items() if size % multiple]
