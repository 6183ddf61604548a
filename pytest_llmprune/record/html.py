"""A record as one HTML page: verdicts, a plot of perplexity over its thresholds, and what the models wrote. Nothing is loaded from elsewhere."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from .schema import Item, RunRecord
from .terminal import explain, next_command, worst_outcome

CONTINUATIONS_SHOWN = 3


@dataclass(frozen=True)
class Bar:
    """One bar of the plot, in pixels: a case's perplexity ratio with its interval and threshold, on a logarithmic axis."""

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
    models = [_model(name, [item for item in judged if item.key.model == name], details) for name in dict.fromkeys(i.key.model for i in judged)]
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(_TEMPLATE)
    return template.render(
        record=record,
        models=models,
        overall="fail" if record.exit_status else "pass",
        next_command=next_command(record, ""),
    )


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
        return [{**c, "dense": dense.get((c["prompt"], c["kind"]), "")} for c in values["continuations"][:CONTINUATIONS_SHOWN]]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: the details are damaged: {error}") from None


def plot(items: Sequence[Item]) -> Plot | None:
    """The plot of perplexity ratios, or None if none was measured."""
    found = [item for item in items if "ppl_ratio" in item.measurements]
    if not found:
        return None
    thresholds = {item.key: next((v["threshold"] for v in item.verdicts if v["measurement"] == "ppl_ratio"), 1.0) for item in found}
    highest = max(max(item.intervals.get("ppl_ratio", (0, item.measurements["ppl_ratio"]))[1], thresholds[item.key]) for item in found)
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
    steps = (1, 1.5, 2, 3, 5) if decades < 0.8 else tuple(m * 10**d for d in range(math.ceil(decades) + 1) for m in (1, 3))
    ticks = tuple((x(step), f"{step:g}") for step in steps if x(step) <= width)
    return Plot(tuple(bars), ticks)


_TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>llmprune: {{ overall }}</title>
<style>
:root { --pass: #1a7f4b; --fail: #c0362c; --undecided: #a86a00; --ink: #1d2330; --soft: #667085; --line: #e4e7ec; --paper: #fff; --back: #f6f7f9; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --soft: #98a2b3; --line: #2d3543; --paper: #171c26; --back: #0f131a; --pass: #4fbf87; --fail: #f0776c; --undecided: #e0a642; } }
* { box-sizing: border-box } body { margin: 0; background: var(--back); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 980px; margin: 0 auto; padding: 32px 20px 64px } h1 { font-size: 22px; margin: 0 0 4px } h2 { font-size: 18px; margin: 32px 0 12px }
section { background: var(--paper); border: 1px solid var(--line); border-radius: 10px; padding: 18px 20px; margin: 14px 0; overflow-x: auto }
.soft { color: var(--soft) } .pass { color: var(--pass) } .fail { color: var(--fail) } .undecided { color: var(--undecided) } b.tag { text-transform: uppercase; font-size: 12px; letter-spacing: .05em }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums } th { text-align: right; font-weight: 500; color: var(--soft); font-size: 13px }
th, td { padding: 6px 8px; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap } th:first-child, td:first-child { text-align: left }
tr:last-child td { border-bottom: 0 } code, pre { font: 13px/1.45 ui-monospace, monospace } pre { margin: 4px 0; white-space: pre-wrap; overflow-wrap: anywhere }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 16px; margin: 10px 0 } .pair > div { border-left: 3px solid var(--line); padding-left: 10px }
svg text { font: 12px system-ui, sans-serif; fill: var(--ink) } svg .axis { fill: var(--soft) }
</style></head><body><main>
<h1>Pruned models judged: <span class="{{ overall }}">{{ overall }}</span></h1>
<p class="soft">{{ record.created }} &middot; {% for name, value in record.environment.items() if name != "commit" %}{{ name }} {{ value }}{{ " · " if not loop.last }}{% endfor %}<br>
fixes of torch-pruning: {{ record.fixes | join(", ") or "none" }}</p>
{% for model in models %}
<h2>{{ model.name }}</h2>
<section><table>
<tr><th>case</th><th>parameters</th><th>perplexity</th><th>&times; dense</th><th>95% interval</th><th>coherence</th><th>prefill tok/s</th><th>decode tok/s</th><th>verdict</th></tr>
<tr><td>dense</td><td>{{ "{:,.0f}".format(model.dense["dense.params"]) }}</td><td>{{ "%.4g" | format(model.dense["dense.ppl"]) }}</td><td></td><td></td><td>{{ "%.2f" | format(model.dense["dense.coherence"]) }}</td><td>{{ "%.3g" | format(model.dense["dense.prefill"]) }}</td><td>{{ "%.3g" | format(model.dense["dense.decode"]) }}</td><td></td></tr>
{% for case in model.cases %}
<tr><td>{{ case.label }}</td><td>{{ "{:,.0f}".format(case.m["params"]) }}</td><td>{{ "{:,.4g}".format(case.m["ppl"]) }}</td><td>{{ "%.3g" | format(case.m["ppl_ratio"]) }}</td>
<td>{% if "ppl_ratio" in case.item.intervals %}{{ "%.3g to %.3g" | format(*case.item.intervals["ppl_ratio"]) }}{% endif %}</td>
<td>{{ "%.2f" | format(case.m["coherence"]) }}</td><td>{{ "%.3g" | format(case.m["prefill"]) }}</td><td>{{ "%.3g" | format(case.m["decode"]) }}</td><td class="{{ case.outcome }}"><b class="tag">{{ case.outcome }}</b></td></tr>
{% endfor %}
</table></section>
{% if model.plot %}
<section><div class="soft">Perplexity of pruned over dense, logarithmic; line: 95% interval, mark: threshold</div>
<svg role="img" aria-label="perplexity ratios" width="{{ model.plot.width + 260 }}" height="{{ model.plot.height }}" viewBox="0 0 {{ model.plot.width + 260 }} {{ model.plot.height }}">
{% for pixel, label in model.plot.ticks %}<line x1="{{ 130 + pixel }}" x2="{{ 130 + pixel }}" y1="0" y2="{{ model.plot.height - 24 }}" stroke="var(--line)"/><text class="axis" x="{{ 130 + pixel }}" y="{{ model.plot.height - 8 }}" text-anchor="middle">{{ label }}</text>{% endfor %}
{% for bar in model.plot.bars %}{% set y = 34 * loop.index0 + 6 %}
<text x="122" y="{{ y + 15 }}" text-anchor="end">{{ bar.label }}</text><rect x="130" y="{{ y }}" width="{{ [bar.width, 2] | max }}" height="20" rx="3" fill="var(--{{ bar.outcome }})" opacity=".75"/>
<line x1="{{ 130 + bar.low }}" x2="{{ 130 + bar.high }}" y1="{{ y + 10 }}" y2="{{ y + 10 }}" stroke="var(--ink)" stroke-width="2"/>
<line x1="{{ 130 + bar.threshold }}" x2="{{ 130 + bar.threshold }}" y1="{{ y - 4 }}" y2="{{ y + 24 }}" stroke="var(--ink)" stroke-width="2" stroke-dasharray="3 2"/>
<text x="{{ 138 + [bar.width, bar.high, bar.threshold] | max }}" y="{{ y + 15 }}">{{ bar.text }}</text>{% endfor %}
</svg></section>
{% endif %}
{% for case in model.cases %}
<section><b>{{ case.label }}</b> <b class="tag {{ case.outcome }}">{{ case.outcome }}</b>
{% for outcome, text in case.verdicts %}<pre class="{{ outcome }}">{{ text }}</pre>{% endfor %}
{% for c in case.continuations %}
<div class="soft">{{ "the worst continuation" if loop.first else "another" }}, {{ c.kind }}, score {{ "%.2f" | format(c.score) }}, after <code>{{ c.prompt }}</code></div>
<div class="pair"><div><span class="soft">pruned</span><pre>{{ c.text }}</pre></div><div><span class="soft">dense</span><pre>{{ c.dense }}</pre></div></div>
{% else %}<div class="soft">no continuations lie beside this record</div>{% endfor %}
</section>
{% endfor %}
{% endfor %}
<h2>Everything that ran</h2>
<section><table><tr><th>test</th><th>outcome</th><th>seconds</th></tr>
{% for item in record.items %}<tr><td>{{ item.key }}</td><td class="{{ {"passed": "pass", "failed": "fail", "error": "fail"}.get(item.outcome, "soft") }}">{{ item.outcome }}</td><td>{{ "%.1f" | format(item.seconds) }}</td></tr>{% endfor %}
{% for key in record.missing %}<tr><td>{{ key }}</td><td class="fail">did not finish</td><td></td></tr>{% endfor %}
</table>{% for reason, count in record.deselected.items() %}<p class="soft">{{ count }} deselected: {{ reason }}</p>{% endfor %}</section>
<p class="soft">next: <code>{{ next_command }}</code></p>
</main></body></html>
"""
