"""Dry runs for a person at a terminal, and as JSON values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from .deploy import Use
from .dryrun import DryRun, Kind, Refused
from .recipes import Case, as_option, reductions

COUNTS, MACS, BYTES = ("T", "B", "M", "k"), ("T", "G", "M", "k"), (" TB", " GB", " MB", " kB")


def to_json(model: str, runs: Sequence[DryRun], refused: Sequence[Refused]) -> dict[str, Any]:
    """Everything that `lines` says, and the pruned configs, as JSON values."""
    return {
        "model": model,
        "plans": [_run(run) for run in runs],
        "refused": [{**_case(one.case), "why": one.why} for one in refused],
    }


def lines(model: str, runs: Sequence[DryRun], refused: Sequence[Refused]) -> Iterator[str]:
    """One case in full, several as a table of one row each; `model` as the user named it."""
    if len(runs) == 1 and not refused:
        yield from _in_full(model, runs[0])
        return
    case = runs[0].case
    yield model + _rounded(case)
    yield from _table(runs)
    for one in refused:
        yield f"  {_title(one.case)}: {one.why}"
    rounded = f" --round-to {case.round_to}" if case.round_to > 1 else ""
    yield f"next: llmprune plan {model} --recipe {case.recipe} --ratio {case.ratio:g}{rounded}"


def _in_full(model: str, run: DryRun) -> Iterator[str]:
    yield f"{model}, {_title(run.case)}{_rounded(run.case)}"
    yield ""
    rows = [[name, _change(dense, pruned, units)] for name, dense, pruned, units in _sizes(run)]
    rows += [[part.unit, _change(part.total, part.total - part.removed)] for part in run.reductions]
    yield from _aligned(rows)
    yield ""
    yield from _aligned([[f"{kind.count} x", kind.name.removesuffix(".weight"), _shapes(kind)] for kind in run.kinds])
    yield ""
    yield from _aligned([["yes" if use.ok else "no", use.name, _why(use, run)] for use in run.uses])
    option = as_option(run.shape, run.case)
    if option and not model.endswith(".json"):  # a config alone can't be measured
        yield ""
        yield f"next: llmprune gate {model} --llmprune-prune {option}"


def _table(runs: Sequence[DryRun]) -> Iterator[str]:
    rows: list[list[str]] = []
    for run in runs:
        sizes = list(_sizes(run))
        if not rows:
            rows.append(["", *(name for name, *_ in sizes), "usable", "removed"])
            dense = [_scaled(dense, units) for _, dense, _, units in sizes]
            rows.append(["dense", *dense, f"{sum(use.dense_ok for use in run.uses)} of {len(run.uses)}", ""])
        changed = [f"{_scaled(pruned, units)} ({pruned / dense - 1:+.1%})" for _, dense, pruned, units in sizes]
        removed = ", ".join(f"{part.removed} of {part.total} {part.unit}" for part in run.reductions)
        rows.append([_title(run.case), *changed, f"{sum(use.ok for use in run.uses)} of {len(run.uses)}", removed])
    yield from _aligned(rows)


def _sizes(run: DryRun) -> Iterator[tuple[str, int, int, tuple[str, ...]]]:
    yield "parameters", run.dense.params, run.pruned.params, COUNTS
    yield "MACs per token", run.dense.macs, run.pruned.macs, MACS
    yield run.dtype, run.dense.bytes, run.pruned.bytes, BYTES


def _title(case: Case) -> str:
    return f"{case.recipe} {case.ratio:g}"


def _rounded(case: Case) -> str:
    return f", channels left in multiples of {case.round_to}" if case.round_to > 1 else ""


def _why(use: Use, run: DryRun) -> str:
    parts = [use.why] if use.why else []
    if not use.ok and not use.dense_ok:
        parts.append("nor is dense")
    if use.remedy is not None:
        parts.append(f"with {_flags(use.remedy, run)} it is")
    return "; ".join(parts)


def _flags(remedy: Case, run: DryRun) -> str:
    """What to ask for instead, and the ratio that a `round_to` achieves."""
    flags = [f"--ratio {remedy.ratio:g}"] if remedy.ratio != run.case.ratio else []
    if remedy.round_to != run.case.round_to:
        flags.append(f"--round-to {remedy.round_to} (ratio {_achieved(run, remedy):.4g})")
    return " ".join(flags)


def _change(dense: int, pruned: int, units: tuple[str, ...] = ()) -> str:
    return f"{_scaled(dense, units)} -> {_scaled(pruned, units)} ({pruned / dense - 1:+.1%})"


def _shapes(kind: Kind) -> str:
    dense, pruned = (" x ".join(map(str, shape)) for shape in (kind.dense, kind.pruned))
    return dense if dense == pruned else f"{dense} -> {pruned}"


def _scaled(value: int, units: tuple[str, ...]) -> str:
    """Three digits and a unit: 6.74B. Without units, all digits."""
    for unit, size in zip(units, (1e12, 1e9, 1e6, 1e3), strict=False):
        if value >= 0.9995 * size:
            return f"{value / size:#.3g}".rstrip(".") + unit
    return str(value)


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield ("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))).rstrip()


def _case(case: Case) -> dict[str, Any]:
    return {"recipe": case.recipe, "ratio": case.ratio, "round_to": case.round_to}


def _run(run: DryRun) -> dict[str, Any]:
    values = asdict(run)
    del values["case"], values["shape"]
    values["reductions"] = [{**asdict(part), "ratio": part.ratio} for part in run.reductions]
    values["uses"] = [
        {**asdict(use), "remedy": use.remedy and {**_case(use.remedy), "achieved": _achieved(run, use.remedy)}}
        for use in run.uses
    ]
    return {**_case(run.case), **values}


def _achieved(run: DryRun, case: Case) -> float:
    return reductions(run.shape, case)[0].ratio
