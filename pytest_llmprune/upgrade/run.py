"""Run the suites on two stacks, one after the other, and compare their records. A side that can't be installed or
imported, crashes, hangs or is killed is a result.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import UserError
from ..record.compare import SHOWN, Comparison, Finding, compare
from ..record.measured import BROKEN, FailOn
from ..record.schema import RunRecord
from ..record.store import Journal, Kept, details_of, read_kept, store_dir, write_kept
from ..resources import suites_dir
from ..session import so_far
from .overlay import DISK_FULL, CannotInstall, Environment, prepare
from .process import Ended, run
from .requirement import Req

DEFAULT_RULE = FailOn("ppl", 0.02)
SUITES_DONE, USAGE, NOTHING_COLLECTED = (0, 1), 4, 5
PROBE = """
import json, torch, transformers, torch_pruning
from pytest_llmprune.record.environment import environment
print(json.dumps(environment()))
"""


@dataclass(frozen=True)
class Side:
    """What a side is to be. python: an interpreter to use instead of this one."""

    name: str
    reqs: tuple[Req, ...]
    python: Path | None = None

    @property
    def label(self) -> str:
        """As the user named it."""
        return ", ".join(req.label for req in self.reqs) or str(self.python)


@dataclass(frozen=True)
class Suites:
    """What is run on each side: pytest's arguments after the suites, and the seconds a side may take."""

    arguments: tuple[str, ...]
    limit: float


@dataclass(frozen=True)
class SideRun:
    """What became of a side. how: the kind of its environment. kept: its record, also of what it had done when it was
    cut short; None if it has none. trouble: why it did not end by itself, in one line, or empty. peak_memory: bytes of
    its largest process.
    """

    side: Side
    how: str
    versions: dict[str, str]
    kept: Kept | None
    trouble: str
    seconds: float
    peak_memory: int


@dataclass(frozen=True)
class Upgrade:
    """Both sides and what is different between them."""

    old: SideRun
    new: SideRun
    comparison: Comparison


def upgrade(old: Side, new: Side, suites: Suites, rules: Sequence[FailOn], scratch: Path, keep: Path) -> Upgrade:
    """Run both sides in folders under `scratch`, copy their records to `keep`, and compare them.

    rules: what may not get worse; without any, perplexity by 2% where both sides measured it. Raises UserError as
    `prepare` and `run_suites` do, or if `keep` can't be written.
    """
    sides = [prepared(side, scratch, suites.limit) for side in (old, new)]
    runs = [side for side in sides if isinstance(side, SideRun)]
    if runs:  # a side that can't even be imported leaves nothing to compare
        empty = (SideRun(side, "", {}, None, "", 0.0, 0) for side in (old, new))
        found = [side if isinstance(side, SideRun) else next_ for side, next_ in zip(sides, empty, strict=True)]
    else:
        found = [run_suites(side, suites) for side in sides if not isinstance(side, SideRun)]
    for side in found:
        _keep(side, scratch, keep)
    before, after = found
    return Upgrade(before, after, _compared(before, after, rules))


def _compared(before: SideRun, after: SideRun, rules: Sequence[FailOn]) -> Comparison:
    findings = []
    for side in (before, after):
        if side.trouble:
            worst = side is after or side.kept is None
            findings.append(Finding(BROKEN if worst else SHOWN, f"{side.side.name} {side.side.label}", side.trouble))
    if before.kept is None or after.kept is None:
        return Comparison(tuple(findings), 0)
    if not rules and _measured(before.kept.record, DEFAULT_RULE.measurement):
        rules = [DEFAULT_RULE]
    comparison = compare(before.kept, after.kept, rules)
    return replace(comparison, findings=(*findings, *comparison.findings))


def _measured(record: RunRecord, name: str) -> bool:
    return any(name in item.measurements for item in record.items)


@dataclass(frozen=True)
class Ready:
    """A side that can run."""

    side: Side
    environment: Environment
    versions: dict[str, str]
    folder: Path


