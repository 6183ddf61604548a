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
    """What to prune: a recipe at a ratio in (0, 1), ranked by an importance.

    round_to: what is left of FFN channels and of hidden channels is a multiple of it.
    """

    recipe: str
    ratio: float
    importance: str = "taylor"
    round_to: int = 1

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
    """How much of one size goes: `removed` of `total` units, so that a multiple of `step` is left."""

    unit: str
    total: int
    step: int
    removed: int

    @property
    def ratio(self) -> float:
        """The ratio achieved."""
        return self.removed / self.total


def reductions(shape: Shape, case: Case) -> tuple[Reduction, ...]:
    """What `case` takes from a model of `shape`: of each size what leaves the multiple of its step that is nearest to
    the ratio, at least one step and never everything.

    ffn: single channels of the FFN. heads: one query head from every kv group (single heads where each has its own kv
    head). kv-groups: a kv head with its query heads. width: as many hidden channels as there are heads, since
    transformers >= 5 wants the hidden size to be a multiple of the heads. all: ffn, heads and width at once; its FFN
    channels go in the same steps as its width (torch-pruning's `round_to`). The case's `round_to` makes the steps of
    channels coarser.

    Raises UserError if the model has nothing that could go.
    """
    if case.round_to < 1:
        raise UserError(f"round_to is {case.round_to}; it must be 1 or more")
    if case.recipe != "all":
        return (_nearest(shape, case.recipe, case),)
    width = _nearest(shape, "width", case)
    heads = () if shape.heads == 1 else (_nearest(shape, "heads", case),)
    return (width, _ffn_in_all(shape.ffn, width), *heads)


def _nearest(shape: Shape, recipe: str, case: Case) -> Reduction:
    unit, total, step = {
        "ffn": ("FFN channels", shape.ffn, case.round_to),
        "heads": ("query heads", shape.heads, shape.kv_heads if shape.queries_per_kv > 1 else 1),
        "kv-groups": ("kv heads", shape.kv_heads, 1),
        "width": ("hidden channels", shape.hidden, math.lcm(shape.heads, case.round_to)),
    }[recipe]
    most = math.ceil(total / step) - 1
    if most < 1:
        raise UserError(f"recipe {case.recipe}: the model has {total} {unit} in steps of {step}, so none can go")
    kept = min(most, max(1, math.ceil((total - case.ratio * total) / step - 0.5)))
    return Reduction(unit, total, step, total - kept * step)


def _ffn_in_all(total: int, width: Reduction) -> Reduction:
    """torch-pruning takes the width's ratio and rounds what remains down to a multiple of the width's step."""
    kept = math.floor(total * (1 - (width.removed - 0.5) / width.total)) // width.step
    if kept < 1:
        raise UserError(
            f"recipe all: of {total} FFN channels in steps of {width.step}, none would be left; take a smaller ratio"
        )
    return Reduction("FFN channels", total, width.step, total - kept * width.step)


def left(shape: Shape, case: Case) -> Shape:
    """The shape of what `case` leaves of a model of `shape`. Raises UserError as `reductions` does."""
    sizes = {part.unit: part.total - part.removed for part in reductions(shape, case)}
    heads, kv_heads = sizes.get("query heads", shape.heads), sizes.get("kv heads", shape.kv_heads)
    if "kv heads" in sizes:
        heads = kv_heads * shape.queries_per_kv
    elif shape.queries_per_kv == 1:
        kv_heads = heads
    return replace(
        shape,
        hidden=sizes.get("hidden channels", shape.hidden),
        ffn=sizes.get("FFN channels", shape.ffn),
        heads=heads,
        kv_heads=kv_heads,
    )


def as_option(shape: Shape, case: Case) -> str | None:
    """The shortest `RECIPE:RATIO` that, without a `round_to`, takes from a model of `shape` what `case` does, or None
    if there is none.
    """
    wanted, ratio = left(shape, case), reductions(shape, case)[0].ratio
    for spelled in (case.ratio, *(round(ratio, digits) for digits in range(1, 9))):
        if 0 < spelled < 1 and left(shape, replace(case, ratio=spelled, round_to=1)) == wanted:
            return f"{case.recipe}:{spelled}"
    return None


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
