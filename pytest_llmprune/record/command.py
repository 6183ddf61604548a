"""`llmprune compare` and `llmprune accept`: hold one record against another, and make a record the baseline."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..words import FAILED, FINE, UNDECIDED

if TYPE_CHECKING:
    from .compare import Comparison

FORMATS = ("text", "json", "md")
BASELINE = Path("llmprune-baseline.json")
EXIT_CODES = {"safe": FINE, "broken": FAILED, "changed": UNDECIDED, "undecided": UNDECIDED}


def add_parsers(commands: Any) -> None:
    """Declare both commands. Imports nothing heavy."""
    compare = commands.add_parser(
        "compare",
        help="hold one record against another: what broke, healed, changed",
        description="Exits 0 if the candidate is safe, 1 if it is broken, 3 if it is changed or undecided.",
    )
    compare.add_argument("baseline", type=Path, help="the record to compare with")
    compare.add_argument("candidate", type=Path, help="the record to judge")
    add_judging(compare, "for example ppl:2%% or prune-time:30%%; repeatable")
    compare.set_defaults(run=_compare)

    accept = commands.add_parser(
        "accept",
        help="make a record the baseline, and say what is accepted with it",
        description="Writes the record, its details, who accepted it and when, to the baseline's file.",
    )
    accept.add_argument("record", type=Path, metavar="RECORD", help="the record to accept")
    accept.add_argument(
        "--baseline", type=Path, default=BASELINE, metavar="FILE.json", help=f"the baseline, default {BASELINE}"
    )
    accept.set_defaults(run=_accept)


def add_judging(parser: argparse.ArgumentParser, fail_on: str) -> None:
    """Declare what every command that compares takes: `--fail-on` and `--format`."""
    parser.add_argument("--fail-on", action="append", default=[], metavar="MEASUREMENT:PERCENT", help=fail_on)
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="text",
        help="how to print it; Markdown also goes to the file that $GITHUB_STEP_SUMMARY names",
    )


def _compare(options: argparse.Namespace) -> int:
    from .compare import compare
    from .measured import parse_fail_on
    from .store import read_kept

    rules = [parse_fail_on(text) for text in options.fail_on]
    comparison = compare(read_kept(options.baseline), read_kept(options.candidate), rules)
    show(comparison, str(options.baseline), options.format)
    return EXIT_CODES[comparison.verdict]


def show(comparison: Comparison, baseline: str, format: str) -> None:
    """Print a comparison, and add it to GitHub's summary of the step where there is one."""
    from .render import as_json, markdown, text

    if format == "json":
        print(as_json(comparison), end="")
    else:
        print((markdown if format == "md" else text)(comparison, baseline), end="")
    add_to_step_summary(markdown(comparison, baseline))


def add_to_step_summary(markdown: str) -> None:
    """Append to the file that GitHub shows with the step. Raises UserError if it can't be written."""
    if file := os.environ.get("GITHUB_STEP_SUMMARY"):
        try:
            with open(file, "a", encoding="utf-8") as summary:
                summary.write(markdown + "\n")
        except OSError as error:
            raise UserError(f"GITHUB_STEP_SUMMARY={file}: {error.strerror}") from None


def _accept(options: argparse.Namespace) -> int:
    from .accept import accept
    from .store import read_kept

    before = read_kept(options.baseline) if options.baseline.exists() else None
    for line in accept(read_kept(options.record), before, options.baseline):
        print(line)
    return FINE
