"""Trace a model into torch-pruning's DependencyGraph, on cpu, cuda or meta, with the fixes and the guard on
propagation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import CheckFailed
from ..torch_pruning_api import dependency_graph, quiet

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SEQUENCE_LENGTH = 8


def example_inputs(model: PreTrainedModel, *, use_cache: bool | None = None) -> dict[str, Any]:
    """Keyword inputs that trace a causal model: one sequence of ones, shape [1, 8], and its mask of ones.

    use_cache: None leaves it to the model's config, except on the meta device, where a cache would have to read values.
    """
    import torch

    ids = torch.ones(1, SEQUENCE_LENGTH, dtype=torch.long, device=model.device)
    inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if use_cache is None and model.device.type == "meta":
        use_cache = False
    if use_cache is not None:
        inputs["use_cache"] = use_cache
    return inputs


def trace(model: PreTrainedModel, *, use_cache: bool | None = None, outputs: Callable[[Any], Any] | None = None) -> Any:
    """torch-pruning's DependencyGraph of a causal model, from all that it returns or what `outputs` picks of it.

    Raises CheckFailed where torch-pruning fails: without the fix nested-outputs on every model that returns a cache.
    """
    with quiet():
        inputs = example_inputs(model, use_cache=use_cache)
        try:
            return dependency_graph(model, inputs, outputs)
        except CheckFailed:
            raise
        except Exception as error:
            raise CheckFailed(f"torch-pruning can't trace the model: {type(error).__name__}: {error}") from error
