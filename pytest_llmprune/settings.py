"""The frozen Settings that options and ini values become.

Values are checked wherever they come from (command line, ini file, PYTEST_ADDOPTS): a wrong one is a UserError, one
line that names the option.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import UserError
from .models.layout import shape_of
from .models.spec import ModelSpec, check, config_values
from .options import OPTIONS, Option
from .prune.recipes import Case, distinct
from .quality.gate import Gate
from .record.measured import FailOn
from .words import IMPORTANCES


@dataclass(frozen=True)
class Settings:
    """What a run was asked to do. `prune` is empty where the default of profile and model applies."""

    models: tuple[ModelSpec, ...]
    profile_asked: str
    prune: tuple[tuple[str, float], ...]
    importance: str
    text: str
    fixes: str
    gates: tuple[Gate, ...]
    record: Path | None
    baseline: Path | None
    fail_on: tuple[FailOn, ...]
    report: Path | None
    seed: int
    calibration_seed: int
    perplexity: str
    given: tuple[str, ...]

    @property
    def arguments(self) -> str:
        """The flags, beside model, cases and importance, that another run needs to do the same."""
        spec = self.models[0]
        texts = {
            "weights": spec.weights,
            "device": spec.device,
            "dtype": spec.dtype,
            "text": self.text,
            "profile": self.profile_asked,
            "fixes": self.fixes,
            "perplexity": self.perplexity,
            "seed": str(self.seed),
            "calibration-seed": str(self.calibration_seed),
        }
        return "".join(f" --llmprune-{name} {shlex.quote(texts[name])}" for name in texts if name in self.given)

    def profile(self, spec: ModelSpec) -> str:
        """smoke for the tiny model, standard for others, unless the user said which."""
        return self.profile_asked or ("smoke" if spec.name == "tiny" else "standard")

    def cases(self, spec: ModelSpec) -> tuple[Case, ...]:
        """The pruning cases of a model, with the ratios that its config lets them achieve; equal ones once.

        Where the config is not on this machine (a hub id), the ratios stand as asked. Raises UserError for a recipe the
        model does not admit.
        """
        deep = self.profile(spec) == "deep"
        asked = self.prune or DEFAULT_CASES["smoke" if spec.name == "tiny" else "standard"]
        importances = IMPORTANCES if deep and "importance" not in self.given else (self.importance,)
        cases = [Case(recipe, ratio, importance) for recipe, ratio in asked for importance in importances]
        values = config_values(spec)
        return tuple(dict.fromkeys(cases)) if values is None else distinct(shape_of(values), cases)


DEFAULT_CASES: dict[str, tuple[tuple[str, float], ...]] = {
    "smoke": (("ffn", 0.2), ("heads", 0.5), ("kv-groups", 0.25), ("width", 0.1), ("all", 0.1)),
    "standard": (("ffn", 0.1), ("ffn", 0.2), ("kv-groups", 0.34)),
}


def settings_from(get_option: Callable[[str], Any], get_ini: Callable[[str], Any]) -> Settings:
    """Settings from pytest's options (by dest) and ini values (by key). Raises UserError naming the option that is
    wrong.
    """
    values: dict[str, Any] = {}
    given = []
    for option in OPTIONS:
        raw = get_option(option.dest)
        source = option.flag
        if raw is None:
            raw, source = get_ini(option.dest), f"ini {option.dest}"
            if not raw:
                raw = None
        if raw is not None:
            given.append(option.name)
        values[option.name] = _parsed(option, raw, source)
    specs = tuple(
        ModelSpec(
            name,
            values["weights"],
            values["device"],
            values["dtype"],
            values["revision"] or None,
            values["trust-remote-code"],
        )
        for name in dict.fromkeys(values["model"])
    )
    settings = Settings(
        models=specs,
        profile_asked=values["profile"] or "",
        prune=tuple(case for cases in values["prune"] for case in cases),
        importance=values["importance"],
        text=values["text"],
        fixes=values["fixes"],
        gates=tuple(values["gate"]),
        record=Path(values["record"]) if values["record"] else None,
        baseline=Path(values["baseline"]) if values["baseline"] else None,
        fail_on=tuple(values["fail-on"]),
        report=Path(values["report"]) if values["report"] else None,
        seed=values["seed"],
        calibration_seed=values["calibration-seed"],
        perplexity=values["perplexity"],
        given=tuple(given),
    )
    if settings.fail_on and not settings.baseline:
        raise UserError("--llmprune-fail-on: it needs --llmprune-baseline to compare with")
    labels = [spec.label for spec in specs]
    for spec in specs:
        if labels.count(spec.label) > 1:
            raise UserError(f"two models are called {spec.label!r}, so their results could not be told apart")
        check(spec)
        if spec.weights != "meta":
            settings.cases(spec)
    return settings


def _parsed(option: Option, raw: Any, source: str) -> Any:
    texts: Sequence[str]
    if raw is None:
        texts = [option.default] if option.default else []
    elif isinstance(raw, str):
        texts = [line.strip() for line in raw.splitlines() if line.strip()] if option.repeatable else [raw]
    elif isinstance(raw, bool):
        return raw
    else:
        texts = list(raw)
    try:
        parsed = [option.parse(text) for text in texts]
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    if option.repeatable:
        return parsed
    return parsed[-1] if parsed else None
