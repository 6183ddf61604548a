"""Make a record the baseline: write down what is accepted with it, who accepts it, and when."""

from __future__ import annotations

import getpass
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ..errors import UserError
from .compare import BAD, compare
from .render import folded
from .schema import Acceptance
from .store import Kept, write_kept


def accept(kept: Kept, before: Kept | None, target: Path) -> Iterator[str]:
    """Write a record and its sidecars as the baseline `target`, and yield what is accepted, line by line.

    before: the baseline that it replaces. Raises UserError for a record that nothing can be held against, or for a
    file that can't be written.
    """
    record = kept.record
    if not record.items or record.missing:
        why = f"{len(record.missing)} planned items did not finish" if record.missing else "it holds no items"
        raise UserError(f"this record can be no baseline: {why}")
    findings = tuple(_accepted(kept, before))
    acceptance = Acceptance(_who(), time.strftime("%Y-%m-%dT%H:%M:%S%z"), findings)
    history = before.record.accepted if before else ()
    try:
        write_kept(replace(kept, record=replace(record, accepted=(*history, acceptance))), target)
    except OSError as error:
        raise UserError(f"{target}: {error.strerror}") from None
    yield from (f"accepted: {text}" for text in findings)
    yield f"{target}: {len(record.items)} items, accepted by {acceptance.by} at {acceptance.at}"


def _accepted(kept: Kept, before: Kept | None) -> Iterator[str]:
    """What is different from the baseline before; of a first baseline, what fails in it."""
    if before is None:
        yield from (f"{i.key}: {i.outcome} ({i.reason})" for i in kept.record.items if i.outcome in BAD)
        return
    for kind, text, subjects in folded(compare(before, kept).findings):
        yield f"{kind}: {', '.join(subjects)}: {text}"


def _who() -> str:
    """The name that git knows the user by, else the system's."""
    try:
        git = ["git", "config", "user.name"]
        name = subprocess.run(git, capture_output=True, text=True, timeout=10, check=False).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        name = ""
    try:
        return name or getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return "unknown"
