"""The command `llmprune gate`: pytest on the suites, and with --repeat again and again."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from .. import resources
from ..errors import UserError
from ..record.schema import RunRecord
from ..record.store import read
from ..words import FAILED, FINE, UNDECIDED, USAGE
from .noise import lines, noise_of, parse_repeat, seeds

CONFIG_FILES = ("pytest.toml", "pytest.ini", "pyproject.toml", "tox.ini", "setup.cfg")


def gate(arguments: list[str]) -> int:
    """Run the suites in a pytest of its own, from this directory and with its configuration, and read the verdicts from
    the record.

    What stands before the first option names models, the rest is pytest's.
    """
    first_option = next((i for i, argument in enumerate(arguments) if argument.startswith("-")), len(arguments))
    models, rest = arguments[:first_option], arguments[first_option:]
    named = [argument for model in models for argument in ("--llmprune-model", model)]
    ours = argparse.ArgumentParser(prog="llmprune gate", add_help=False, allow_abbrev=False)
    ours.add_argument("--repeat")
    options, rest = ours.parse_known_args(rest)
    if options.repeat is not None:
        return _repeat(options.repeat, [*named, *rest])
    code, record, _ = _run_suites(resources.suites_dir(), [*named, *rest])
    if record is not None:
        bad = [item for item in record.items if item.outcome in ("failed", "error")]
        verdicts = [verdict["outcome"] for item in bad for verdict in item.verdicts]
        if bad and not record.missing and all(item.verdicts for item in bad) and "fail" not in verdicts:
            return UNDECIDED
    return code if code in (FINE, FAILED) else USAGE


def _run_suites(suites: Path, arguments: list[str], *, quiet: bool = False) -> tuple[int, RunRecord | None, str]:
    """Pytest's exit code, the record if there is one, and if it was to be quiet what pytest printed."""
    where = [f"--rootdir={Path.cwd()}"]
    config = next((name for name in CONFIG_FILES if Path(name).is_file()), None)
    where += ["-c", config] if config else []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "record.json"
        asked = any(argument.startswith("--llmprune-record") for argument in arguments)
        keep = [] if asked else ["--llmprune-record", str(copy)]
        command = [sys.executable, "-m", "pytest", str(suites), *where, *arguments, *keep]
        done = subprocess.run(command, check=False, text=True, capture_output=quiet)
        record = read(copy) if done.returncode in (0, 1) and copy.is_file() else None
    return done.returncode, record, done.stdout + done.stderr if quiet else ""


def _repeat(text: str, arguments: list[str]) -> int:
    """Run the quality suite again and again, and say how much its numbers move."""
    runs, records = parse_repeat(text), []
    if any(argument.startswith("--llmprune-record") for argument in arguments):
        raise UserError("--repeat: every run keeps a record of its own under .llmprune; leave out --llmprune-record")
    for number, (seed, calibration) in enumerate(seeds(runs), start=1):
        print(f"run {number} of {2 * runs - 1}", file=sys.stderr)
        varied = ["--llmprune-seed", str(seed), "--llmprune-calibration-seed", str(calibration)]
        code, record, output = _run_suites(
            resources.suites_dir() / "test_quality.py", [*arguments, *varied], quiet=True
        )
        if record is None:
            print(output)
            return USAGE if code == 4 else FAILED
        records.append(record)
    found = noise_of(records, runs)
    print("\n".join(lines(found)))
    outcomes = {v["outcome"] for record in records for item in record.items for v in item.verdicts}
    if "fail" in outcomes or any(noise.repeated.flips for noise in found):
        return FAILED
    unsure = any(noise.calibrations.flips or noise.too_near for noise in found)
    return UNDECIDED if unsure else FINE
