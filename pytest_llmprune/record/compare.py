"""Hold a record against a baseline: what broke, what healed, what changed. Nothing compared, nothing passed.

Items are matched by their keys. What the baseline has and the candidate lacks is broken: a test that is missing or was
skipped, a measurement that was not made, another model, another protocol. Versions may differ: they are what is
compared. Of a test that failed before and passes now, whatever else is different belongs to its healing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .measured import BROKEN, TIMINGS, UNDECIDED, FailOn, Shift, Timing, shift_of, timing_of
from .schema import Item, Key, RunRecord
from .store import Kept
from .structure import structure_changes

CHANGED, HEALED, SHOWN, SAFE = "changed", "healed", "shown", "safe"
GOOD, BAD = frozenset({"passed", "xpassed"}), frozenset({"failed", "error", "xfailed"})
UNFINISHED = "unfinished"
DEFECT = "defect"  # the measurement of the suite of defects: 1 where one shows
COUNTS = ("params", "macs", "bytes", "groups")
DENSE = ("dense.params", "dense.macs")
REASON_SHOWN = 220
SHIFTS = ("dense.ppl", "params", "ppl", "ppl_ratio", "coherence")


@dataclass(frozen=True)
class Finding:
    """One difference: its kind (broken, undecided, changed, healed, or shown, which is not judged), what it is about,
    and what it is.
    """

    kind: str
    subject: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.subject}: {self.text}"


@dataclass(frozen=True)
class Comparison:
    """All findings, how many items were compared, and what became of the measurements."""

    findings: tuple[Finding, ...]
    compared: int
    shifts: tuple[Shift, ...] = ()
    timings: tuple[Timing, ...] = ()

    @property
    def verdict(self) -> str:
        """broken, undecided, changed or safe. A defect that healed is safe."""
        kinds = {finding.kind for finding in self.findings}
        return next((kind for kind in (BROKEN, UNDECIDED, CHANGED) if kind in kinds), SAFE)

    @property
    def fails(self) -> bool:
        """Whether a gate that was asked for is not passed: an undecided one is not."""
        return self.verdict in (BROKEN, UNDECIDED)


def compare(baseline: Kept, candidate: Kept, fail_on: Sequence[FailOn] = ()) -> Comparison:
    """Compare two records item by item. `fail_on`: measurements that may not get worse by more than a share."""
    return _Comparing(baseline, candidate, fail_on).result()


@dataclass
class _Comparing:
    """One comparison while it is made."""

    baseline: Kept
    candidate: Kept
    fail_on: Sequence[FailOn]
    shifts: list[Shift] = field(default_factory=list)
    judged: set[str] = field(default_factory=set)
    pairs: list[tuple[Item, Item]] = field(default_factory=list)

    def result(self) -> Comparison:
        before, after = self.baseline.record, self.candidate.record
        findings = [*_settings(before, after), *self._items()]
        timings = [timing for name in sorted(TIMINGS) if (timing := timing_of(name, self.pairs, before, after))]
        findings += self._timings(timings)
        findings += (
            Finding(BROKEN, rule.measurement, "it was to be judged, and no item of both records measured it")
            for rule in self.fail_on
            if rule.measurement not in self.judged
        )
        if not before.items:
            findings.append(Finding(BROKEN, "baseline", "it holds no items, so there is nothing to compare with"))
        elif not self.pairs:
            findings.append(Finding(BROKEN, "candidate", "not one item was compared"))
        elif not any(item.outcome in GOOD for _, item in self.pairs):
            text = f"not one of the {len(self.pairs)} items that were compared passes"
            findings.append(Finding(BROKEN, "candidate", text))
        return Comparison(tuple(findings), len(self.pairs), tuple(self.shifts), tuple(timings))

    def _items(self) -> Iterator[Finding]:
        old, new = (_by_key(kept.record) for kept in (self.baseline, self.candidate))
        for key, before in old.items():
            if key in new:
                yield from self._item(before, new[key])
            else:
                yield Finding(BROKEN, str(key), _why_absent(key, self.candidate.record))
        for key in new.keys() - old.keys():
            after = new[key]
            if after.outcome in GOOD or after.outcome == "skipped":
                yield Finding(SHOWN, str(key), f"new: {after.outcome}")
            else:
                yield Finding(BROKEN, str(key), f"new, and {_said(after)}")

    def _item(self, before: Item, after: Item) -> Iterator[Finding]:
        if not {before.outcome, after.outcome} & (GOOD | BAD):
            if UNFINISHED in (before.outcome, after.outcome):
                yield Finding(BROKEN, str(before.key), f"{before.outcome} before, {after.outcome} now: not compared")
            return
        outcome = _outcome(before, after)
        if outcome:
            yield outcome
        if after.outcome not in GOOD | BAD:
            return
        self.pairs.append((before, after))
        healed = outcome is not None and outcome.kind == HEALED
        yield from _protocols(before, after)
        for text in structure_changes(before, after, self.baseline.details, self.candidate.details):
            yield Finding(SHOWN if healed else CHANGED, str(before.key), text)
        yield from self._measurements(before, after, SHOWN if healed else CHANGED)

    def _measurements(self, before: Item, after: Item, changed: str) -> Iterator[Finding]:
        subject = str(before.key)
        missing = sorted(before.measurements.keys() - after.measurements.keys())
        if missing:
            yield Finding(BROKEN, subject, f"not measured any more: {', '.join(missing)}")
        folders = self.baseline.details, self.candidate.details
        both = before.measurements.keys() & after.measurements.keys()
        asked = [rule for rule in self.fail_on if rule.measurement in both - TIMINGS]
        names = [*SHIFTS, *(rule.measurement for rule in asked)]
        shifts = {name: shift_of(name, before, after, *folders) for name in dict.fromkeys(names) if name in both}
        if DEFECT in both:
            yield from self._defect(before, after)
        for name in both & {*COUNTS, *DENSE}:
            old, new = before.measurements[name], after.measurements[name]
            if old != new and name in DENSE:
                yield Finding(BROKEN, subject, f"another model: {name} {old:.10g} before, {new:.10g} now")
            elif old != new:
                yield Finding(changed, subject, f"{name} {old:.10g} before, {new:.10g} now")
        self.shifts += shifts.values()
        for rule in asked:
            self.judged.add(rule.measurement)
            if judgement := shifts[rule.measurement].judged(rule.share):
                yield Finding(judgement[0], subject, judgement[1])

    def _defect(self, before: Item, after: Item) -> Iterator[Finding]:
        old, new = before.measurements[DEFECT], after.measurements[DEFECT]
        subject = f"defect {before.key.variant}"
        if old and not new:
            yield Finding(HEALED, subject, "it showed before, and does not now")
        elif new and not old and before.key.variant in self.candidate.record.fixes:
            yield Finding(CHANGED, subject, "it shows now, and did not before; its fix removes it")
        elif new and not old:
            yield Finding(BROKEN, subject, "it shows now, and did not before")

    def _timings(self, timings: Sequence[Timing]) -> Iterator[Finding]:
        found = {timing.name: timing for timing in timings}
        for rule in self.fail_on:
            if timing := found.get(rule.measurement):
                self.judged.add(rule.measurement)
                if judgement := timing.judged(rule.share):
                    yield Finding(judgement[0], rule.measurement, judgement[1])


def _by_key(record: RunRecord) -> dict[Key, Item]:
    """A record's items, with those that were planned and did not finish."""
    unfinished = {key: Item(key, UNFINISHED, 0.0) for key in record.missing}
    return {**{item.key: item for item in record.items}, **unfinished}