def prepared(side: Side, scratch: Path, limit: float) -> Ready | SideRun:
    """Install a side in `scratch` and import what is under test; a SideRun with its trouble where that fails."""
    folder = scratch / side.name
    folder.mkdir()
    _say(f"{side.name} {side.label}: making its environment")
    try:
        environment = prepare(side.reqs, side.python, folder, limit)
    except CannotInstall as error:
        return SideRun(side, "", {}, None, f"can't be installed: {error}", 0.0, 0)
    command = [str(environment.python), "-c", PROBE]
    ended = run(command, environment.variables(folder), folder, "import", limit)
    if ended.code != 0:
        why = ended.last_line if ended.code and ended.code > 0 else f"it {ended.how(limit)}"
        return SideRun(side, environment.how, {}, None, f"can't be imported: {why}", ended.seconds, ended.peak_memory)
    return Ready(side, environment, json.loads(ended.stdout.splitlines()[-1]), folder)


def run_suites(ready: Ready, suites: Suites) -> SideRun:
    """Run pytest on the suites. Raises UserError if it refuses the arguments or selects nothing, or for a full disk."""
    folder, side = ready.folder, ready.side
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "tmp").mkdir()
    # the suites' folder goes last on the path: an installed one lies beside an installed torch_pruning
    command = [str(ready.environment.python), "-m", "pytest", str(suites_dir()), "--import-mode=append"]
    command += [f"--rootdir={folder}", "-c", str(folder / "pytest.ini"), f"--basetemp={folder / 'tmp' / 'pytest'}"]
    command += ["-p", "no:cacheprovider", "--llmprune-record", str(folder / "record.json"), *suites.arguments]
    _say(f"{side.name} {side.label}: running the suites ({ready.environment.how})")
    ended = run(command, ready.environment.variables(folder / "tmp"), folder, "suites", suites.limit)
    _refuse(ended)
    kept, trouble = _record(ready, ended, suites.limit)
    return SideRun(side, ready.environment.how, ready.versions, kept, trouble, ended.seconds, ended.peak_memory)


def _refuse(ended: Ended) -> None:
    said = [line for line in f"{ended.stderr}\n{ended.stdout}".splitlines() if line.startswith("ERROR: ")]
    if ended.code == USAGE:
        raise UserError(said[0].removeprefix("ERROR: ") if said else ended.last_line)
    if ended.code == NOTHING_COLLECTED:
        raise UserError("not one test was selected, so there is nothing to compare")
    if ended.code != 0 and DISK_FULL in ended.stdout + ended.stderr:
        raise UserError(f"the disk is full: {DISK_FULL} while the suites ran")


def _record(ready: Ready, ended: Ended, limit: float) -> tuple[Kept | None, str]:
    """The record that a run left, whole or up to where it was cut short, and what is wrong with it."""
    file = ready.folder / "record.json"
    if ended.code in SUITES_DONE and file.is_file():
        kept = read_kept(file)
        differing = [name for name, value in ready.versions.items() if kept.record.environment.get(name) != value]
        return kept, f"another {', '.join(differing)} ran than was installed" if differing else ""
    journals = list(store_dir(ready.folder).glob("journal-*"))
    if not journals:
        return None, f"{ended.how(limit)} before the first test: {ended.last_line}"
    journal = Journal(journals[0])
    record = so_far(journal, ready.versions, ended.code or 1)
    where = f"; it was at {record.missing[0]}" if record.missing else ""
    return Kept(record, journal.folder / "details"), ended.how(limit) + where


def _keep(run: SideRun, scratch: Path, keep: Path) -> None:
    """Copy a side's record, and what its programs said, to where the user finds them."""
    keep.mkdir(parents=True, exist_ok=True)
    name = run.side.name
    target = keep / f"{name}.json"
    target.unlink(missing_ok=True)
    shutil.rmtree(details_of(target), ignore_errors=True)
    if run.kept:
        write_kept(run.kept, target)
    said = [file.read_text(errors="replace") for kind in ("out", "err") for file in (scratch / name).glob(f"*.{kind}")]
    (keep / f"{name}.log").write_text("".join(said))


def _say(text: str) -> None:
    print(f"llmprune: {text}", file=sys.stderr, flush=True)
