"""What became of one measurement between two records: of an item's number, with a paired interval where both records
carry likelihoods of equal windows; and of a timing, as the ratio over all items with its spread.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from .schema import Item, Key, RunRecord
from .store import WindowNll, window_nlls

if TYPE_CHECKING:
    from ..quality.perplexity import Ratio

BROKEN, UNDECIDED = "broken", "undecided"
RATES = frozenset({"prefill", "decode", "prefill_ratio", "decode_ratio"})
HIGHER_IS_BETTER = RATES | {"coherence", "coherence_ratio", "distinct2"}
WITHIN_A_RUN = frozenset({"prefill_ratio", "decode_ratio"})  # pruned and dense were timed in turn, on one machine
TIMINGS = RATES | {"prune_time", "trace_time", "group_time", "plan_time", "step_time", "layers_time"}
MACHINE = ("host", "machine", "cpus", "gpu")
FEWEST_ITEMS = 3


@dataclass(frozen=True)
class FailOn:
    """A measurement may be worse than the baseline's by at most `share` of it (0.02 is 2%)."""

    measurement: str
    share: float


def parse_fail_on(text: str) -> FailOn:
    """`MEASUREMENT:5%`. Raises UserError for an unknown measurement or a share that is no percentage above 0."""
    from ..quality.gate import MEASUREMENTS

    name, _, share = text.partition(":")
    name = name.replace("-", "_")
    if name not in MEASUREMENTS and name not in TIMINGS:
        known = ", ".join(dict.fromkeys([*MEASUREMENTS, *sorted(TIMINGS)]))
        raise UserError(f"{text!r}: unknown measurement {name!r}; there are {known}")
    try:
        value = float(share.removesuffix("%")) / 100
    except ValueError:
        value = -1.0
    if not share.endswith("%") or not 0 < value < 100:
        raise UserError(f"{text!r}: {share!r} is no percentage; write for example {name}:5%")
    return FailOn(name, value)


@dataclass(frozen=True)
class Shift:
    """A measurement of one item, before and after. low, high: the 95% interval of after / before, None where there is
    none. basis: what the comparison is made of.
    """

    key: Key
    name: str
    before: float
    after: float
    low: float | None
    high: float | None
    basis: str

    def judged(self, share: float) -> tuple[str, str] | None:
        """(`broken` or `undecided`, why) unless it is worse by at most `share`, with its whole interval if any."""
        text = f"{self.name} {self.before:.4g} before, {self.after:.4g} now"
        if self.low is None or self.high is None:
            worse = _worse(self.name, self.before, self.after)
            if worse > share:
                return BROKEN, f"{text}: {_percent(worse)} worse, more than {_percent(share)} ({self.basis})"
            return None
        interval = f"95% interval {self.low - 1:+.3g} to {self.high - 1:+.3g} of it, {self.basis}"
        if self.low - 1 > share:
            worse = self.after / self.before - 1
            return BROKEN, f"{text}: {_percent(worse)} worse, more than {_percent(share)} ({interval})"
        if self.high - 1 > share:
            return UNDECIDED, f"{text}: neither more nor less than {_percent(share)} worse ({interval})"
        return None


@dataclass(frozen=True)
class Timing:
    """A timing over all items that both records measured: the geometric mean of after / before, and its spread.

    low, high: None where there is no spread. elsewhere: in what the machines differ, empty if it is one.
    """

    name: str
    items: int
    ratio: float
    low: float | None
    high: float | None
    elsewhere: str

    def __str__(self) -> str:
        items = "1 item" if self.items == 1 else f"{self.items} items"
        if self.low is None:
            return f"{self.name} x{self.ratio:.3g} ({items}, too few for a spread)"
        return f"{self.name} x{self.ratio:.3g} ({self.low:.3g} to {self.high:.3g}, {items})"

    def judged(self, share: float) -> tuple[str, str] | None:
        """(`broken` or `undecided`, why) unless it is slower by at most `share`, with its whole spread."""
        if self.elsewhere:
            return BROKEN, f"it was to be judged, but was timed on another machine ({self.elsewhere})"
        if self.low is None or self.high is None:
            return BROKEN, f"it was to be judged, but has no spread: fewer than {FEWEST_ITEMS} items measured it"
        slower = (1 / self.high, 1 / self.low) if self.name in RATES else (self.low, self.high)
        if slower[0] - 1 > share:
            return BROKEN, f"{self}: more than {_percent(share)} slower"
        if slower[1] - 1 > share:
            return UNDECIDED, f"{self}: neither more nor less than {_percent(share)} slower"
        return None


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"


