"""How much a gate's numbers move when nothing is changed, and when only the calibration is: `llmprune gate --repeat N`.

N runs differ in the seeds that may vary (bootstrap, sampled continuations), N in the seed of the calibration windows;
one run belongs to both. A threshold that lies nearer to what is measured than 2.8 SD over calibrations (the limit that
two results exceed in 1 of 20 cases, ISO 5725) isn't judged: which side of it a pruning falls on is a matter of the
calibration.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..errors import CheckFailed, UserError
from ..record.schema import Item, Key, RunRecord

LIMIT = 2.8
FEWEST_RUNS = 2


@dataclass(frozen=True)
class Spread:
    """Of one case over several runs: the mean and SD of the logarithm of ppl_ratio, and in how many runs the verdicts
    were not those of the first, or undecided.
    """

    runs: int
    mean: float
    sd: float
    flips: int


@dataclass(frozen=True)
class Noise:
    """The noise of one case: `repeated` with nothing changed, over `calibrations`, and the thresholds on ppl_ratio that
    lie within `LIMIT` SD of what was measured.
    """

    key: Key
    repeated: Spread
    calibrations: Spread
    too_near: tuple[float, ...]

    @property
    def finest(self) -> float:
        """The finest change of ppl_ratio that can be told from another calibration, as a share."""
        return math.exp(LIMIT * self.calibrations.sd) - 1


def parse_repeat(text: str) -> int:
    """How often to repeat. Raises UserError for what is no whole number of at least 2."""
    if not (text.isascii() and text.isdigit() and FEWEST_RUNS <= int(text) < 1000):
        raise UserError(f"--repeat {text}: give a whole number of runs, at least {FEWEST_RUNS}")
    return int(text)


def seeds(runs: int) -> list[tuple[int, int]]:
    """(seed, calibration seed) of every run: the first `runs` repeat, the rest calibrate anew."""
    return [(seed, 0) for seed in range(runs)] + [(0, seed) for seed in range(1, runs)]


def noise_of(records: Sequence[RunRecord], runs: int) -> tuple[Noise, ...]:
    """The noise of every case in the records of the runs that `seeds` lists. Raises CheckFailed if a run lacks one."""
    judged = [{item.key: item for item in record.items if item.verdicts} for record in records]
    if not judged[0]:
        raise CheckFailed("not one case was judged, so there is no noise to measure")
    found = []
    for key in judged[0]:
        if any(key not in items or "ppl_ratio" not in items[key].measurements for items in judged):
            raise CheckFailed(f"{key}: not every run measured its perplexity")
        items = [items[key] for items in judged]
        repeated, calibrations = _spread(items[:runs]), _spread([items[0], *items[runs:]])
        thresholds = [v["threshold"] for v in items[0].verdicts if v["measurement"] == "ppl_ratio"]
        near = (t for t in thresholds if abs(math.log(t) - calibrations.mean) < LIMIT * calibrations.sd)
        found.append(Noise(key, repeated, calibrations, tuple(near)))
    return tuple(found)


def _spread(items: Sequence[Item]) -> Spread:
    logs = [math.log(item.measurements["ppl_ratio"]) for item in items]
    outcomes = [[verdict["outcome"] for verdict in item.verdicts] for item in items]
    flips = sum(found != outcomes[0] or "undecided" in found for found in outcomes)
    return Spread(len(items), statistics.fmean(logs), statistics.stdev(logs), flips)


def lines(noises: Sequence[Noise]) -> Iterator[str]:
    """The summary: a line per case, and one for every threshold that can't be judged."""
    runs = noises[0].repeated.runs
    yield f"noise of log ppl_ratio over {runs} runs with nothing changed, and over {runs} calibrations"
    rows = [("case", "SD repeated", "flips", "SD calibrations", "flips", f"{LIMIT} SD")]
    for noise in noises:
        same, other = noise.repeated, noise.calibrations
        case = f"{noise.key.model}-{noise.key.recipe}-{noise.key.ratio:.3g}-{noise.key.importance}"
        rows.append(
            (case, f"{same.sd:.3%}", str(same.flips), f"{other.sd:.3%}", str(other.flips), f"{noise.finest:.2%}")
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for case, *numbers in rows:
        cells = [cell.rjust(width) for cell, width in zip(numbers, widths[1:], strict=True)]
        yield "  ".join(["", case.ljust(widths[0]), *cells])
    for noise in noises:
        for threshold in noise.too_near:
            yield (
                f"undecided: {noise.key}: ppl_ratio is {math.exp(noise.calibrations.mean):.4g} on average, and another"
                f" calibration may move it by {noise.finest:.2%}: too near to the threshold {threshold:.4g}"
            )
