"""What one test says of itself for the record, and what it tells a person when its gates fail."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import CheckFailed
from ..graph.names import ATTENTION, place_of, title
from ..models.spec import ModelSpec
from ..prune.recipes import Case
from .schema import Item, Key
from .store import Journal, safe
from .terminal import explain

if TYPE_CHECKING:
    from ..prune.plan import PruningPlan


class Recorder:
    """What one test says of itself: the fixture `llm_record`."""

    def __init__(self, key: Key, journal: Journal) -> None:
        self.key = key
        self._journal = journal
        self._measurements: dict[str, float] = {}
        self._intervals: dict[str, tuple[float, float]] = {}
        self._verdicts: tuple[dict[str, Any], ...] = ()
        self._protocol: dict[str, Any] = {}
        self._sources: dict[str, str] = {}
        self._notes: tuple[str, ...] = ()
        self._worst = ""
        self._details = ""

    def measure(self, name: str, value: float, interval: tuple[float, float] | None = None) -> None:
        """Record a measurement. Raises CheckFailed if it is NaN or infinite: such a number measures nothing."""
        if not all(math.isfinite(v) for v in (value, *(interval or ()))):
            raise CheckFailed(f"{self.key}: {name} is {value}, which is no measurement")
        self._measurements[name] = value
        if interval is not None:
            self._intervals[name] = interval

    def source(self, sources: dict[str, str]) -> None:
        """Record of measurements where they come from: `measured` in this run, or `cached` from an earlier one."""
        self._sources.update(sources)

    def note(self, text: str) -> None:
        """Record a remark."""
        self._notes += (text,)

    def judge(self, verdicts: Sequence[Any], protocol: dict[str, Any], worst: str, details: dict[str, Any]) -> None:
        """Record verdicts with the protocol they were reached under, the worst continuation's text, and a sidecar of
        details.
        """
        self._verdicts = tuple(verdict.to_json() for verdict in verdicts)
        self._protocol, self._worst = protocol, worst
        self._details = self._journal.details(str(self.key), details)

    def keep_graph(self, snapshot: str, kind: str = "") -> None:
        """Keep a graph's snapshot (JSON text) beside the record. kind: tells several graphs of one test apart."""
        self._journal.file(graph_file(self.key, kind), snapshot)

    def keep_plan(self, plan: PruningPlan) -> None:
        """Keep which channels a pruning removed beside the record, and their fingerprint in it."""
        text = plan_text(plan)
        self._journal.file(plan_file(self.key), text)
        self.note(f"removed channels {hashlib.sha256(text.encode()).hexdigest()[:16]}")

    def item(self, outcome: str = "", seconds: float = 0.0) -> Item:
        """What was recorded so far."""
        return Item(
            self.key,
            outcome,
            seconds,
            dict(self._measurements),
            dict(self._intervals),
            self._verdicts,
            self._protocol,
            self._notes,
            self._worst,
            self._details,
            sources=dict(self._sources),
        )


def graph_file(key: Key, kind: str = "") -> str:
    """The sidecar that keeps the graph of a test."""
    return safe(f"{key}{kind and '-'}{kind}.graph.json")


def plan_file(key: Key) -> str:
    """The sidecar that keeps which channels a test's pruning removed."""
    return safe(f"{key}.plan.json")


def plan_text(plan: PruningPlan) -> str:
    """{place and unit: indices of the units that go} as JSON, whichever layer of a group torch-pruning started from."""
    heads = "kv heads" if plan.case.recipe == "kv-groups" else "query heads"
    places: dict[tuple[int, str], tuple[int, ...]] = {}
    for removal in plan.removals:
        part, layer = place_of([(removal.module, "out" if removal.out else "in")])
        unit, indices = "channels", removal.indices
        whole = sorted({index // plan.shape.head_dim for index in indices})
        if part == ATTENTION and len(whole) * plan.shape.head_dim == len(indices):
            unit, indices = heads, tuple(whole)
        places[layer or 0, f"{title(part, [layer])}: {unit}"] = indices
    return json.dumps({place: indices for (_, place), indices in sorted(places.items())}) + "\n"


def key_of(module: str, test: str, parameters: dict[str, Any]) -> Key:
    """The key of a test: `module` is its file's stem; parameters other than model and case make its variant."""
    spec, case = parameters.get("llm_spec"), parameters.get("llm_case")
    others = [str(value) for name, value in parameters.items() if name not in ("llm_spec", "llm_case")]
    return Key(
        suite=module,
        test=test,
        model=spec.label if isinstance(spec, ModelSpec) else "",
        recipe=case.recipe if isinstance(case, Case) else "",
        ratio=case.ratio if isinstance(case, Case) else 0.0,
        importance=case.importance if isinstance(case, Case) else "",
        variant="-".join(others),
    )


def failure_message(key: Key, verdicts: Sequence[Any], measurements: dict[str, float], worst: Any, command: str) -> str:
    """Why a gate failed: every verdict with dense, pruned, ratio, threshold and interval, the worst continuation, and
    what to type.
    """
    bad = [verdict for verdict in verdicts if verdict.outcome != "pass"]
    lines = [
        f"{key.recipe} at {key.ratio:g} by {key.importance} on {key.model}:"
        f" {len(bad)} of {len(verdicts)} gates not passed"
    ]
    lines += [f"  {explain(verdict.to_json())}" for verdict in verdicts]
    for name in ("ppl", "coherence"):
        before, after = measurements.get(f"dense.{name}"), measurements.get(name)
        if before is not None and after is not None:
            lines.append(f"  {name}: dense {before:.4g}, pruned {after:.6g}")
    lines += [
        f"  the worst continuation ({worst.kind}, score {worst.score:.2f}): {worst.prompt!r}",
        f"    {worst.text!r}",
    ]
    loosened = " ".join(
        f"--llmprune-gate '{v.measurement}{v.operator}{_accepting(v):.3g}'" for v in bad if v.value == v.value
    )
    lines += [f"to repeat: {command}", f"to accept: {command} {loosened}"]
    return "\n".join(lines)


def _accepting(verdict: Any) -> float:
    """A threshold that the interval lies within, rounded to the safe side."""
    edge = verdict.value
    if verdict.operator == "<=":
        edge = verdict.high if verdict.high is not None else edge
        return float(edge) * 1.01
    edge = verdict.low if verdict.low is not None else edge
    return float(edge) * 0.99