def _worse(name: str, before: float, after: float) -> float:
    """By which share of `before` a number is worse; negative if it is better."""
    difference = before - after if name in HIGHER_IS_BETTER else after - before
    if before == 0:
        return math.inf if difference > 0 else 0.0
    return difference / abs(before)


def shift_of(name: str, before: Item, after: Item, old_details: Path, new_details: Path) -> Shift:
    """What became of a measurement that both items made. details: the folders of the records' sidecars."""
    paired, basis = None, "two numbers"
    if name in _PAIRED and before.protocol == after.protocol:
        paired = _paired(name, _windows(before, old_details), _windows(after, new_details))
        basis = "two numbers: no likelihoods of equal windows"
    if paired:
        basis = "paired over equal windows"
    return Shift(
        before.key,
        name,
        before.measurements[name],
        after.measurements[name],
        paired.low if paired else None,
        paired.high if paired else None,
        basis,
    )


_PAIRED = {
    "ppl": lambda windows: windows.pruned,
    "dense.ppl": lambda windows: windows.dense,
    "ppl_ratio": lambda windows: tuple(p - d for p, d in zip(windows.pruned, windows.dense, strict=True)),
}


def _windows(item: Item, details: Path) -> WindowNll | None:
    """An item's windows from its sidecar, or None if it has none that can be read."""
    try:
        return window_nlls(details, item)
    except UserError:
        return None


def _paired(name: str, before: WindowNll | None, after: WindowNll | None) -> Ratio | None:
    """after / before of a perplexity over equal windows, or None where there are none."""
    if before is None or after is None or before.scored != after.scored:
        return None
    from ..quality.perplexity import Perplexity, Ratio, ratio

    old, new = (_PAIRED[name](windows) for windows in (before, after))
    if old == new:
        return Ratio(1.0, 1.0, 1.0)
    return ratio(Perplexity(new, after.scored), Perplexity(old, before.scored))


def timing_of(name: str, pairs: Sequence[tuple[Item, Item]], before: RunRecord, after: RunRecord) -> Timing | None:
    """A timing over the pairs of items that both measured it, or None if there is no such pair.

    The spread is the 95% interval of the mean logarithm over three items or more, else that of repeated rounds.
    """
    both = [(a, b) for a, b in pairs if a.measurements.get(name, 0) > 0 and b.measurements.get(name, 0) > 0]
    if not both:
        return None
    logs = [math.log(b.measurements[name] / a.measurements[name]) for a, b in both]
    mean = statistics.fmean(logs)
    low, high = None, None
    if len(logs) >= FEWEST_ITEMS:
        from ..quality.perplexity import student_quantile

        margin = student_quantile(0.975, len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs))
        low, high = math.exp(mean - margin), math.exp(mean + margin)
    elif rounds := list(_rounds(name, both)):
        low, high = min(rounds)[0], max(high for _, high in rounds)
    return Timing(name, len(logs), math.exp(mean), low, high, _elsewhere(name, before, after))


def _rounds(name: str, pairs: Sequence[tuple[Item, Item]]) -> Iterator[tuple[float, float]]:
    """The least and the most that after / before can be, by the fastest and slowest round of each."""
    for before, after in pairs:
        if name in before.intervals and name in after.intervals:
            old, new = before.intervals[name], after.intervals[name]
            yield new[0] / old[1], new[1] / old[0]


def _elsewhere(name: str, before: RunRecord, after: RunRecord) -> str:
    if name in WITHIN_A_RUN:
        return ""
    old, new = ({**r.environment, "workers": str(r.settings.get("workers", 0))} for r in (before, after))
    differing = [part for part in (*MACHINE, "workers") if old.get(part) != new.get(part)]
    return ", ".join(f"{part} {old.get(part, 'unknown')} and {new.get(part, 'unknown')}" for part in differing)
