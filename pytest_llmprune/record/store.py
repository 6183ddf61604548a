"""Keep records: a journal while a run goes on, one numbered JSON file when it has ended.

    .llmprune/<machine>/0001_<name>.json        a finished record; never overwritten
    .llmprune/<machine>/0001_<name>.details/    its sidecars: likelihoods by window, continuations
    .llmprune/<machine>/journal-<time>-<pid>/   a run that goes on, or was interrupted: plan.json, items.jsonl, details/

A journal is appended to item by item, so an interrupted run leaves what it had done and what it had planned. A record's
file appears whole or not at all.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from .schema import Item, Key, RunRecord, dumps, item_from_json, loads

FOLDER = ".llmprune"


def store_dir(root: Path) -> Path:
    """The folder of this machine's records under `root`; the machine is named by system, processor and Python, as they
    change timings.
    """
    python = ".".join(platform.python_version_tuple()[:2])
    name = f"{platform.system()}-{platform.machine()}-py{python}"
    return root / FOLDER / safe(name)


def safe(name: str) -> str:
    """A name as it may stand in a file's."""
    return re.sub(r"[^\w.-]", "_", name)


@dataclass(frozen=True)
class Kept:
    """A record, and the folder of its sidecars, which need not exist."""

    record: RunRecord
    details: Path


class Journal:
    """A run that goes on. The process that reports makes it; workers only write plan and details into its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def new(cls, root: Path) -> Journal:
        """The journal of a run that begins now under `root`. Nothing is written before there is something to write."""
        return cls(store_dir(root) / f"journal-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}")

    def _ensure(self) -> None:
        try:
            (self.folder / "details").mkdir(parents=True, exist_ok=True)
            ignore = self.folder.parent.parent / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n")
        except OSError as error:
            raise UserError(f"no record can be kept in {self.folder}: {error.strerror}") from None

    def plan(
        self,
        keys: Iterable[Key],
        deselected: dict[str, int],
        left_out: Iterable[Key] = (),
        settings: dict[str, Any] | None = None,
    ) -> None:
        """Note what is going to run and what is not, once: all workers collect the same, the first to come writes."""
        self._ensure()
        values = {
            "planned": [asdict(key) for key in keys],
            "deselected": deselected,
            "left_out": [asdict(key) for key in left_out],
            "settings": settings or {},
        }
        with contextlib.suppress(FileExistsError):
            _write_new(self.folder / "plan.json", json.dumps(values))

    def add(self, item: Item) -> None:
        """Append one finished item, on disk before this returns."""
        self._ensure()
        with (self.folder / "items.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(item.to_json(), allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def details(self, name: str, values: dict[str, Any]) -> str:
        """Write a sidecar and return its name. An existing one of that name is replaced: the test has run again."""
        return self.file(f"{name}.json", json.dumps(values, ensure_ascii=False, allow_nan=False))

    def file(self, name: str, text: str) -> str:
        """The same for a sidecar that is text."""
        self._ensure()
        write_atomically(self.folder / "details" / safe(name), text)
        return safe(name)

    def append(self, name: str, text: str) -> None:
        """Add to the end of a sidecar that several processes write."""
        self._ensure()
        with (self.folder / "details" / safe(name)).open("a", encoding="utf-8") as file:
            file.write(text)

    @property
    def planned(self) -> tuple[tuple[Key, ...], dict[str, int]]:
        """The keys that were planned and how many items were deselected, by reason."""
        values = self._plan()
        return tuple(Key(**key) for key in values["planned"]), values["deselected"]

    @property
    def left_out(self) -> tuple[Key, ...]:
        """The keys that were collected and not selected."""
        return tuple(Key(**key) for key in self._plan()["left_out"])

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that the run has."""
        return dict(self._plan()["settings"])

    def _plan(self) -> dict[str, Any]:
        file = self.folder / "plan.json"
        if not file.is_file():
            return {"planned": [], "deselected": {}, "left_out": [], "settings": {}}
        return dict(json.loads(file.read_text()))

    @property
    def items(self) -> tuple[Item, ...]:
        """The items that have finished; a last line cut short by a kill is left out."""
        file = self.folder / "items.jsonl"
        items = []
        for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
            with contextlib.suppress(ValueError):
                items.append(item_from_json(json.loads(line)))
        return tuple(items)

    def finish(self, record: RunRecord, name: str) -> Path:
        """Turn the journal into the next numbered record and remove it. Returns the record's file."""
        store = self.folder.parent
        text = dumps(record)
        number = 1 + max((int(file.name[:4]) for file in store.glob("[0-9][0-9][0-9][0-9]_*.json")), default=0)
        while True:
            target = store / f"{number:04d}_{safe(name)}.json"
            try:
                _write_new(target, text)
                break
            except FileExistsError:
                number += 1
        details = self.folder / "details"
        if any(details.iterdir()):
            details.rename(details_of(target))
        self.discard()
        return target

    def discard(self) -> None:
        """Remove the journal."""
        shutil.rmtree(self.folder, ignore_errors=True)


