"""The fixtures that tests request: models, graphs, pruning, gates and the record."""

from __future__ import annotations

import contextlib
import copy
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from .fixes.expectation import Finding
    from .fuzz.run import Fuzz
    from .models.load import LoadedModel
    from .models.spec import ModelSpec
    from .prune.apply import PrunedModel
    from .prune.recipes import Case
    from .quality.assess import Dense
    from .quality.profiles import Profile
    from .record.recorder import Recorder
    from .session import Run
    from .settings import Settings


def _run(config: pytest.Config) -> Run:
    run: Run = config.pluginmanager.get_plugin("llmprune-session").run  # type: ignore[union-attr]
    return run


@contextlib.contextmanager
def in_one_line() -> Iterator[None]:
    """Turn the errors that carry a sentence for a person into a failure with that sentence alone."""
    from .errors import CheckFailed, UserError

    try:
        yield
    except (CheckFailed, UserError) as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None


@pytest.fixture(scope="session")
def llm_settings(request: pytest.FixtureRequest) -> Settings:
    """The run's settings, from command line, ini file and defaults: a frozen `Settings`."""
    return _run(request.config).settings


@pytest.fixture(scope="session")
def llm_defects() -> dict[str, Finding]:
    """What the probe of every known defect finds on the unpatched torch-pruning, by the defect's id."""
    from .fixes.expectation import find_all

    return find_all()


@pytest.fixture(scope="session")
def llm_fixes(request: pytest.FixtureRequest) -> Iterator[tuple[str, ...]]:
    """The ids of the fixes of torch-pruning that are active while the session lasts: with `auto`, those whose defect
    shows on the installed stack.
    """
    from . import fixes
    from .fixes.expectation import chosen
    from .session import note_fixes

    asked = _run(request.config).settings.fixes
    with in_one_line(), fixes.applied(chosen(asked, lambda: request.getfixturevalue("llm_defects"))) as active:
        note_fixes(_run(request.config).journal, active)
        yield active


@pytest.fixture(scope="session")
def llm_spec(request: pytest.FixtureRequest) -> ModelSpec:
    """The model as the user named it, a frozen `ModelSpec`; tests that request it run once per `--llm-model`."""
    spec: ModelSpec = request.param
    return spec


@pytest.fixture(scope="session")
def llm_config(llm_spec: ModelSpec) -> PreTrainedConfig:
    """The model's config, as transformers has it; no weights are loaded."""
    from .models.load import load_config

    with in_one_line():
        return load_config(llm_spec)


@pytest.fixture(scope="session")
def llm_case(request: pytest.FixtureRequest) -> Case:
    """What to prune, a frozen `Case` (recipe, ratio, importance); tests that request it run once per model and
    `--llmprune-prune`.
    """
    case: Case = request.param
    return case


@pytest.fixture(scope="session")
def llm_dense(llm_spec: ModelSpec, llm_fixes: tuple[str, ...], llm_settings: Settings) -> LoadedModel:
    """The dense model, loaded once per session: never modify it (request `llm_model` for a copy)."""
    from .models.load import load

    with in_one_line():
        return load(llm_spec, seed=llm_settings.seed)


@pytest.fixture
def llm_model(llm_dense: LoadedModel) -> PreTrainedModel:
    """A fresh copy of the dense model, yours to change."""
    return copy.deepcopy(llm_dense.model)


@pytest.fixture(scope="session")
def llm_tokenizer(llm_dense: LoadedModel) -> PreTrainedTokenizerBase:
    """The dense model's tokenizer."""
    assert llm_dense.tokenizer is not None
    return llm_dense.tokenizer


@pytest.fixture(scope="session")
def llm_graph(llm_dense: LoadedModel) -> Any:
    """torch-pruning's DependencyGraph of the dense model, with the fixes applied: read it, don't prune with it."""
    return _trace(llm_dense.model)


@pytest.fixture(scope="session")
def tiny_llama_graph(llm_fixes: tuple[str, ...]) -> Any:
    """torch-pruning's DependencyGraph of the shipped tiny Llama (8 query heads, 4 kv heads): read it, don't prune with
    it.
    """
    from .models.load import load
    from .models.spec import ModelSpec

    return _trace(load(ModelSpec("tiny")).model)


@pytest.fixture(scope="session")
def full_llama_graph(request: pytest.FixtureRequest, llm_fixes: tuple[str, ...]) -> Any:
    """torch-pruning's DependencyGraph of a published model at full size, without weights, on meta; tests that request
    it run once per model of the catalogue.
    """
    from .models.load import load
    from .models.spec import ModelSpec

    return _trace(load(ModelSpec(request.param, weights="meta")).model)


def _trace(model: PreTrainedModel) -> Any:
    from .graph.budget import propagation_budget
    from .graph.trace import trace

    with in_one_line(), propagation_budget():
        return trace(model)


@pytest.fixture(scope="session")
def llm_profile(llm_spec: ModelSpec, llm_settings: Settings) -> Profile:
    """The protocols that the model is calibrated and measured by: a frozen `Profile`."""
    from .quality.profiles import profile

    return profile(
        llm_settings.profile(llm_spec),
        tiny=llm_spec.name == "tiny",
        seed=llm_settings.seed,
        calibration_seed=llm_settings.calibration_seed,
        rolling=llm_settings.perplexity == "rolling",
    )


