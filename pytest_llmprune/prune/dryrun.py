"""What a pruning would give, without weights: the model is built on the meta device and really pruned there."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import CheckFailed, UserError
from ..graph.budget import propagation_budget
from ..graph.trace import trace
from ..models.layout import Shape
from ..models.load import build_on_meta, load_config, meta_model
from ..models.spec import ModelSpec
from ..quality.cost import Size, size_of
from .apply import apply_plan
from .checkpoint import readable_config
from .deploy import Use, uses
from .plan import unranked_plan
from .recipes import Case, Reduction

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Kind:
    """The parameters that differ only in their layer, e.g. `model.layers.*.mlp.up_proj.weight`: how many there are, and
    the shape of each before and after.
    """

    name: str
    count: int
    dense: tuple[int, ...]
    pruned: tuple[int, ...]


@dataclass(frozen=True)
class Refused:
    """A case that a model does not admit or torch-pruning can't do, and why."""

    case: Case
    why: str


@dataclass(frozen=True)
class DryRun:
    """What `case` makes of a model of `shape`, and where that can be used. dtype: what bytes are counted in.

    config: the values of the config.json that its checkpoint would have, or None if transformers reads none that says
    the same.
    """

    case: Case
    shape: Shape
    reductions: tuple[Reduction, ...]
    dtype: str
    dense: Size
    pruned: Size
    kinds: tuple[Kind, ...]
    uses: tuple[Use, ...]
    config: dict[str, Any] | None


def dry_run(spec: ModelSpec, case: Case) -> DryRun:
    """Prune `spec` as `case` says, through torch-pruning, on the meta device: as many units go as ranking would choose.

    Needs just a config, whatever `spec` says of weights. Raises UserError for a model that can't be read or reduced so,
    CheckFailed if torch-pruning removes something else than the case asks for, or the new config does not describe what
    is left.
    """
    config = load_config(spec)
    found_uses = uses(config, case)  # first: it refuses what can't be reduced before anything is built
    model = meta_model(config, spec)
    plan = unranked_plan(model, case)
    dense, before = size_of(model), _shapes(model)
    with propagation_budget():
        try:
            apply_plan(model, trace(model), plan)
        except (UserError, CheckFailed):
            raise
        except Exception as error:  # of an architecture that torch-pruning's tracer can't follow
            raise CheckFailed(
                f"torch-pruning can't prune {type(model).__name__}: {type(error).__name__}: {error}"
            ) from error
    after = _shapes(model)
    return DryRun(
        case=case,
        shape=plan.shape,
        reductions=plan.reductions,
        dtype=str(model.dtype).removeprefix("torch."),
        dense=dense,
        pruned=size_of(model),
        kinds=_kinds(before, after),
        uses=found_uses,
        config=_config(model, after),
    )


def _shapes(model: PreTrainedModel) -> Shapes:
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def _kinds(before: Shapes, after: Shapes) -> tuple[Kind, ...]:
    counts = Counter((re.sub(r"\.\d+\.", ".*.", name), before[name], after[name]) for name in before)
    return tuple(Kind(name, count, dense, pruned) for (name, dense, pruned), count in counts.items())


def _config(model: PreTrainedModel, shapes: Shapes) -> dict[str, Any] | None:
    """The config that a checkpoint of `model` is written with, once a model made from it has shown these shapes."""
    try:
        config = readable_config(model.config)
    except CheckFailed:
        return None
    try:
        rebuilt = build_on_meta(config)
    except Exception as error:  # whatever a model's constructor raises
        raise CheckFailed(f"no model can be made from the pruned config: {error}") from error
    found = _shapes(rebuilt)
    for name in {**shapes, **found}:
        has, says = shapes.get(name), found.get(name)
        if has != says:
            raise CheckFailed(f"the pruned config does not describe {name}: it is {has}, the config says {says}")
    config.architectures = [type(rebuilt).__name__]
    values: dict[str, Any] = json.loads(config.to_json_string())
    return values