def _why_absent(key: Key, candidate: RunRecord) -> str:
    if key in candidate.left_out:
        return "was deselected, so it is not compared"
    return "is not in the candidate: it was renamed or removed"


def _settings(baseline: RunRecord, candidate: RunRecord) -> Iterator[Finding]:
    for name in ("models", "weights", "seed"):
        before, after = (_setting(record, name) for record in (baseline, candidate))
        if before != after:
            yield Finding(BROKEN, name, f"the baseline has {before}, the candidate {after}")
    if baseline.fixes != candidate.fixes:
        before, after = (", ".join(record.fixes) or "none" for record in (baseline, candidate))
        yield Finding(SHOWN, "fixes", f"{before} before, {after} now")


def _setting(record: RunRecord, name: str) -> str:
    """A setting in words; models by their labels, since their paths differ from place to place."""
    value = record.settings.get(name)
    if isinstance(value, list):
        return ", ".join(sorted(Path(text).name for text in value))
    return "nothing" if value is None else str(value)


def _outcome(before: Item, after: Item) -> Finding | None:
    """What became of a test: a good one must stay good, and one that ran must run."""
    text = f"{before.outcome} before, {_said(after)} now"
    if before.outcome in GOOD and after.outcome not in GOOD:
        return Finding(BROKEN, str(before.key), text)
    if after.outcome in GOOD and before.outcome not in GOOD:
        return Finding(HEALED, str(before.key), f"{_said(before)} before, {after.outcome} now")
    if before.outcome == "skipped" and after.outcome in BAD:
        return Finding(BROKEN, str(before.key), text)
    if after.outcome not in GOOD | BAD:
        return Finding(SHOWN, str(before.key), text)
    if after.outcome in BAD:
        return Finding(SHOWN, str(before.key), f"fails on both sides: {_brief(after.reason) or after.outcome}")
    return None


def _said(item: Item) -> str:
    return f"{item.outcome} ({_brief(item.reason)})" if item.reason else item.outcome


def _brief(reason: str) -> str:
    return reason if len(reason) <= REASON_SHOWN else f"{reason[:REASON_SHOWN]}..."


def _protocols(before: Item, after: Item) -> Iterator[Finding]:
    names = sorted(before.protocol.keys() | after.protocol.keys())
    differing = [name for name in names if before.protocol.get(name) != after.protocol.get(name)]
    failed_early = not (before.protocol and after.protocol) and {before.outcome, after.outcome} & BAD
    if differing and not failed_early:
        yield Finding(BROKEN, str(before.key), f"another protocol ({', '.join(differing)}), so numbers don't compare")
