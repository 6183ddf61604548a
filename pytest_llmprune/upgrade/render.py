"""An upgrade as lines for a person, as JSON, and as Markdown: what each side was, and how their records compare."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..record import render
from .requirement import PACKAGES
from .run import SideRun, Upgrade


def text(result: Upgrade, keep: Path) -> str:
    """Both sides, the comparison, and where the records lie; the verdict last."""
    lines = [*_sides(result), *_kept(result, keep)]
    return "\n".join(lines) + "\n" + render.text(result.comparison, _before(result))


def markdown(result: Upgrade, keep: Path) -> str:
    """The same for a pull request, the verdict first."""
    lines = [*_sides(result), *_kept(result, keep)]
    return render.markdown(result.comparison, _before(result)) + "\n```\n" + "\n".join(lines) + "\n```\n"


def as_json(result: Upgrade) -> str:
    """The comparison's values, with those of both sides."""
    sides = {"from": _side(result.old), "to": _side(result.new)}
    return json.dumps({**render.to_json(result.comparison), **sides}, indent=1) + "\n"


def _before(result: Upgrade) -> str:
    return stack(result.old)


def stack(run: SideRun) -> str:
    """What a side is, by the versions that it really had: `torch-pruning 1.6.0`."""
    named = [name for name in PACKAGES if any(req.name == name for req in run.side.reqs)] or list(PACKAGES)
    return ", ".join(f"{name} {run.versions[name]}" for name in named if name in run.versions) or run.side.label


def _sides(result: Upgrade) -> Iterator[str]:
    for run in (result.old, result.new):
        versions = ", ".join(f"{name} {run.versions[name]}" for name in PACKAGES if name in run.versions)
        parts = [f"{run.side.name:4} {run.side.label}", run.how, versions]
        if run.kept:
            parts.append(f"fixes: {', '.join(run.kept.record.fixes) or 'none'}")
            parts.append(f"{run.seconds:.0f} s, at most {run.peak_memory / 1e9:.2f} GB")
        yield "; ".join(filter(None, parts))
    if stack(result.old) == stack(result.new) and result.old.versions:
        yield f"both sides are {stack(result.old)}: if they are not different checkouts, this compares it with itself"


def _kept(result: Upgrade, keep: Path) -> Iterator[str]:
    files = [str(keep / f"{run.side.name}.json") for run in (result.old, result.new) if run.kept]
    yield f"records: {', '.join(files) or 'none'}; what the sides said: {keep / 'from.log'}, {keep / 'to.log'}"


def _side(run: SideRun) -> dict[str, Any]:
    return {
        "requirements": [req.label for req in run.side.reqs],
        "environment": run.how,
        "versions": run.versions,
        "fixes": list(run.kept.record.fixes) if run.kept else [],
        "trouble": run.trouble,
        "seconds": run.seconds,
        "peak_memory": run.peak_memory,
    }
