"""What a recipe reduces and in which steps, from the config alone: this is known before a model is loaded."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from ..errors import UserError
from ..models.layout import Shape
from ..words import RECIPES


@dataclass(frozen=True)
class Case:
    """What to prune: a recipe at a ratio in (0, 1), ranked by an importance."""

    recipe: str
    ratio: float
    importance: str = "taylor"

    @property
    def label(self) -> str:
        """For test ids and tables: `ffn-0.1-taylor`."""
        return f"{self.recipe}-{self.ratio:g}-{self.importance}"


def parse_cases(text: str) -> tuple[tuple[str, float], ...]:
    """`RECIPE:RATIO[,RATIO...]` as (recipe, ratio) pairs. Raises UserError for an unknown recipe or a ratio outside (0,
    1).
    """
    recipe, _, ratios = text.partition(":")
    if recipe not in RECIPES:
        raise UserError(f"{text!r}: unknown recipe {recipe!r}; there are {', '.join(RECIPES)}")
    if not ratios:
        raise UserError(f"{text!r}: no ratio; write for example {recipe}:0.1 or {recipe}:0.1,0.2")
    return tuple((recipe, _parse_ratio(text, part)) for part in ratios.split(","))


def _parse_ratio(text: str, part: str) -> float:
    try:
        ratio = float(part)
    except ValueError:
        raise UserError(f"{text!r}: {part!r} is no number; a ratio lies between 0 and 1, for example 0.1") from None
    if not 0 < ratio < 1:
        raise UserError(f"{text!r}: the ratio {part} is not between 0 and 1 (both excluded)")
    return ratio


@dataclass(frozen=True)
class Reduction:
    """How much of one size goes: `removed` of `total` units, in multiples of `step`."""

    unit: str
    total: int
    step: int
    removed: int

    @property
    def ratio(self) -> float:
        """The ratio achieved."""
        return self.removed / self.total


def reductions(shape: Shape, case: Case) -> tuple[Reduction, ...]:
    """What `case` takes from a model of `shape`: of each size the multiple of its step that is nearest to the ratio, at
    least one.

    ffn: single channels of the FFN. heads: one query head from every kv group (single heads where each has its own kv
    head). kv-groups: a kv head with its query heads. width: as many hidden channels as there are heads, since
    transformers >= 5 wants the hidden size to be a multiple of the heads. all: ffn, heads and width at once; its FFN
    channels go in the same steps as its width (torch-pruning's `round_to`).

    Raises UserError if the model has nothing that could go.
    """
    if case.recipe == "all":
        parts = ("width", "ffn") if shape.queries_per_kv == 1 and shape.heads == 1 else ("width", "ffn", "heads")
        return tuple(_nearest(shape, part, case, in_all=True) for part in parts)
    return (_nearest(shape, case.recipe, case),)


def _nearest(shape: Shape, recipe: str, case: Case, in_all: bool = False) -> Reduction:
    unit, total, step = {
        "ffn": ("FFN channels", shape.ffn, 1),
        "heads": ("query heads", shape.heads, shape.kv_heads if shape.queries_per_kv > 1 else 1),
        "kv-groups": ("kv heads", shape.kv_heads, 1),
        "width": ("hidden channels", shape.hidden, shape.heads),
    }[recipe]
    if in_all and recipe == "ffn":
        # torch-pruning rounds what remains down to a multiple of round_to
        width = _nearest(shape, "width", case)
        remaining = math.floor(total * (1 - (width.removed - 0.5) / width.total))
        return Reduction(unit, total, shape.heads, total - (remaining - remaining % shape.heads))
    most = math.ceil(total / step) - 1
    if most < 1:
        raise UserError(f"recipe {case.recipe}: the model has {total} {unit} in steps of {step}, so none can go")
    steps = min(most, max(1, math.floor(case.ratio * total / step + 0.5)))
    return Reduction(unit, total, step, steps * step)


def achieved(shape: Shape, case: Case) -> Case:
    """`case` with the ratio that its recipe achieves on a model of `shape` (for `all`, that of the width).

    A ratio that is met to half a percentage point keeps the digits it was asked with; another is given to three.
    """
    ratio = reductions(shape, case)[0].ratio
    return case if abs(ratio - case.ratio) < 0.005 else replace(case, ratio=round(ratio, 3))


def distinct(shape: Shape, cases: Iterable[Case]) -> tuple[Case, ...]:
    """The cases as a model of `shape` achieves them; of those that remove the same, the first."""
    kept: dict[tuple[str, str, tuple[Reduction, ...]], Case] = {}
    for case in cases:
        kept.setdefault((case.recipe, case.importance, reductions(shape, case)), achieved(shape, case))
    return tuple(kept.values())
