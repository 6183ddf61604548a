"""The oracle of pruning: removing channels must equal zeroing what reads them (down_proj's or o_proj's columns)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import UserError
from ..models.layout import decoder_layers
from .plan import PruningPlan

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MASKABLE = ("ffn", "heads", "kv-groups")


def mask(model: PreTrainedModel, plan: PruningPlan) -> None:
    """Zero in an unpruned `model` the columns that read what `plan` removes. Knows nothing of torch-pruning's maps:
    only of the architecture.

    Raises UserError for a recipe that changes the hidden size: a norm over fewer channels is another function.
    """
    import torch

    if plan.case.recipe not in MASKABLE:
        raise UserError(f"recipe {plan.case.recipe} has no masked equivalent")
    by_layer = {layer.name: layer for layer in decoder_layers(model)}
    for removal in plan.removals:
        layer = by_layer[removal.module.rsplit(".", 2)[0]]
        reader = layer.down if plan.case.recipe == "ffn" else layer.o
        columns = list(removal.indices)
        if removal.module.endswith("gate_up_proj"):  # gate and up stand one after the other
            columns = sorted({index % plan.shape.ffn for index in columns})
        if removal.module.endswith(("k_proj", "v_proj")):
            columns = [column for index in columns for column in _query_channels(index, plan)]
        with torch.no_grad():
            reader.weight[:, columns] = 0


def _query_channels(kv_channel: int, plan: PruningPlan) -> list[int]:
    """o_proj's input channels that a kv channel feeds: the same place in each of the query heads that share its kv
    head.
    """
    size, copies = plan.shape.head_dim, plan.shape.queries_per_kv
    head, place = divmod(kv_channel, size)
    return [(head * copies + copy) * size + place for copy in range(copies)]
