"""Prune a model in place: calibrate if the importance needs it, plan, remove, put config and attributes right."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ..errors import CheckFailed, UserError
from ..graph.budget import propagation_budget
from ..models.layout import shape_of
from ..torch_pruning_api import in_channels, out_channels
from .config import synchronise
from .importance import NEEDS_GRADIENTS, calibrate
from .plan import PruningPlan, make_plan
from .recipes import Case, left

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class PrunedModel:
    """A model pruned in place and its plan. `seconds` is planning and pruning, without calibration."""

    model: PreTrainedModel
    plan: PruningPlan
    seconds: float


def prune(model: PreTrainedModel, case: Case, *, calibration: torch.Tensor | None = None, seed: int = 0) -> PrunedModel:
    """Prune `model` in place as `case` says.

    calibration: token windows [n, length], needed by Taylor importance. seed: for random importance.

    Raises UserError for a missing calibration or a recipe that the model doesn't admit, CheckFailed if torch-pruning
    removed something else than the case asks for, RunawayPropagation if its propagation would not end.
    """
    import torch

    kv_scores = None
    if case.importance in NEEDS_GRADIENTS:
        if calibration is None:
            raise UserError(f"importance {case.importance} needs calibration tokens")
        kv_scores = calibrate(model, calibration)
    started = time.perf_counter()
    with torch.random.fork_rng(devices=[]), propagation_budget():
        torch.manual_seed(seed)
        plan, graph = make_plan(model, case, kv_scores)
        apply_plan(model, graph, plan)
    seconds = time.perf_counter() - started
    model.zero_grad(set_to_none=True)
    return PrunedModel(model, plan, seconds)


def apply_plan(model: PreTrainedModel, graph: Any, plan: PruningPlan) -> None:
    """Remove a plan's channels from the model that `graph` was traced from, through torch-pruning's groups.

    Raises CheckFailed if the sizes afterwards are not those that the plan's reductions imply.
    """
    for removal in plan.removals:
        module = model.get_submodule(removal.module)
        prune_channels = out_channels() if removal.out else in_channels()
        graph.get_pruning_group(module, prune_channels, list(removal.indices)).prune()
    synchronise(model)
    _check_sizes(model, plan)


def _check_sizes(model: PreTrainedModel, plan: PruningPlan) -> None:
    wanted, found = asdict(left(plan.shape, plan.case)), asdict(shape_of(model.config))
    for size, number in wanted.items():
        if found[size] != number:
            raise CheckFailed(
                f"recipe {plan.case.recipe}: of {size} {number} should be left, torch-pruning left {found[size]}"
            )