def read(file: Path) -> RunRecord:
    """The record in a file. Raises UserError if there is none or it can't be read."""
    try:
        return loads(file.read_text(encoding="utf-8"), str(file))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: no record can be read: {getattr(error, 'strerror', None) or error}") from None


def read_kept(file: Path) -> Kept:
    """The record in a file and the folder of its sidecars. Raises UserError as `read` does."""
    return Kept(read(file), details_of(file))


def details_of(file: Path) -> Path:
    """The folder of a record's sidecars: `0001_tiny.details` beside `0001_tiny.json`."""
    return file.with_suffix(".details")


def write_kept(kept: Kept, target: Path) -> None:
    """Write a record and a copy of its sidecars beside it; what stood there is replaced. Raises OSError."""
    folder = details_of(target)
    if not (folder.exists() and kept.details.exists() and folder.samefile(kept.details)):
        shutil.rmtree(folder, ignore_errors=True)
        if kept.details.is_dir():
            shutil.copytree(kept.details, folder)
    write_atomically(target, dumps(kept.record))


@dataclass(frozen=True)
class WindowNll:
    """Per window of the text, in order: the summed negative log-likelihood (nats) under dense and under pruned, and how
    many tokens were scored.
    """

    dense: tuple[float, ...]
    pruned: tuple[float, ...]
    scored: tuple[int, ...]


def window_nlls(details: Path, item: Item) -> WindowNll | None:
    """The likelihoods by window behind an item's perplexities, from the folder `details_of(record)` (of a run that goes
    on: `journal.folder / "details"`), or None if the item measured none or its sidecar isn't there.

    Two records were scored on the same windows if their `scored` and their items' protocols are equal; then
    `quality.perplexity.ratio` gives the paired interval. Raises UserError if the sidecar is damaged.
    """
    file = details / item.details
    if not item.details or not file.is_file():
        return None
    try:
        nll = json.loads(file.read_text(encoding="utf-8")).get("nll")
        if nll is None:
            return None
        found = WindowNll(*(tuple(nll[name]) for name in ("dense", "pruned", "scored")))
        if not len(found.dense) == len(found.pruned) == len(found.scored):
            raise ValueError("not as many windows of one kind as of another")
        return found
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file}: the details are damaged: {error}") from None


def latest(root: Path) -> Path:
    """The newest record under `root`. Raises UserError if there is none."""
    files = sorted(store_dir(root).glob("[0-9][0-9][0-9][0-9]_*.json"))
    if not files:
        raise UserError(f"no record under {store_dir(root)}; make one with: llmprune gate")
    return files[-1]


def write_named(target: Path, text: str) -> None:
    """`write_atomically` for a file that the user named. Raises UserError if it can't be written."""
    try:
        write_atomically(target, text)
    except OSError as error:
        raise UserError(f"{target}: {error.strerror}") from None


def write_atomically(target: Path, text: str) -> None:
    """Write a whole file or nothing; what stood there is replaced."""
    draft = _draft(target, text)
    try:
        os.replace(draft, target)
    finally:
        draft.unlink(missing_ok=True)


def _write_new(target: Path, text: str) -> None:
    """Write a whole file or nothing, under a name that is not taken. Raises FileExistsError if it is."""
    draft = _draft(target, text)
    try:
        os.link(draft, target)
    finally:
        draft.unlink(missing_ok=True)


def _draft(target: Path, text: str) -> Path:
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=".draft-")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.chmod(name, 0o644)
    return Path(name)
