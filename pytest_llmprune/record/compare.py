"""Hold a record against a baseline: what broke, what healed, what changed. Nothing compared, nothing passed.

Items are matched by their keys. What the baseline has and the candidate lacks is broken: a test that is missing or was
skipped, a measurement that was not made, another model, another protocol. Versions may differ: they are what is
compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import UserError
from .schema import Item, RunRecord

HIGHER_IS_BETTER = frozenset(
    {"coherence", "coherence_ratio", "distinct2", "prefill", "prefill_ratio", "decode", "decode_ratio"}
)
TIMINGS = frozenset({"prefill", "decode", "prune_time", "trace_time", "group_time", "plan_time", "step_time"})
BROKEN, CHANGED, HEALED = "broken", "changed", "healed"
DONE = frozenset({"passed", "failed", "xfailed", "xpassed"})


@dataclass(frozen=True)
class FailOn:
    """A measurement may be worse than the baseline's by at most `share` of it (0.02 is 2%)."""

    measurement: str
    share: float


@dataclass(frozen=True)
class Finding:
    """One difference: its kind (broken, changed, healed), what it is about, and what it is."""

    kind: str
    subject: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.subject}: {self.text}"


@dataclass(frozen=True)
class Comparison:
    """All findings, and how many items were compared."""

    findings: tuple[Finding, ...]
    compared: int

    @property
    def verdict(self) -> str:
        """broken, changed or safe. A defect that healed is safe."""
        kinds = {finding.kind for finding in self.findings}
        return next((kind for kind in (BROKEN, CHANGED) if kind in kinds), "safe")


def parse_fail_on(text: str) -> FailOn:
    """`MEASUREMENT:5%`. Raises UserError for an unknown measurement or a share that is no percentage above 0."""
    from ..quality.gate import MEASUREMENTS

    name, _, share = text.partition(":")
    name = name.replace("-", "_")
    if name not in MEASUREMENTS and name not in TIMINGS:
        raise UserError(
            f"{text!r}: unknown measurement {name!r}; there are {', '.join([*MEASUREMENTS, *sorted(TIMINGS)])}"
        )
    try:
        value = float(share.removesuffix("%")) / 100
    except ValueError:
        value = -1.0
    if not share.endswith("%") or not 0 < value < 100:
        raise UserError(f"{text!r}: {share!r} is no percentage; write for example {name}:5%")
    return FailOn(name, value)


def compare(baseline: RunRecord, candidate: RunRecord, fail_on: Sequence[FailOn] = ()) -> Comparison:
    """Compare two records item by item. `fail_on`: measurements that may not get worse by more than a share."""
    if not baseline.items:
        return Comparison((Finding(BROKEN, "baseline", "it holds no items, so there is nothing to compare with"),), 0)
    findings = list(_models(baseline, candidate))
    found = {item.key: item for item in candidate.items}
    compared = 0
    judged: set[str] = set()
    for before in baseline.items:
        after = found.get(before.key)
        if after is None:
            why = "was planned and did not finish" if before.key in candidate.planned else "is not in the candidate"
            findings.append(Finding(BROKEN, str(before.key), why))
            continue
        if before.outcome not in DONE and after.outcome not in DONE:
            continue
        compared += 1
        findings += _outcomes(before, after)
        if after.outcome in DONE:
            findings += _protocols(before, after)
            findings += _notes(before, after)
            findings += _measurements(before, after, fail_on, judged, baseline.environment, candidate.environment)
    findings += (
        Finding(BROKEN, rule.measurement, "it was to be judged, and no item of both records measured it")
        for rule in fail_on
        if rule.measurement not in judged
    )
    if not compared:
        findings.append(Finding(BROKEN, "candidate", "not one item was compared"))
    return Comparison(tuple(findings), compared)


def lines(comparison: Comparison, baseline: str) -> Iterator[tuple[str, str]]:
    """(text, colour) for each line of a comparison's summary."""
    colours = {BROKEN: "red", CHANGED: "yellow", HEALED: "green", "safe": "green"}
    for finding in comparison.findings:
        yield str(finding), colours[finding.kind]
    verdict = comparison.verdict
    yield f"{verdict} against {baseline}: {comparison.compared} items compared", colours[verdict]


def _models(baseline: RunRecord, candidate: RunRecord) -> Iterator[Finding]:
    for name in ("models", "weights"):
        before, after = baseline.settings.get(name), candidate.settings.get(name)
        if before != after:
            yield Finding(BROKEN, name, f"the baseline has {_shown(before)}, the candidate {_shown(after)}")


def _outcomes(before: Item, after: Item) -> Iterator[Finding]:
    if before.outcome == after.outcome:
        return
    worse = before.outcome in ("passed", "xfailed") or after.outcome not in DONE
    yield Finding(BROKEN if worse else HEALED, str(before.key), f"{before.outcome} before, {after.outcome} now")


def _protocols(before: Item, after: Item) -> Iterator[Finding]:
    names = sorted(before.protocol.keys() | after.protocol.keys())
    differing = [name for name in names if before.protocol.get(name) != after.protocol.get(name)]
    if differing:
        yield Finding(BROKEN, str(before.key), f"another protocol ({', '.join(differing)}), so numbers don't compare")


def _notes(before: Item, after: Item) -> Iterator[Finding]:
    if before.notes != after.notes:
        gone, new = (", ".join(set(a.notes) - set(b.notes)) or "nothing" for a, b in ((before, after), (after, before)))
        yield Finding(CHANGED, str(before.key), f"{gone} before, {new} now")


def _measurements(
    before: Item,
    after: Item,
    fail_on: Iterable[FailOn],
    judged: set[str],
    old_machine: dict[str, str],
    new_machine: dict[str, str],
) -> Iterator[Finding]:
    subject = str(before.key)
    missing = sorted(before.measurements.keys() - after.measurements.keys())
    if missing:
        yield Finding(BROKEN, subject, f"not measured any more: {', '.join(missing)}")
    for name in ("params", "macs", "bytes", "groups"):
        if name in before.measurements and before.measurements[name] != after.measurements.get(name):
            yield Finding(
                CHANGED, subject, f"{name} {before.measurements[name]:g} before, {after.measurements.get(name)} now"
            )
    for rule in fail_on:
        if rule.measurement not in before.measurements or rule.measurement not in after.measurements:
            continue
        judged.add(rule.measurement)
        if rule.measurement in TIMINGS and any(
            old_machine.get(k) != new_machine.get(k) for k in ("machine", "cpus", "gpu")
        ):
            yield Finding(BROKEN, subject, f"{rule.measurement} was to be judged, but was timed on another machine")
            continue
        old, new = before.measurements[rule.measurement], after.measurements[rule.measurement]
        worse = (
            (old - new if rule.measurement in HIGHER_IS_BETTER else new - old) / abs(old) if old else float(new != old)
        )
        if worse > rule.share:
            text = f"{rule.measurement} {old:.4g} before, {new:.4g} now"
            yield Finding(BROKEN, subject, f"{text}: {100 * worse:.3g}% worse, more than {100 * rule.share:g}%")


def _shown(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)
