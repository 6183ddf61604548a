"""What a record holds, as frozen values that go to JSON and come back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors import UserError

SCHEMA = 1
PREFIX = "llmprune."
WARNINGS = "torch-pruning-warnings.jsonl"


@dataclass(frozen=True, order=True)
class Key:
    """What an item is, wherever it was run from: never a node id or a path. Empty strings and 0 where a part does not
    apply.
    """

    suite: str
    test: str
    model: str = ""
    recipe: str = ""
    ratio: float = 0.0
    importance: str = ""
    variant: str = ""

    def __str__(self) -> str:
        case = "-".join(
            filter(None, (self.recipe, f"{self.ratio:g}" if self.ratio else "", self.importance, self.variant))
        )
        return f"{self.suite}::{self.test}[{'-'.join(filter(None, (self.model, case)))}]"


@dataclass(frozen=True)
class Item:
    """One test's part of the record. outcome: passed, failed, error, skipped, xfailed or xpassed. reason: in one line,
    why it did not pass. sources: of what was measured of dense, whether it was `measured` in this run or `cached`.
    """

    key: Key
    outcome: str
    seconds: float
    measurements: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    verdicts: tuple[dict[str, Any], ...] = ()
    protocol: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    worst: str = ""
    details: str = ""
    reason: str = ""
    sources: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Acceptance:
    """Who made a record the baseline, when, and what was different from the baseline before."""

    by: str
    at: str
    findings: tuple[str, ...]


@dataclass(frozen=True)
class RunRecord:
    """Everything a run leaves. planned: the keys of every item, noted before the first ran. exit_status: pytest's.
    warnings: torch-pruning's own, in one line; they lie in full in the sidecar `WARNINGS`. left_out: the keys that were
    collected and not selected (`-k`). accepted: who made it, and the baselines before it, the baseline.
    """

    environment: dict[str, str]
    settings: dict[str, Any]
    fixes: tuple[str, ...]
    planned: tuple[Key, ...]
    items: tuple[Item, ...]
    deselected: dict[str, int] = field(default_factory=dict)
    created: str = ""
    exit_status: int = 0
    warnings: str = ""
    left_out: tuple[Key, ...] = ()
    accepted: tuple[Acceptance, ...] = ()
    schema: int = SCHEMA

    @property
    def missing(self) -> tuple[Key, ...]:
        """What was planned and did not finish."""
        done = {item.key for item in self.items}
        return tuple(key for key in self.planned if key not in done)

    def to_json(self) -> dict[str, Any]:
        values = asdict(self)
        values["missing"] = [asdict(key) for key in self.missing]
        return values


def dumps(record: RunRecord) -> str:
    """A record as JSON text. Raises ValueError for a NaN or infinity: a record holds numbers that were measured."""
    return json.dumps(record.to_json(), indent=1, allow_nan=False) + "\n"


def loads(text: str, name: str) -> RunRecord:
    """The record in a JSON text. Raises UserError, naming `name`, if it is none, cut short, or of another schema."""
    try:
        values = json.loads(text, parse_constant=_no_number)
    except ValueError as error:
        raise UserError(f"{name}: no record: {error}") from None
    if not isinstance(values, dict) or "schema" not in values:
        raise UserError(f"{name}: no record of pytest-llmprune")
    if values["schema"] != SCHEMA:
        raise UserError(f"{name}: a record of schema {values['schema']}; this version reads schema {SCHEMA}")
    try:
        return RunRecord(
            environment=values["environment"],
            settings=values["settings"],
            fixes=tuple(values["fixes"]),
            planned=tuple(Key(**key) for key in values["planned"]),
            items=tuple(item_from_json(item) for item in values["items"]),
            deselected=values["deselected"],
            created=values["created"],
            exit_status=values["exit_status"],
            warnings=values.get("warnings", ""),
            left_out=tuple(Key(**key) for key in values.get("left_out", ())),
            accepted=tuple(
                Acceptance(one["by"], one["at"], tuple(one["findings"])) for one in values.get("accepted", ())
            ),
        )
    except (KeyError, TypeError) as error:
        raise UserError(f"{name}: the record is damaged: {error}") from None


def _no_number(text: str) -> float:
    """What JSON does not know, and Python would read: a NaN is smaller than every threshold."""
    raise ValueError(f"{text} is no number that was measured")


def item_from_json(values: Mapping[str, Any]) -> Item:
    """The inverse of `Item.to_json`."""
    return Item(
        **{
            **values,
            "key": Key(**values["key"]),
            "intervals": {name: (low, high) for name, (low, high) in values["intervals"].items()},
            "verdicts": tuple(values["verdicts"]),
            "notes": tuple(values["notes"]),
        }
    )


def to_properties(item: Item) -> list[tuple[str, Any]]:
    """An item as pytest user properties: scalars one by one (JUnit readers see them), structures as JSON text."""
    structures = {
        "key": asdict(item.key),
        "intervals": item.intervals,
        "verdicts": item.verdicts,
        "protocol": item.protocol,
        "notes": item.notes,
        "sources": item.sources,
    }
    properties: list[tuple[str, Any]] = [(PREFIX + name, json.dumps(value)) for name, value in structures.items()]
    properties += [(PREFIX + "worst", item.worst), (PREFIX + "details", item.details)]
    return properties + [(f"{PREFIX}measurement.{name}", value) for name, value in item.measurements.items()]


def from_properties(properties: Iterable[tuple[str, Any]], outcome: str, seconds: float) -> Item | None:
    """The item that a test report's user properties carry, or None. The inverse of `to_properties`."""
    found = {name.removeprefix(PREFIX): value for name, value in properties if name.startswith(PREFIX)}
    if "key" not in found:
        return None
    values: dict[str, Any] = {
        name: json.loads(found[name]) for name in ("key", "intervals", "verdicts", "protocol", "notes", "sources")
    }
    values |= {"worst": found["worst"], "details": found["details"], "outcome": outcome, "seconds": seconds}
    values["measurements"] = {
        name.removeprefix("measurement."): value for name, value in found.items() if name.startswith("measurement.")
    }
    return item_from_json(values)
