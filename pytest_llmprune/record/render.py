"""A comparison as lines for a person, as JSON, and as Markdown for a pull request."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from html import escape
from typing import Any

from .compare import CHANGED, HEALED, SAFE, SHIFTS, SHOWN, Comparison, Finding
from .measured import BROKEN, UNDECIDED, Shift

SCHEMA = 1
KINDS = (BROKEN, UNDECIDED, CHANGED, HEALED, SHOWN)
COLOURS = {BROKEN: "red", UNDECIDED: "red", CHANGED: "yellow", HEALED: "green", SAFE: "green", SHOWN: ""}
SUBJECTS_SHOWN = 3


def findings(comparison: Comparison, baseline: str) -> Iterator[tuple[str, str]]:
    """(text, colour) for each finding, equal ones in one line, and for the verdict."""
    for kind, text, subjects in folded(comparison.findings):
        yield f"{kind}: {_listed(subjects)}: {text}", COLOURS[kind]
    yield verdict_line(comparison, baseline), COLOURS[comparison.verdict]


def verdict_line(comparison: Comparison, baseline: str) -> str:
    """`safe against base.json: 41 items compared`."""
    items = "1 item" if comparison.compared == 1 else f"{comparison.compared} items"
    return f"{comparison.verdict} against {baseline}: {items} compared"


def folded(found: Iterable[Finding]) -> list[tuple[str, str, list[str]]]:
    """(kind, text, subjects) with the findings that say the same in one, the worst kinds first."""
    subjects: dict[tuple[str, str], list[str]] = {}
    for finding in found:
        subjects.setdefault((finding.kind, finding.text), []).append(finding.subject)
    return sorted(
        ((kind, text, names) for (kind, text), names in subjects.items()), key=lambda entry: KINDS.index(entry[0])
    )


def _listed(subjects: Sequence[str]) -> str:
    more = f" and {len(subjects) - SUBJECTS_SHOWN} more" if len(subjects) > SUBJECTS_SHOWN else ""
    return ", ".join(subjects[:SUBJECTS_SHOWN]) + more


def text(comparison: Comparison, baseline: str) -> str:
    """Everything in lines: a table of measurements, the timings, the findings, the verdict last."""
    lines = [*_aligned(table(comparison)), *_timings(comparison)]
    return "\n".join([*lines, *(line for line, _ in findings(comparison, baseline))]) + "\n"


def table(comparison: Comparison) -> list[list[str]]:
    """What was measured on both sides: a header and a row per case; empty if nothing was."""
    rows: dict[str, dict[str, str]] = {}
    for shift in comparison.shifts:
        key = shift.key
        case = " ".join(filter(None, (key.model, key.recipe, f"{key.ratio:.3g}" if key.ratio else "", key.importance)))
        rows.setdefault(case, {})[shift.name] = _moved(shift)
    columns = [name for name in SHIFTS if any(name in row for row in rows.values())]
    if not columns:
        return []
    return [["case", *columns], *([case, *(row.get(name, "") for name in columns)] for case, row in rows.items())]


def _moved(shift: Shift) -> str:
    equal = shift.before == shift.after
    moved = f"{shift.after:.4g} =" if equal else f"{shift.before:.4g} -> {shift.after:.4g}"
    if shift.low is None or shift.high is None or (equal and shift.name != "ppl"):
        return moved
    return f"{moved} [{shift.low - 1:+.2%}, {shift.high - 1:+.2%}]"


def _timings(comparison: Comparison) -> Iterator[str]:
    here = [str(timing) for timing in comparison.timings if not timing.elsewhere]
    other = [timing for timing in comparison.timings if timing.elsewhere]
    if here:
        yield f"timings, now / before: {', '.join(here)}"
    if other:
        yield f"timings on another machine, not judged ({other[0].elsewhere}): {', '.join(map(str, other))}"


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def to_json(comparison: Comparison) -> dict[str, Any]:
    """The comparison as JSON values: `schema` grows when a key changes its meaning or goes."""
    return {
        "schema": SCHEMA,
        "verdict": comparison.verdict,
        "compared": comparison.compared,
        "findings": [asdict(finding) for finding in comparison.findings],
        "measurements": [asdict(shift) for shift in comparison.shifts],
        "timings": [asdict(timing) for timing in comparison.timings],
    }


def as_json(comparison: Comparison) -> str:
    """`to_json` as text."""
    return json.dumps(to_json(comparison), indent=1) + "\n"


MARKS = {BROKEN: "❌", UNDECIDED: "❔", CHANGED: "⚠️", HEALED: "✅", SAFE: "✅"}


def markdown(comparison: Comparison, baseline: str) -> str:
    """The comparison as GitHub's Markdown. What tests and models wrote is escaped."""
    lines = [f"### {MARKS[comparison.verdict]} {_cell(verdict_line(comparison, baseline))}", ""]
    judged = [entry for entry in folded(comparison.findings) if entry[0] != SHOWN]
    if judged:
        lines += _markdown_table([["", "what", "how"], *([k, _listed(names), said] for k, said, names in judged)])
    lines += _markdown_table(table(comparison))
    lines += [f"{_cell(line)}\n" for line in _timings(comparison)]
    shown = [
        f"- {_cell(_listed(names))}: {_cell(said)}" for k, said, names in folded(comparison.findings) if k == SHOWN
    ]
    if shown:
        lines += ["<details><summary>shown, not judged</summary>", "", *shown, "", "</details>", ""]
    return "\n".join(lines)


def _markdown_table(rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return []
    lines = [f"| {' | '.join(map(_cell, row))} |" for row in rows]
    return [lines[0], f"|{' --- |' * len(rows[0])}", *lines[1:], ""]


def _cell(text: str) -> str:
    """Text that stands for itself in a cell: no markup, no line break."""
    plain = escape(" ".join(text.split()), quote=False)
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]()#+!|~@" else letter for letter in plain)
