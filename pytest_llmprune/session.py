"""One run, from its settings to its record: what the plugin's hooks call, without pytest, so that every part can be
tested by itself.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from . import resources
from .errors import UserError
from .fixes.expectation import installed, is_expected
from .fixes.registry import FIXES, applicable, refusal
from .models.spec import ModelSpec
from .record.compare import Comparison, compare
from .record.environment import PACKAGES, environment
from .record.render import findings as comparison_lines
from .record.schema import WARNINGS, Item, Key, RunRecord
from .record.store import Journal, Kept, details_of, read_kept, store_dir, write_atomically, write_kept
from .settings import Settings
from .torch_pruning_api import heard, summarised

NEEDS_WEIGHTS = frozenset({"llm_pruned", "llm_prune", "llm_model", "llm_tokenizer", "quality_gate"})


@dataclass
class Run:
    """A run of this process: the main process reports and finishes, an xdist worker only plans and writes details."""

    settings: Settings
    root: Path
    journal: Journal
    is_worker: bool = False
    workers: int = 0
    record_file: Path | None = None
    record: RunRecord | None = None
    comparison: Comparison | None = None
    trouble: str = ""

    @classmethod
    def start(cls, settings: Settings, root: Path, journal: str, is_worker: bool, workers: int = 0) -> Run:
        """journal: the folder that the main process chose. workers: how many there are, 0 without pytest-xdist."""
        yield_waiting_cores()
        return cls(settings, root, Journal(Path(journal)), is_worker, workers)

    def header(self, given_alias_taken: bool) -> list[str]:
        """Lines for the header: models, versions and fixes. Reads files and metadata; imports nothing heavy."""
        versions = environment()
        stack = ", ".join(f"{name} {versions[name]}" for name in PACKAGES[:3] if name in versions)
        lines = [
            f"llmprune: {', '.join(spec.name for spec in self.settings.models)}; {stack}",
            f"llmprune fixes: {self._fixes()}",
        ]
        if given_alias_taken:
            lines.append("llmprune: --llm-model belongs to another plugin here; use --llmprune-model")
        return lines

    def _fixes(self) -> str:
        if self.settings.fixes == "off":
            return "off"
        if self.settings.fixes != "auto":
            return self.settings.fixes.replace(",", ", ")
        known = applicable()
        versions = installed()
        unknown = [id for id, fix in FIXES.items() if id not in known and is_expected(fix, versions)]
        refused = [f"{id} refused: {refusal(id)}" for id in unknown]
        return "; ".join([", ".join(known) or "none", *refused])

    def parameters(self, fixtures: Sequence[str]) -> tuple[list[str], list[Any], list[str]]:
        """Names, values and ids to parametrize a test by: models, and their cases if the test asks for those."""
        if "llm_case" not in fixtures:
            return (
                ["llm_spec"],
                [(spec,) for spec in self.settings.models],
                [spec.label for spec in self.settings.models],
            )
        pairs = [(spec, case) for spec in self.settings.models for case in self.settings.cases(spec)]
        return ["llm_spec", "llm_case"], list(pairs), [f"{spec.label}-{case.label}" for spec, case in pairs]

    def reason_to_deselect(self, fixtures: Sequence[str], spec: ModelSpec | None, of_suites: bool) -> str | None:
        """Why an item does not run: its model can't do it, or the profile leaves it out; or None."""
        if of_suites and "full_llama_graph" in fixtures:
            deep = any(self.settings.profile(model) == "deep" for model in self.settings.models)
            return None if deep else "published architectures at full size: only in the deep profile"
        if spec is None or spec.weights == "pretrained":
            return None
        if spec.weights == "meta" and NEEDS_WEIGHTS & set(fixtures):
            return "meta weights: there is nothing to compute with"
        if spec.weights == "random" and {"quality_gate", "llm_tokenizer"} & set(fixtures):
            return "random weights: a model that is no language model has no quality to judge"
        return None

    def plan(self, keys: Iterable[Key], deselected: dict[str, int], left_out: Iterable[Key] = ()) -> None:
        """Note what is going to run, and what was not selected. Raises UserError if nothing can be written."""
        self.journal.plan(keys, deselected, left_out, self._settings_json())

    def log(self, item: Item) -> None:
        """Keep one finished item (main process only)."""
        if not self.is_worker:
            self.journal.add(item)

    def finish(self, exit_status: int) -> int:
        """Turn the journal into a record if the run has ended by itself, and return the exit status that it deserves.

        A run that passed but measured nothing, or left planned items unfinished, is turned into a failure. An
        interrupted one stays a journal.
        """
        planned, _ = self.journal.planned
        if planned and (texts := heard()):
            self.journal.append(WARNINGS, "".join(json.dumps(text) + "\n" for text in texts))
        if self.is_worker:
            return exit_status
        if not planned:
            if self.settings.baseline:
                self.trouble = f"nothing ran, so nothing was compared with {self.settings.baseline}"
            return exit_status or int(bool(self.trouble))
        if exit_status not in (0, 1):
            self.trouble = f"interrupted; what was done is kept in {self._relative(self.journal.folder)}"
            return exit_status
        record = so_far(self.journal, environment(self.root), exit_status)
        if exit_status == 0 and record.missing:
            self.trouble, exit_status = f"{len(record.missing)} planned items did not finish", 1
        elif exit_status == 0 and all(item.outcome == "skipped" for item in record.items):
            self.trouble, exit_status = "every item was skipped: nothing was measured, so nothing has passed", 1
        if self.settings.baseline:
            kept = Kept(record, self.journal.folder / "details")
            self.comparison = compare(read_kept(self.settings.baseline), kept, self.settings.fail_on)
            exit_status = exit_status or int(self.comparison.fails)
        self.record = record = replace(record, exit_status=exit_status)
        name = "-".join(spec.label for spec in self.settings.models)
        try:
            self.record_file = self.journal.finish(record, name)
            if self.settings.record:
                write_kept(Kept(record, details_of(self.record_file)), self.settings.record)
            if self.settings.report:
                from .record.html import page

                write_atomically(self.settings.report, page(record, details_of(self.record_file)))
        except OSError as error:
            self.trouble, exit_status = f"the record could not be written: {error.strerror} ({error.filename})", 1
        return exit_status

    def summary(self, suite_asked: bool) -> list[tuple[str, str]]:
        """(text, colour) lines for the terminal's summary."""
        from .record.terminal import lines

        result = []
        if self.record is not None:
            result += list(lines(self.record, self._relative(self.record_file) if self.record_file else ""))
            if self.settings.report and not self.trouble:
                result.insert(-1, (f"report: {self._relative(self.settings.report.resolve())}", ""))
        if self.comparison is not None:
            result[-1:-1] = comparison_lines(self.comparison, str(self.settings.baseline))
        if self.trouble:
            result.append((self.trouble, "red"))
        if not result and suite_asked and not self.is_worker:
            models = " ".join(f"--llm-model {spec.name}" for spec in self.settings.models)
            result.append(
                (f"no suite of llmprune was collected; to run them: pytest {resources.suites_argument()} {models}", "")
            )
        return result

    def _relative(self, path: Path) -> str:
        return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)

    def _settings_json(self) -> dict[str, Any]:
        s = self.settings
        return {
            "models": [spec.name for spec in s.models],
            "weights": s.models[0].weights,
            "spec_of": {spec.label: spec.name for spec in s.models},
            "importance": s.importance,
            "text": s.text if s.text in ("builtin", "wikitext2") else Path(s.text).name,
            "fixes": s.fixes,
            "gates": [str(gate) for gate in s.gates],
            "seed": s.seed,
            "workers": self.workers,
            "suites": resources.suites_argument(),
            "arguments": s.arguments,
        }


