"""Thresholds on measurements, and the verdicts they lead to. Every gate is evaluated; none hides another."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import UserError
from ..prune.recipes import Reduction

MEASUREMENTS: dict[str, str] = {
    "ppl": "perplexity per token",
    "ppl_ratio": "perplexity of pruned over dense",
    "coherence": "coherence of continuations, 0 to 1",
    "coherence_ratio": "coherence of pruned over dense",
    "rep4": "share of repeated 4-grams of tokens",
    "distinct2": "share of distinct bigrams of tokens",
    "garble": "share of control, replacement and foreign-script characters",
    "teacher_nll": "mean negative log-likelihood of the continuations under dense, nats/token",
    "params": "parameters",
    "params_ratio": "parameters of pruned over dense",
    "macs": "multiply-accumulates per token",
    "macs_ratio": "multiply-accumulates of pruned over dense",
    "bytes": "checkpoint bytes",
    "prefill": "prompt tokens per second",
    "prefill_ratio": "prompt speed of pruned over dense",
    "decode": "generated tokens per second",
    "decode_ratio": "generation speed of pruned over dense",
}

PASS, FAIL, UNDECIDED = "pass", "fail", "undecided"


@dataclass(frozen=True)
class Gate:
    """`measurement` must be at most (`<=`) or at least (`>=`) `threshold`."""

    measurement: str
    operator: str
    threshold: float

    def __str__(self) -> str:
        return f"{self.measurement}{self.operator}{self.threshold:.4g}"


@dataclass(frozen=True)
class Verdict:
    """What a gate says of a value: pass, fail, or undecided where the interval [low, high] lies on both sides of the
    threshold.
    """

    measurement: str
    operator: str
    threshold: float
    value: float
    low: float | None
    high: float | None
    outcome: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def parse_gate(text: str) -> Gate:
    """`MEASUREMENT<=VALUE` or `MEASUREMENT>=VALUE`. Raises UserError for an unknown measurement or a threshold that is
    no positive number.
    """
    match = re.fullmatch(r"\s*([\w:]+)\s*(<=|>=)\s*(\S+)\s*", text)
    if not match:
        raise UserError(f"{text!r} is no gate; write for example ppl_ratio<=1.5 or coherence_ratio>=0.8")
    name, operator, number = match.groups()
    if name not in MEASUREMENTS:
        raise UserError(f"{text!r}: unknown measurement {name!r}; there are {', '.join(MEASUREMENTS)}")
    try:
        threshold = float(number)
    except ValueError:
        threshold = math.nan
    if not (math.isfinite(threshold) and threshold > 0):
        raise UserError(f"{text!r}: the threshold {number!r} is no positive number")
    return Gate(name, operator, threshold)


PPL_FACTOR = 2.5
SHARE_PER_FACTOR = {"FFN channels": 0.2, "query heads": 0.2, "kv heads": 0.2, "hidden channels": 0.08}
MOST_FACTORS = 2
COHERENCE_RATIO = 0.5


def gates_for(reductions: Iterable[Reduction], asked: Iterable[Gate] = ()) -> tuple[Gate, ...]:
    """The gates of a case that makes `reductions`: the defaults, except for measurements that the user set gates on.

    Perplexity may grow by a factor of 2.5 for every 20% of FFN channels or heads and every 8% of hidden channels that
    is removed, compounding, but never beyond 2.5 ** 2: a sanity cap for Taylor importance without fine-tuning, which
    magnitude pruning of a language model exceeds by far. Coherence may fall to half of dense. docs/decisions.md has the
    measurements behind the numbers.
    """
    asked = tuple(asked)
    factors = sum(part.ratio / SHARE_PER_FACTOR[part.unit] for part in reductions)
    defaults = (
        Gate("ppl_ratio", "<=", PPL_FACTOR ** min(factors, MOST_FACTORS)),
        Gate("coherence_ratio", ">=", COHERENCE_RATIO),
    )
    named = {gate.measurement for gate in asked}
    return (*(gate for gate in defaults if gate.measurement not in named), *asked)


def judge(
    gates: Iterable[Gate], values: Mapping[str, float], intervals: Mapping[str, tuple[float, float]]
) -> tuple[Verdict, ...]:
    """A verdict for every gate. A value that was not measured, or is not finite, is a fail: nothing measured, nothing
    passed.
    """
    verdicts = []
    for gate in gates:
        value = values.get(gate.measurement, math.nan)
        low, high = intervals.get(gate.measurement, (value, value))
        if not all(map(math.isfinite, (value, low, high))):
            outcome = FAIL
        elif gate.operator == "<=":
            outcome = PASS if high <= gate.threshold else FAIL if low > gate.threshold else UNDECIDED
        else:
            outcome = PASS if low >= gate.threshold else FAIL if high < gate.threshold else UNDECIDED
        has_interval = gate.measurement in intervals
        verdicts.append(
            Verdict(
                gate.measurement,
                gate.operator,
                gate.threshold,
                value,
                low if has_interval else None,
                high if has_interval else None,
                outcome,
            )
        )
    return tuple(verdicts)
