"""A record as one HTML page: verdicts, a plot of perplexity over its thresholds, and what the models wrote. Nothing is
loaded from elsewhere.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..graph.picture import picture
from ..graph.snapshot import read
from .recorder import graph_file
from .schema import Item, RunRecord
from .terminal import explain, next_command, worst_outcome

TEMPLATE = Path(__file__).with_name("report.html")
CONTINUATIONS_SHOWN = 3


@dataclass(frozen=True)
class Bar:
    """One bar of the plot, in pixels: a case's perplexity ratio with interval and threshold, on a logarithmic axis."""

    label: str
    outcome: str
    width: float
    low: float
    high: float
    threshold: float
    text: str


@dataclass(frozen=True)
class Plot:
    """The plot of one model: its bars, its axis ticks as (pixel, label), and its size in pixels."""

    bars: tuple[Bar, ...]
    ticks: tuple[tuple[float, str], ...]
    width: int = 520

    @property
    def height(self) -> int:
        return 34 * len(self.bars) + 30


def page(record: RunRecord, details: Path) -> str:
    """The page of a record. `details`: the folder of its sidecars, for the continuations; without it the page says so.

    Raises UserError if a sidecar is damaged.
    """
    from jinja2 import Environment

    judged = [item for item in record.items if item.verdicts]
    models = [
        _model(name, [item for item in judged if item.key.model == name], details)
        for name in dict.fromkeys(i.key.model for i in judged)
    ]
    graphs = [graph for item in record.items if (graph := _graph(details / graph_file(item.key)))]
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        TEMPLATE.read_text(encoding="utf-8")
    )
    return template.render(
        record=record,
        models=models,
        graphs=graphs,
        overall="fail" if record.exit_status else "pass",
        next_command=next_command(record, ""),
    )


def _graph(file: Path) -> dict[str, str] | None:
    """The picture of a graph that was kept, as the source of an image: so that its styles and the page's don't meet."""
    if not file.is_file():
        return None
    snapshot = read(file)
    svg = base64.b64encode(picture(snapshot).encode()).decode()
    return {"alt": f"one decoder layer of {snapshot.name}", "source": f"data:image/svg+xml;base64,{svg}"}


def _model(name: str, items: Sequence[Item], details: Path) -> dict[str, Any]:
    cases = []
    for item in items:
        cases.append(
            {
                "item": item,
                "label": f"{item.key.recipe} {item.key.ratio:g} {item.key.importance}",
                "outcome": worst_outcome(item.verdicts),
                "m": item.measurements,
                "verdicts": [(verdict["outcome"], explain(verdict)) for verdict in item.verdicts],
                "continuations": _continuations(details / item.details) if item.details else [],
            }
        )
    return {"name": name, "cases": cases, "plot": plot(items), "dense": items[0].measurements}


def _continuations(file: Path) -> list[dict[str, Any]]:
    """The worst continuations of pruned, each beside dense's of the same prompt and kind."""
    if not file.is_file():
        return []
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        dense = {(c["prompt"], c["kind"]): c["text"] for c in values["dense_continuations"]}
        return [
            {**c, "dense": dense.get((c["prompt"], c["kind"]), "")}
            for c in values["continuations"][:CONTINUATIONS_SHOWN]
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: the details are damaged: {error}") from None


def plot(items: Sequence[Item]) -> Plot | None:
    """The plot of perplexity ratios, or None if none was measured."""
    found = [item for item in items if "ppl_ratio" in item.measurements]
    if not found:
        return None
    thresholds = {
        item.key: next((v["threshold"] for v in item.verdicts if v["measurement"] == "ppl_ratio"), 1.0)
        for item in found
    }
    highest = max(
        max(item.intervals.get("ppl_ratio", (0, item.measurements["ppl_ratio"]))[1], thresholds[item.key])
        for item in found
    )
    decades = max(math.log10(highest * 1.1), 0.3)
    width = Plot((), ()).width

    def x(ratio: float) -> float:
        return round(max(0.0, math.log10(max(ratio, 1.0)) / decades) * width, 1)

    bars = []
    for item in found:
        ratio = item.measurements["ppl_ratio"]
        low, high = item.intervals.get("ppl_ratio", (ratio, ratio))
        outcome = next((v["outcome"] for v in item.verdicts if v["measurement"] == "ppl_ratio"), "pass")
        label = f"{item.key.recipe} {item.key.ratio:g}"
        bars.append(Bar(label, outcome, x(ratio), x(low), x(high), x(thresholds[item.key]), f"{ratio:.3g}"))
    steps = (
        (1, 1.5, 2, 3, 5) if decades < 0.8 else tuple(m * 10**d for d in range(math.ceil(decades) + 1) for m in (1, 3))
    )
    ticks = tuple((x(step), f"{step:g}") for step in steps if x(step) <= width)
    return Plot(tuple(bars), ticks)
