"""pytest's hooks, and nothing else: each calls what knows.

While no llmprune option is given and no test uses its fixtures, nothing here imports torch, transformers, torch_pruning
or hypothesis.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

import pytest

from .entry import load
from .markers import MARKERS
from .options import ALIAS, OPTIONS

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from .record.recorder import Recorder
    from .session import Run


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("llmprune", "pruning of large language models (pytest-llmprune)")
    for option in OPTIONS:
        arguments: dict[str, Any] = {"dest": option.dest, "default": None, "help": option.help}
        if option.is_flag:
            arguments["action"] = "store_true"
        else:
            arguments |= {"action": "append" if option.repeatable else "store", "metavar": option.metavar}
        group.addoption(option.flag, **arguments)
        help_text = f"default of {option.flag}"
        if option.repeatable:
            parser.addini(option.dest, help_text, type="linelist", default=[])
        else:
            parser.addini(option.dest, help_text, type="string", default="")


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(early_config: pytest.Config, parser: pytest.Parser) -> Generator[None, None, None]:
    # every plugin and conftest has declared its options by now, so the alias takes the flag only if it is free
    yield
    early_config.stash[_alias_taken] = not add_alias(parser)


def add_alias(parser: pytest.Parser) -> bool:
    """Declare `--llm-model` unless another plugin has. Returns whether it is ours."""
    alias = {"dest": "llmprune_model", "action": "append", "metavar": "MODEL", "help": "short for --llmprune-model"}
    try:
        parser.getgroup("llmprune").addoption(ALIAS, **alias)
    except (ValueError, argparse.ArgumentError):
        return False
    return True


def pytest_configure(config: pytest.Config) -> None:
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    config.pluginmanager.register(load("fixtures"), "llmprune-fixtures")
    hooks = Hooks(config)
    config.pluginmanager.register(hooks, "llmprune-session")
    if hooks.is_asked():
        hooks.check()


REASON_LENGTH = 300

_alias_taken = pytest.StashKey[bool]()
_recorder = pytest.StashKey["Recorder"]()


class Hooks:
    """The hooks that need to know the session's run, which is started when something first asks for it."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.workerinput: dict[str, Any] | None = getattr(config, "workerinput", None)
        self._run: Run | None = None
        self._asked: bool | None = None
        self._journal: str | None = None
        self._deselected: dict[str, int] = {}
        self._left_out: list[pytest.Item] = []

    @property
    def run(self) -> Run:
        """The run. A user's mistake in its settings ends pytest with one line and exit code 4."""
        if self._run is None:
            from .errors import UserError
            from .session import Run
            from .settings import settings_from

            try:
                settings = settings_from(lambda dest: getattr(self.config.option, dest, None), self.config.getini)
            except UserError as error:
                raise pytest.UsageError(str(error)) from None
            is_worker = self.workerinput is not None
            self._run = Run.start(settings, self.config.invocation_params.dir, self.journal, is_worker, self._workers)
        return self._run

    @property
    def _workers(self) -> int:
        workers = getattr(self.config.option, "numprocesses", None) or 0  # pytest-xdist's
        return int((self.workerinput or {}).get("workercount", workers))

    def is_asked(self) -> bool:
        """Whether an option was given, or an argument names the suites. Cheap, and imports nothing."""
        if self._asked is None:
            config = self.config
            given = any(getattr(config.option, o.dest, None) is not None or config.getini(o.dest) for o in OPTIONS)
            self._asked = given or any(self._names_suites(arg) for arg in config.args if "suites" in arg)
        return self._asked

    def _names_suites(self, argument: str) -> bool:
        from .resources import suites_dir

        path = self.config.invocation_params.dir.joinpath(argument.split("::")[0]).resolve()
        return argument.startswith("pytest_llmprune.suites") or path.is_relative_to(suites_dir())

    def check(self) -> None:
        """Find every mistake that can be found before anything runs."""
        from .errors import UserError
        from .record.store import read
        from .session import check_store

        run = self.run
        if self.workerinput is None:
            try:
                check_store(run.root)
                if run.settings.baseline:
                    read(run.settings.baseline)
            except UserError as error:
                raise pytest.UsageError(str(error)) from None

    def pytest_report_header(self) -> list[str]:
        return self.run.header(self.config.stash.get(_alias_taken, False)) if self.is_asked() else []

    @property
    def journal(self) -> str:
        """The journal's folder, named once: workers, also those that replace a dead one, share the main's."""
        if self._journal is None:
            from .record.store import Journal

            shared = (self.workerinput or {}).get("llmprune_journal")
            self._journal = shared or str(Journal.new(self.config.invocation_params.dir).folder)
        return self._journal

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        node.workerinput["llmprune_journal"] = self.journal

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "llm_spec" in metafunc.fixturenames:
            names, values, ids = self.run.parameters(metafunc.fixturenames)
            metafunc.parametrize(names, values, ids=ids, indirect=True, scope="session")
        if "full_llama_graph" in metafunc.fixturenames:
            from .models.catalog import names as published

            ids = [name.split("/")[-1] for name in published()]
            metafunc.parametrize("full_llama_graph", published(), ids=ids, indirect=True, scope="session")

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        kept: list[pytest.Item] = []
        dropped: list[pytest.Item] = []
        for item in items:
            reason = self._reason_to_deselect(item)
            (dropped if reason else kept).append(item)
            if reason:
                self._deselected[reason] = self._deselected.get(reason, 0) + 1
        if dropped:
            self.config.hook.pytest_deselected(items=dropped)
            items[:] = kept

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        self._left_out += [item for item in items if _is_ours(item)]

    def _reason_to_deselect(self, item: pytest.Item) -> str | None:
        spec = _parameters(item).get("llm_spec")
        fixtures = getattr(item, "fixturenames", ())
        if spec is None and "full_llama_graph" not in fixtures:
            return None
        return self.run.reason_to_deselect(fixtures, spec, of_suites=_is_of_suites(item))

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        ours = [item for item in session.items if _is_ours(item)]
        if ours and not self.config.option.collectonly:
            from .errors import UserError

            try:
                self.run.plan(map(_key, ours), self._deselected, map(_key, self._left_out))
            except UserError as error:
                raise pytest.UsageError(str(error)) from None

    def recorder(self, item: pytest.Item) -> Recorder:
        """The recorder of a test, made at the first call."""
        from .record.recorder import Recorder

        if _recorder not in item.stash:
            item.stash[_recorder] = Recorder(_key(item), self.run.journal)
        return item.stash[_recorder]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, None, None]:
        names = {marker.name for marker in item.iter_markers()}
        if names & {"llm_gpu", "llm_network", "llm_slow"}:
            from .markers import reason_to_skip

            settings = self.run.settings
            if reason := reason_to_skip(names, [settings.profile(spec) for spec in settings.models]):
                pytest.skip(reason)
        yield
        if "known_defect" in names:  # after setup: the fixes are applied by then, if a fixture applies them
            from .errors import UserError
            from .markers import defect_that_shows

            try:
                defect = defect_that_shows(id for m in item.iter_markers("known_defect") for id in m.args)
            except UserError as error:
                pytest.fail(str(error), pytrace=False)
            if defect:
                item.add_marker(pytest.mark.xfail(reason=f"known defect: {defect}", strict=True))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, Any]:
        if not _is_ours(item):
            return (yield)
        with load("fixtures").in_one_line():
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, Any, Any]:
        if _is_ours(item):
            from .record.schema import PREFIX, to_properties

            others = [(name, value) for name, value in item.user_properties if not name.startswith(PREFIX)]
            item.user_properties[:] = others + to_properties(self.recorder(item).item())
        return (yield)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if self.workerinput is not None or (report.when != "call" and report.outcome == "passed"):
            return
        if any(name == "llmprune.key" for name, _ in report.user_properties):
            from dataclasses import replace

            from .record.schema import from_properties

            if item := from_properties(report.user_properties, _outcome(report), report.duration):
                self.run.log(replace(item, reason=_reason(report)))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if self._run is not None:
            session.exitstatus = self._run.finish(int(exitstatus))

    @pytest.hookimpl(trylast=True)  # the verdict is what a person should find at the end
    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if self._run is None or self.config.option.collectonly:
            return
        summary = self._run.summary(self.is_asked())
        if summary:
            terminalreporter.write_sep("=", "llmprune")
            for text, colour in summary:
                terminalreporter.write_line(text, **({colour: True} if colour else {}))