@pytest.fixture(scope="session")
def llm_prune(llm_dense: LoadedModel, llm_settings: Settings, llm_profile: Profile) -> Callable[[Case], PrunedModel]:
    """Prune a fresh copy of the dense model: `llm_prune(Case("ffn", 0.2, "taylor")) -> PrunedModel`. Taylor is
    calibrated on the built-in calibration text.
    """
    from .prune.apply import prune
    from .prune.importance import NEEDS_GRADIENTS, calibration_windows
    from .quality.perplexity import tokenise

    def prune_copy(case: Case) -> PrunedModel:
        windows = None
        with in_one_line():
            if case.importance in NEEDS_GRADIENTS:
                import torch

                protocol = llm_profile.calibration
                if llm_dense.tokenizer is None:
                    tokens = torch.randint(llm_dense.model.config.vocab_size, (protocol.windows * protocol.length,))
                else:
                    tokens = torch.tensor(tokenise(llm_dense.tokenizer, protocol.text))
                windows = calibration_windows(tokens, protocol)
            return prune(copy.deepcopy(llm_dense.model), case, calibration=windows, seed=llm_settings.seed)

    return prune_copy


@pytest.fixture(scope="session")
def llm_pruned(
    llm_prune: Callable[[Case], PrunedModel], llm_case: Case, llm_progress: Callable[[str], None]
) -> PrunedModel:
    """The dense model pruned as `llm_case` says, once for all tests of the case: don't modify it."""
    llm_progress(f"pruning {llm_case.label}")
    return llm_prune(llm_case)


@pytest.fixture
def llm_record(request: pytest.FixtureRequest) -> Recorder:
    """What this test leaves in the run's record: `llm_record.measure(name, value, interval)` and
    `llm_record.note(text)`.
    """
    recorder: Recorder = request.config.pluginmanager.get_plugin("llmprune-session").recorder(request.node)  # type: ignore[union-attr]
    return recorder


@pytest.fixture(scope="session")
def llm_progress(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """`llm_progress(text)` tells a person at the terminal what a long step is at; silent under xdist, with -q, and for
    the tiny model.
    """
    config = request.config
    run = _run(config)
    quiet = run.is_worker or config.option.verbose < 0 or all(spec.name == "tiny" for spec in run.settings.models)
    capture = config.pluginmanager.get_plugin("capturemanager")

    def show(text: str) -> None:
        if not quiet and capture is not None:
            with capture.global_and_fixture_disabled():
                sys.stderr.write(f"\n  llmprune: {text}")
                sys.stderr.flush()

    return show


@pytest.fixture(scope="session")
def llm_dense_measured(
    request: pytest.FixtureRequest,
    llm_dense: LoadedModel,
    llm_profile: Profile,
    llm_settings: Settings,
    llm_progress: Callable[[str], None],
) -> Dense:
    """The dense model's measurements, made or found in the cache once per session, that pruned models are held
    against.
    """
    from .quality.assess import measure_dense
    from .quality.dense_cache import folder_of
    from .quality.texts import evaluation_text

    with in_one_line():
        text, cache = evaluation_text(llm_settings.text), folder_of(_run(request.config).root)
        return measure_dense(llm_dense, text, llm_profile, llm_progress, cache)


@pytest.fixture
def quality_gate(
    llm_dense_measured: Dense,
    llm_settings: Settings,
    llm_spec: ModelSpec,
    llm_record: Recorder,
    llm_progress: Callable[[str], None],
) -> Callable[[PrunedModel], dict[str, float]]:
    """Judge a pruned model against dense: `quality_gate(pruned) -> measurements`.

    Measures perplexity, coherence and cost, evaluates every gate, records all of it, and only then fails, with dense,
    pruned, ratio, threshold, interval, the worst continuation and the command to repeat it.
    """
    from .quality.assess import assess
    from .quality.gate import PASS, gates_for, judge
    from .record.recorder import failure_message
    from .resources import suites_argument

    def gate(pruned: PrunedModel) -> dict[str, float]:
        case = pruned.plan.case
        with in_one_line():
            found = assess(pruned.model, llm_dense_measured, llm_progress)
            for name, value in found.measurements.items():
                llm_record.measure(name, value, found.intervals.get(name))
        llm_record.measure("prune_time", pruned.seconds)
        llm_record.source(llm_dense_measured.sources)
        verdicts = judge(gates_for(pruned.plan.reductions, llm_settings.gates), found.measurements, found.intervals)
        llm_record.judge(verdicts, found.protocol, found.worst.text, found.details)
        if any(verdict.outcome != PASS for verdict in verdicts):
            command = (
                f"pytest {suites_argument()} --llm-model {llm_spec.name} --llmprune-prune {case.recipe}:{case.ratio:g}"
                f" --llmprune-importance {case.importance}{llm_settings.arguments} -k test_quality"
            )
            pytest.fail(
                failure_message(llm_record.key, verdicts, found.measurements, found.worst, command), pytrace=False
            )
        return found.measurements

    return gate


@pytest.fixture
def fuzz(llm_fixes: tuple[str, ...], llm_settings: Settings, llm_record: Recorder) -> Fuzz:
    """Try examples of Hypothesis strategies: `fuzz(check, *strategies)` calls `check` as often as the profile says.

    A failure is told with the smallest example and the program that `check` named with `fuzz.script` to show it.
    """
    from .fuzz.run import Fuzz

    profiles = {llm_settings.profile(spec) for spec in llm_settings.models}
    widest = next(name for name in ("deep", "standard", "smoke") if name in profiles)
    return Fuzz(widest, llm_settings.seed, llm_record, in_one_line)