def so_far(journal: Journal, versions: dict[str, str], exit_status: int) -> RunRecord:
    """The record of what a journal holds, of a run that has ended or was cut short."""
    planned, deselected = journal.planned
    latest = {item.key: item for item in journal.items}
    return RunRecord(
        environment=versions,
        settings=journal.settings,
        fixes=_fixes_that_ran(journal),
        planned=planned,
        items=tuple(latest.values()),
        deselected=deselected,
        created=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        exit_status=exit_status,
        warnings=_warnings_that_came(journal),
        left_out=journal.left_out,
    )


def yield_waiting_cores() -> None:
    """Let OpenMP's threads sleep while they wait, unless the user said how they should. By default they spin, which
    takes the cores from whoever they wait for: docs/decisions.md has figures. OpenMP reads this once, when torch is
    imported.
    """
    if "torch" not in sys.modules:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def note_fixes(journal: Journal, ids: Sequence[str]) -> None:
    """Note in the journal which fixes were active, from whichever process applied them."""
    journal.details("fixes", {"fixes": list(ids)})


def _fixes_that_ran(journal: Journal) -> tuple[str, ...]:
    file = journal.folder / "details" / "fixes.json"
    return tuple(json.loads(file.read_text())["fixes"]) if file.is_file() else ()


def _warnings_that_came(journal: Journal) -> str:
    file = journal.folder / "details" / WARNINGS
    return summarised(map(json.loads, file.read_text(encoding="utf-8").splitlines())) if file.is_file() else ""


def check_store(root: Path) -> None:
    """Raise UserError, before any work is done, if records can't be kept under `root`."""
    folder = store_dir(root)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"no record can be kept under {folder}: {error.strerror}") from None
    if not os.access(folder, os.W_OK):
        raise UserError(f"no record can be kept under {folder}: no permission to write there")
