"""`llmprune upgrade` and `llmprune bisect`: their command lines."""

from __future__ import annotations

import argparse
import contextlib
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..record.command import EXIT_CODES, add_judging, add_to_step_summary
from ..words import FINE, PROFILES, UNDECIDED
from .requirement import PACKAGES

LIMIT = 1800.0
KEEP = Path(".llmprune") / "upgrade"
CACHE = Path(".llmprune") / "bisect"


def add_parsers(commands: Any) -> None:
    """Declare both commands. Imports nothing heavy."""
    parser = commands.add_parser(
        "upgrade",
        help="run the suites on two stacks, and say whether the second is safe, changed or broken",
        description="REQ is a version (torch-pruning==1.6.1), a local checkout, a wheel, a git URL (git+https://...)"
        " or a file of requirements, of torch-pruning, transformers or torch. Exits 0 if the upgrade is safe, 1 if it"
        " is broken, 3 if it is changed or undecided.",
    )
    for side, what in (("from", "what you have"), ("to", "what you would take")):
        parser.add_argument(
            f"--{side}", dest=f"{side}_reqs", action="append", default=[], metavar="REQ", help=f"{what}; repeatable"
        )
        parser.add_argument(
            f"--{side}-python", type=Path, metavar="PYTHON", help="an interpreter that has this side installed"
        )
    add_suites(parser)
    add_judging(parser, "what may not get worse, for example coherence:10%%; repeatable; default: ppl:2%%")
    parser.add_argument(
        "--keep", type=Path, default=KEEP, metavar="DIR", help=f"where to keep both records, default {KEEP}"
    )
    parser.set_defaults(run=_upgrade)

    parser = commands.add_parser(
        "bisect",
        help="find the first version, or commit, where a test fails as it does on the bad one",
        description="Tries versions that pip's index has, or with --checkout the commits of a git checkout.",
    )
    parser.add_argument("package", choices=PACKAGES, metavar="PACKAGE", help=" or ".join(PACKAGES))
    parser.add_argument("--good", required=True, metavar="VERSION", help="a version, or commit, that is good")
    parser.add_argument("--bad", required=True, metavar="VERSION", help="a later one that is bad")
    parser.add_argument("--checkout", type=Path, metavar="DIR", help="try the commits of this git checkout")
    add_suites(parser)
    parser.set_defaults(run=_bisect)


def add_suites(parser: argparse.ArgumentParser) -> None:
    """Declare what every command takes that runs the suites on another stack."""
    parser.add_argument("--model", action="append", default=[], help="as --llm-model: default tiny; repeatable")
    parser.add_argument("--profile", choices=PROFILES, help="as --llmprune-profile")
    parser.add_argument("--fixes", help="as --llmprune-fixes: auto, off or ids")
    parser.add_argument("-k", dest="expression", metavar="EXPR", help="only the tests that pytest's -k selects")
    parser.add_argument(
        "--time-limit", type=float, default=LIMIT, metavar="S", help=f"seconds that a side may take, default {LIMIT:g}"
    )
    parser.epilog = "Arguments after -- are pytest's."
    parser.set_defaults(arguments=[])


def suites_of(options: argparse.Namespace) -> Any:
    """What `add_suites` was given, as `run.Suites`. Raises UserError for an unknown model or a limit that is none."""
    from ..models.spec import ModelSpec, check
    from .run import Suites

    if not options.time_limit > 0:
        raise UserError(f"--time-limit {options.time_limit:g}: it must be more than 0")
    arguments = []
    for name in options.model:
        spec = ModelSpec(name)
        check(spec)
        arguments += ["--llmprune-model", str(spec.path.resolve()) if spec.path else name]
    for flag, value in (("--llmprune-profile", options.profile), ("--llmprune-fixes", options.fixes)):
        arguments += [flag, value] if value else []
    arguments += ["-k", options.expression] if options.expression else []
    return Suites((*arguments, *options.arguments), options.time_limit)


def _upgrade(options: argparse.Namespace) -> int:
    from ..record.measured import parse_fail_on
    from .render import as_json, markdown, text
    from .requirement import check_sides, parse_all
    from .run import Side, upgrade

    rules = [parse_fail_on(rule) for rule in options.fail_on]
    sides = []
    for name in ("from", "to"):
        reqs, python = parse_all(getattr(options, f"{name}_reqs")), getattr(options, f"{name}_python")
        if not reqs and not python:
            raise UserError(f"--{name}: name what that side is, for example --{name} torch-pruning==1.6.1")
        if python and not python.is_file():
            raise UserError(f"--{name}-python {python}: there is no such interpreter")
        sides.append(Side(name, reqs, python.absolute() if python else None))
    if all(side.reqs for side in sides):
        check_sides(sides[0].reqs, sides[1].reqs)
    suites = suites_of(options)
    with _scratch() as folder:
        result = upgrade(sides[0], sides[1], suites, rules, folder, options.keep)
    if options.format == "json":
        print(as_json(result), end="")
    else:
        print((markdown if options.format == "md" else text)(result, options.keep), end="")
    add_to_step_summary(markdown(result, options.keep))
    return EXIT_CODES[result.comparison.verdict]


def _bisect(options: argparse.Namespace) -> int:
    from . import bisect

    if options.checkout:
        versions = bisect.commits(options.checkout, options.good, options.bad)
        requirement = bisect.requirement_of_commit(options.package, options.checkout)
        source = f"git rev-list in {options.checkout}"
    else:
        versions = bisect.index_versions(options.package, options.good, options.bad)
        requirement = bisect.requirement_of_version(options.package)
        source = "pip index versions"
    print(f"{len(versions)} of {options.package} from {versions[0]} to {versions[-1]}, by {source}")
    suites = suites_of(options)
    with _scratch() as folder:
        runner = bisect.Runner(requirement, suites, folder, CACHE)
        known = {version: outcome for version in versions if (outcome := runner.known(version))}
        found = bisect.bisect(versions, runner, known)
    print("\n".join(bisect.lines(found)))
    return FINE if found.is_monotone and not found.between else UNDECIDED


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    """A folder that is gone afterwards, also if this process is asked to end: its programs have ended by then.

    Raises UserError where a file can't be written, on a full disk for example.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        with tempfile.TemporaryDirectory(prefix="llmprune-") as folder:
            yield Path(folder).resolve()
    except OSError as error:
        raise UserError(f"{error.filename or 'a file'}: {error.strerror}") from None


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt
