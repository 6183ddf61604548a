"""How many faults of torch-pruning do the suites find? Not part of the tests: it takes an hour.

    python -m tests.power run [--upstream DIR] [--jobs N] [--first N] [--survivors] [--quick]
    python -m tests.power run --defects
    python -m tests.power report

DIR: the unpacked source distribution of torch-pruning, with `left_out.txt`: the ids of tests not to run.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from pytest_llmprune.fixes import FIXES

from . import faults, report
from .run import HEALTHY, SUITES, SURVIVED, Tests, known, run, upstream, without


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.power")
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run", help="run the suites on every fault that has not been run on")
    running.add_argument("--upstream", type=Path, metavar="DIR", help="run Torch-Pruning's own tests instead")
    running.add_argument("--jobs", type=int, default=1)
    running.add_argument("--first", type=int, default=None, metavar="N", help="only the first faults")
    running.add_argument("--survivors", action="store_true", help="run again on those that were not found")
    running.add_argument("--quick", action="store_true", help="leave out the slow tests, which find little")
    running.add_argument("--defects", action="store_true", help="run the suites without one fix after another instead")
    commands.add_parser("report", help="write docs/power.md")
    options = parser.parse_args()
    if options.command == "report":
        report.write()
        return
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(_installed(), Path(folder, "torch_pruning"), ignore=shutil.ignore_patterns("__pycache__"))
        if options.defects:
            for tests in map(without, FIXES):
                _run(tests, [] if tests.healthy in known(tests) else [None], options.jobs, Path(folder))
            return
        tests = upstream(options.upstream.resolve()) if options.upstream else SUITES
        tests = replace(tests, quick=options.quick)
        done = set(known(tests))
        if options.survivors:  # but those that no test can find
            never = {id for id, (verdict, _) in report.readings().items() if verdict == report.EQUIVALENT}
            done -= {id for id, r in known(tests).items() if r.outcome == SURVIVED and not r.shadowed} - never
        wanted = [f for f in (None, *faults.load()[: options.first]) if (f.id if f else HEALTHY) not in done]
        _run(tests, wanted, options.jobs, Path(folder))


def _run(tests: Tests, wanted: list[faults.Fault | None], jobs: int, work: Path) -> None:
    for result in run(tests, wanted, jobs, work):
        print(f"{result.fault} {result.outcome} {result.seconds:.0f} s {result.by} {result.reason}", flush=True)


def _installed() -> Path:
    """The folder of the installed torch_pruning, which is not imported."""
    spec = importlib.util.find_spec("torch_pruning")
    return Path(spec.submodule_search_locations[0])


if __name__ == "__main__":
    main()
