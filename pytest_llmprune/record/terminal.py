"""A record as the lines a person wants to see: a table per model, every failure with its numbers, and the next command
to type.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from .schema import WARNINGS, Item, RunRecord

COLUMNS = (
    "recipe",
    "ratio",
    "importance",
    "params",
    "perplexity",
    "x dense",
    "coherence",
    "prefill",
    "decode",
    "verdict",
)
MARKUP = {"pass": "green", "fail": "red", "undecided": "yellow"}


def lines(record: RunRecord, file: str) -> Iterator[tuple[str, str]]:
    """(text, colour) for each line of the summary; colour is green, red, yellow or empty. `file`: where the record was
    written.
    """
    for model in dict.fromkeys(item.key.model for item in record.items if item.verdicts):
        yield from _table([item for item in record.items if item.verdicts and item.key.model == model], model)
    for name in ("failed", "error"):
        for item in record.items:
            if item.outcome == name and not item.verdicts:
                yield f"{name}: {item.key}", "red"
    for key in record.missing:
        yield f"planned, and not finished: {key}", "red"
    for reason, count in record.deselected.items():
        yield f"{count} deselected: {reason}", ""
    counts: dict[str, int] = {}
    for item in record.items:
        counts[item.outcome] = counts.get(item.outcome, 0) + 1
    measured = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
    yield f"{measured or 'nothing was measured'}; fixes: {', '.join(record.fixes) or 'none'}", ""
    if record.warnings:
        full = f"; in full: {Path(file).with_suffix('.details') / WARNINGS}" if file else ""
        yield f"{record.warnings}{full}", ""
    if file:
        yield f"record: {file}", ""
    yield f"next: {next_command(record, file)}", ""


def next_command(record: RunRecord, file: str) -> str:
    """The command that most helps after this run: repeat what failed, or look at the report."""
    failed = [item for item in record.items if item.outcome in ("failed", "error")]
    if failed:
        key = failed[0].key
        case = (
            f" --llmprune-prune {key.recipe}:{key.ratio:g} --llmprune-importance {key.importance}" if key.recipe else ""
        )
        model = f" --llm-model {record.settings['spec_of'].get(key.model, key.model)}" if key.model else ""
        return f"pytest {record.settings['suites']}{model}{case}{record.settings['arguments']} -k {key.test}"
    return f"llmprune report {file or ''}".strip()


def _table(items: Sequence[Item], model: str) -> Iterator[tuple[str, str]]:
    dense = items[0].measurements
    rows = [list(COLUMNS)]
    rows.append(
        [
            "dense",
            "",
            "",
            _count(dense.get("dense.params")),
            _number(dense.get("dense.ppl")),
            "",
            _number(dense.get("dense.coherence")),
            _rate(dense.get("dense.prefill")),
            _rate(dense.get("dense.decode")),
            "",
        ]
    )
    outcomes = [""]
    for item in items:
        outcome = worst_outcome(item.verdicts)
        m = item.measurements
        rows.append(
            [
                item.key.recipe,
                f"{item.key.ratio:.3g}",
                item.key.importance,
                _count(m.get("params")),
                _number(m.get("ppl")),
                _with_interval(item, "ppl_ratio"),
                _number(m.get("coherence")),
                _rate(m.get("prefill")),
                _rate(m.get("decode")),
                outcome,
            ]
        )
        outcomes.append(outcome)
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    yield f"{model} (speeds in tokens/s, medians of this run)", ""
    for index, row in enumerate(rows):
        cells = [
            cell.ljust(w) if i in (0, 2, 9) else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  " + "  ".join(cells).rstrip(), MARKUP.get(outcomes[index - 1], "") if index else ""
    if cached := sorted({name for item in items for name, source in item.sources.items() if source == "cached"}):
        yield f"  found in the cache, measured in an earlier run: {', '.join(cached)}", ""
    for item in items:
        for verdict in item.verdicts:
            if verdict["outcome"] != "pass":
                yield f"  {item.key.recipe}-{item.key.ratio:g}: {explain(verdict)}", MARKUP[verdict["outcome"]]
    yield "", ""


def worst_outcome(verdicts: Iterable[dict[str, Any]]) -> str:
    """fail if any verdict is, else undecided if any is, else pass; empty without verdicts."""
    outcomes = {verdict["outcome"] for verdict in verdicts}
    return next((outcome for outcome in ("fail", "undecided", "pass") if outcome in outcomes), "")


def explain(verdict: dict[str, Any]) -> str:
    """A verdict in one line: measurement, value, interval, threshold."""
    interval = "" if verdict["low"] is None else f" (95% interval {verdict['low']:.4g} to {verdict['high']:.4g})"
    must = "at most" if verdict["operator"] == "<=" else "at least"
    is_value = f"{verdict['measurement']} is {verdict['value']:.4g}{interval}"
    return f"{verdict['outcome']}: {is_value}, must be {must} {verdict['threshold']:.4g}"


def _with_interval(item: Item, name: str) -> str:
    if name not in item.measurements:
        return ""
    low, high = item.intervals.get(name, (None, None))
    text = f"{item.measurements[name]:.3g}"
    return text if low is None else f"{text} [{low:.3g}, {high:.3g}]"


def _count(value: float | None) -> str:
    if value is None:
        return ""
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.4g}{unit}"
    return f"{value:g}"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _rate(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