def _parameters(item: pytest.Item) -> dict[str, Any]:
    callspec = getattr(item, "callspec", None)
    return dict(callspec.params) if callspec is not None else {}


def _is_ours(item: pytest.Item) -> bool:
    """Whether an item goes on record: a test of the suites, or one that uses a fixture that records."""
    fixtures: Sequence[str] = getattr(item, "fixturenames", ())
    return "llm_record" in fixtures or _is_of_suites(item)


def _is_of_suites(item: pytest.Item) -> bool:
    if item.path.parent.name != "suites":
        return False
    from .resources import suites_dir

    return item.path.parent == suites_dir()


def _key(item: pytest.Item) -> Any:
    from .record.recorder import key_of

    test = getattr(item, "originalname", None) or item.name
    owner = getattr(item, "cls", None)
    return key_of(item.path.stem, f"{owner.__name__}.{test}" if owner else test, _parameters(item))


def _outcome(report: pytest.TestReport) -> str:
    if hasattr(report, "wasxfail"):
        return "xfailed" if report.outcome == "skipped" else "xpassed"
    if report.when != "call" and report.outcome == "failed":
        return "error"
    return report.outcome


def _reason(report: pytest.TestReport) -> str:
    """Why a test did not pass, in one line; empty for one that did."""
    if report.outcome == "passed" or report.longrepr is None:
        return ""
    if isinstance(report.longrepr, tuple):
        text = report.longrepr[2].removeprefix("Skipped: ")
    else:
        crash = getattr(report.longrepr, "reprcrash", None)
        text = crash.message if crash else str(report.longrepr)
    text = getattr(report, "wasxfail", "") or text.removeprefix("Failed: ")
    return " ".join(text.split())[:REASON_LENGTH]
