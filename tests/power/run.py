"""Run tests on one fault after another, and note which fault they find.

Every fault gets a copy of torch_pruning of its own and a process of its own, forked from one that has imported torch
and transformers, but not torch_pruning. What is known already is not run again.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from .faults import Fault
from .forced import force_fixes, is_shadowed

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).with_name("results")
HEALTHY = "healthy"  # the id of the run without a fault, which must find nothing
LIMIT = 600  # seconds for one fault; what takes longer hangs
MEMORY = 12 * 2**30  # bytes of address space
SLOW = (
    "fresh_process",
    "test_benchmark",
    "TransposeConv",
)  # these take most of the time of a fault that survives, and come last
# defects that tiny has not: a model that does
ELSEWHERE = {
    "qk-norm": "Qwen/Qwen3-0.6B",
    "output-axis": "microsoft/Phi-3-mini-4k-instruct",
    "stale-split": "microsoft/Phi-3-mini-4k-instruct",
}
KILLED, SURVIVED = "killed", "survived"


@dataclass(frozen=True)
class Result:
    """What became of one fault. by: the first test that failed. reason: the end of its message. seconds: of it all."""

    fault: str
    outcome: str
    by: str
    reason: str
    seconds: float
    shadowed: bool


@dataclass(frozen=True)
class Tests:
    """What is run. name: of the results' file. arguments: pytest's. fixes: whether this plugin's fixes are in play.
    quick: whether the slow ones are left out: what they would have found counts as survived. healthy: the id of the
    run without a fault.
    """

    name: str
    folder: Path
    arguments: tuple[str, ...]
    fixes: bool
    quick: bool = False
    healthy: str = HEALTHY

    @property
    def results(self) -> Path:
        return RESULTS / f"{self.name}.jsonl"


SUITES = Tests(
    "suites", ROOT, ("suites", "--llm-model", "tiny", "--llmprune-profile", "smoke", "--timeout", "120"), fixes=True
)


def upstream(folder: Path) -> Tests:
    """Torch-Pruning's own test files, from its source distribution; those that want a download are left out."""
    left_out = (folder / "left_out.txt").read_text().split()
    arguments = ["tests", "-p", "no:llmprune", "--timeout", "400"]
    arguments += [f"--{'deselect' if '::' in name else 'ignore'}={name}" for name in left_out]
    return Tests("upstream", folder, tuple(arguments), fixes=False)


def without(defect: str) -> Tests:
    """The suites with all fixes but a defect's (and those that build on it), on a model that has the defect: on tiny in
    whole, on others the tests of their miniature.
    """
    from pytest_llmprune.fixes import FIXES

    fixes = ",".join(id for id, fix in FIXES.items() if defect != id and defect not in fix.requires)
    arguments = [*SUITES.arguments, "--llmprune-fixes", fixes]
    if model := ELSEWHERE.get(defect):
        arguments += ["--llmprune-weights", "random", "-k", "miniature or library"]
        arguments[arguments.index("tiny")] = model
    return Tests("defects", ROOT, tuple(arguments), fixes=True, quick=True, healthy=defect)


def known(tests: Tests) -> dict[str, Result]:
    """The latest result of every fault."""
    if not tests.results.exists():
        return {}
    return {(r := Result(**json.loads(line))).fault: r for line in tests.results.read_text().splitlines()}


def run(tests: Tests, faults: list[Fault | None], jobs: int, work: Path) -> Iterator[Result]:
    """Run the tests on every fault (None: on none), `jobs` at a time, and yield each result after writing it down."""
    import torch
    import transformers  # noqa: F401

    torch.set_num_threads(1)
    assert "torch_pruning" not in sys.modules
    running: dict[int, tuple[Fault | None, Path, float]] = {}
    waiting = list(faults)[::-1]
    while waiting or running:
        while waiting and len(running) < jobs:
            fault = waiting.pop()
            folder = work / (fault.id if fault else tests.healthy)
            running[_start(tests, fault, folder, work / "torch_pruning")] = (fault, folder, time.monotonic())
        pid = _ended(running)
        fault, folder, started = running.pop(pid)
        result = _result(tests, fault, folder, time.monotonic() - started, work / "torch_pruning")
        with tests.results.open("a") as stream:
            stream.write(json.dumps(asdict(result)) + "\n")
        shutil.rmtree(folder)
        yield result


def _start(tests: Tests, fault: Fault | None, folder: Path, pristine: Path) -> int:
    shutil.copytree(pristine, folder / "torch_pruning")
    if fault:
        file = folder / "torch_pruning" / fault.file
        file.write_text(fault.applied_to(file.read_text()))
    pid = os.fork()
    if pid:
        return pid
    code = 3
    try:
        os.setsid()
        code = _child(tests, fault, folder, pristine)
    finally:
        os._exit(code)


def _child(tests: Tests, fault: Fault | None, folder: Path, pristine: Path) -> int:
    log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    os.chdir(tests.folder)
    sys.path.insert(0, str(folder))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    sys.dont_write_bytecode = True
    arguments = [*tests.arguments, "-x", "-q", "-p", "no:cacheprovider", f"--basetemp={folder / 'tmp'}"]
    if tests.fixes:
        arguments += ["--llmprune-record", str(folder / "record.json")]
        if fault:
            force_fixes(fault, pristine)
    import pytest

    return int(pytest.main(arguments, plugins=[_Watch(folder / "failed.json", tests.quick)]))


class _Watch:
    """Orders tests, fast ones first, and notes the first that fails."""

    def __init__(self, file: Path, quick: bool) -> None:
        self.file, self.quick = file, quick

    def pytest_collection_modifyitems(self, items: list) -> None:
        items.sort(key=_is_slow)
        if self.quick:
            items[:] = [item for item in items if not _is_slow(item)]

    def pytest_runtest_logreport(self, report) -> None:
        self._note(report)

    def pytest_collectreport(self, report) -> None:
        self._note(report)

    def _note(self, report) -> None:
        if report.failed and not self.file.exists():
            lines = [line for line in report.longreprtext.splitlines() if line.strip()]
            told = [line for line in lines if line.startswith("E ")] or lines
            self.file.write_text(json.dumps([report.nodeid, told[0].removeprefix("E ").strip()[:200] if told else ""]))


def _is_slow(item) -> bool:
    return any(name in item.nodeid for name in SLOW)


def _ended(running: dict[int, tuple[Fault | None, Path, float]]) -> int:
    """Wait for the end of one; what runs for too long is ended."""
    while True:
        for pid, (_, folder, started) in running.items():
            done, status = os.waitpid(pid, os.WNOHANG)
            late = not done and time.monotonic() - started > LIMIT
            if late:
                os.killpg(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            if done or late:
                code = "hangs" if late else os.waitstatus_to_exitcode(status)
                (folder / "code.json").write_text(json.dumps(code))
                return pid
        time.sleep(0.1)


def _result(tests: Tests, fault: Fault | None, folder: Path, seconds: float, pristine: Path) -> Result:
    code = json.loads((folder / "code.json").read_text())
    failed = folder / "failed.json"
    by, reason = json.loads(failed.read_text()) if failed.exists() else ("", "" if code == 0 else f"exit {code}")
    return Result(
        fault=fault.id if fault else tests.healthy,
        outcome=SURVIVED if code == 0 else KILLED,
        by=by,
        reason=reason.replace(str(folder), "").replace(str(ROOT), ""),
        seconds=round(seconds, 1),
        shadowed=bool(fault) and is_shadowed(fault, pristine),
    )
