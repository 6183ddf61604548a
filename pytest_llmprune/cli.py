"""The command `llmprune`. Exit codes: 0 fine, 1 failed or broken, 2 usage, 3 undecided or
changed: a person must look."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import __version__
from .errors import CheckFailed, UserError
from .record import command as record_command
from .upgrade import command as upgrade_command
from .words import DTYPES, FAILED, FINE, RECIPES, UNDECIDED, USAGE, WEIGHTS

INTERRUPTED, PIPE_CLOSED = 130, 141  # as a shell says it of a program that SIGINT or SIGPIPE has ended


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. A user's mistake is one line on stderr and exit code 2."""
    parser = argparse.ArgumentParser(prog="llmprune", description="Does pruning a large language model still work?")
    parser.add_argument("--version", action="version", version=f"llmprune {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    gate = commands.add_parser(
        "gate",
        help="prune models, measure them, and fail if they are no language models any more",
        description="Runs the suites with pytest on each MODEL; every other argument is pytest's. With --repeat N the"
        " quality suite runs 2 N - 1 times instead, to measure how much its numbers move when nothing is changed and"
        " over calibrations.",
    )
    gate.add_argument(
        "arguments",
        nargs=argparse.REMAINDER,
        metavar="[MODEL ...] [--repeat N] [PYTEST ARGUMENT ...]",
        help="MODEL: tiny (default), smollm2, a hub id, or a path",
    )
    gate.set_defaults(run=_gate)

    doctor = commands.add_parser(
        "doctor",
        help="say which known defects the installed torch-pruning has, and what to do about each",
        description="Exits 1 if a defect is present and no fix removes it, 3 if one is not where it is expected.",
    )
    doctor.add_argument("--json", action="store_true", help="print the same facts for machines")
    doctor.add_argument(
        "--patch", type=Path, metavar="DIR", help="also write the fixes as patches of torch-pruning, each with a test"
    )
    doctor.set_defaults(run=_doctor)

    plan = commands.add_parser(
        "plan",
        help="what a pruning would give, without weights: sizes, the new config, and where it can be used",
        description="Prunes MODEL on the meta device, which needs just its config. One recipe and ratio are shown in"
        " full, several as a table.",
    )
    plan.add_argument("model", metavar="MODEL", help="tiny, smollm2, a hub id, or the path of a checkpoint or config")
    plan.add_argument("--recipe", action="append", help=f"one of {', '.join(RECIPES)}; repeatable; default: all five")
    plan.add_argument("--ratio", default="0.2", metavar="X[,X...]", help="share to remove, default 0.2")
    plan.add_argument(
        "--round-to", type=int, default=1, metavar="N", help="leave a multiple of N FFN channels and hidden channels"
    )
    plan.add_argument("--dtype", choices=DTYPES, default="auto", help="to count bytes in; auto is bfloat16")
    plan.add_argument("--json", action="store_true", help="the same and the pruned config as JSON")
    plan.add_argument("-o", "--output", type=Path, metavar="config.json", help="also write the pruned model's config")
    plan.set_defaults(run=_plan)

    models = commands.add_parser("models", help="list the models that can be named without a path")
    models.set_defaults(run=_models)

    record_command.add_parsers(commands)
    upgrade_command.add_parsers(commands)

    graph = commands.add_parser(
        "graph",
        help="show which channels torch-pruning couples, keep it, draw it, compare it",
        description="Traces MODEL and holds its groups against those that its architecture implies.",
    )
    graph.add_argument("model", nargs="?", metavar="MODEL", help="tiny, smollm2, a hub id, a path, or a config (.json)")
    graph.add_argument("--weights", choices=WEIGHTS, default="meta", help="default: meta, which needs only a config")
    graph.add_argument("--fixes", default="auto", help="auto, off, or ids of fixes of torch-pruning; default: auto")
    graph.add_argument("-o", "--output", type=Path, metavar="FILE.json", help="write a snapshot instead of a summary")
    graph.add_argument("--picture", type=Path, metavar="FILE.svg", help="draw one decoder layer")
    graph.add_argument("--diff", nargs=2, type=Path, metavar=("A.json", "B.json"), help="compare two snapshots")
    graph.set_defaults(run=_graph)

    report = commands.add_parser("report", help="show a record as a table, or as an HTML page")
    report.add_argument(
        "record", nargs="?", type=Path, help="a record's file; default: the newest one below this directory"
    )
    report.add_argument("-o", "--output", type=Path, metavar="FILE.html", help="write an HTML page instead")
    report.set_defaults(run=_report)

    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if given[:1] == ["gate"] and given[1:2] not in (["-h"], ["--help"]):
            return _gate(argparse.Namespace(arguments=given[1:]))  # argparse would take pytest's options for its own
        own, rest = _split(given)
        options = parser.parse_args(own)
        if rest:
            if "arguments" not in options:
                parser.error(f"{options.command} takes no arguments after --")
            options.arguments = rest
        code = int(options.run(options))
        sys.stdout.flush()
        return code
    except UserError as error:
        print(f"llmprune: {error}", file=sys.stderr)
        return USAGE
    except CheckFailed as error:
        print(f"llmprune: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("llmprune: interrupted", file=sys.stderr)
        return INTERRUPTED
    except (
        BrokenPipeError
    ):  # who reads has seen enough, `| head` say; nor may Python complain when it flushes at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED


def _split(given: list[str]) -> tuple[list[str], list[str]]:
    """What stands before and after the first `--`, which argparse would give to any positional argument."""
    where = given.index("--") if "--" in given else len(given)
    return given[:where], given[where + 1 :]


def _gate(options: argparse.Namespace) -> int:
    from .quality.command import gate

    return gate(options.arguments)


def _doctor(options: argparse.Namespace) -> int:
    from .fixes import doctor

    found = doctor.examine()
    written = doctor.write_patches(found, options.patch) if options.patch else []
    if options.json:
        print(json.dumps(doctor.to_json(found), indent=2))
    else:
        for line in doctor.lines(found):
            print(line)
    for file in written:
        print(f"written: {file}", file=sys.stderr if options.json else sys.stdout)
    return found.exit_code


def _plan(options: argparse.Namespace) -> int:
    """A dry run of every case asked for. One that can't be done ends the command if its recipe was named, else it is a
    row that says so.
    """
    from .models.spec import ModelSpec, check
    from .prune.recipes import Case, parse_cases

    pairs = [pair for recipe in options.recipe or RECIPES for pair in parse_cases(f"{recipe}:{options.ratio}")]
    cases = [Case(recipe, ratio, round_to=options.round_to) for recipe, ratio in pairs]
    if options.output and len(cases) > 1:
        raise UserError("-o writes one config: name one --recipe and one --ratio")
    if options.round_to > 1 and options.recipe and not {"ffn", "width", "all"}.intersection(options.recipe):
        raise UserError(f"--round-to {options.round_to}: recipe {options.recipe[0]} removes heads, not channels")
    spec = ModelSpec(options.model, weights="meta", dtype=options.dtype)
    check(spec)

    from transformers.utils import logging

    from . import fixes
    from .prune.describe import lines, to_json
    from .prune.dryrun import DryRun, Refused, dry_run

    logging.set_verbosity_error()
    runs: list[DryRun] = []
    refused: list[Refused] = []
    code = FINE
    with fixes.applied():
        for case in cases:
            try:
                runs.append(dry_run(spec, case))
            except (UserError, CheckFailed) as error:
                if options.recipe or (not runs and case is cases[-1]):
                    raise
                refused.append(Refused(case, str(error).splitlines()[0]))
                code = FAILED if isinstance(error, CheckFailed) else code
    if options.output:
        _write_config(runs[0].config, options.output)
    if options.json:
        print(json.dumps(to_json(options.model, runs, refused), indent=2))
    else:
        print("\n".join(lines(options.model, runs, refused)))
    return code


def _write_config(config: dict[str, Any] | None, file: Path) -> None:
    from .record.store import write_named

    if config is None:
        raise CheckFailed(f"{file} was not written: transformers would refuse the config of what this leaves")
    write_named(file, json.dumps(config, indent=2) + "\n")


def _graph(options: argparse.Namespace) -> int:
    if (options.model is None) == (options.diff is None):
        raise UserError("graph: give either a MODEL or --diff A.json B.json")
    from .graph.command import compare, show
    from .models.spec import ModelSpec

    if options.diff:
        return FINE if compare(*options.diff) else UNDECIDED
    spec = ModelSpec(options.model, options.weights)
    return FINE if show(spec, options.fixes, options.output, options.picture) else FAILED


def _models(_: argparse.Namespace) -> int:
    from .models import catalog, smollm2

    try:
        cached = smollm2.checkpoint_if_cached()
        smollm2_state = f"converted: {cached}" if cached else f"installed: {smollm2.find_gguf()}"
    except UserError as error:
        smollm2_state = str(error)
    rows = [("tiny", "1.9M", "shipped"), ("smollm2", "134.5M", smollm2_state)]
    for name in catalog.names():
        entry = catalog.entry(name)
        rows.append(
            (
                name,
                f"{entry.parameters / 1e9:.2f}B",
                f"{entry.config['model_type']}; the config is shipped (--llmprune-weights meta|random)",
            )
        )
    width = max(len(row[0]) for row in rows)
    for name, size, state in rows:
        print(f"{name:{width}}  {size:>8}  {state}")
    return FINE


def _report(options: argparse.Namespace) -> int:
    from .record.store import details_of, latest, read, write_named

    file = options.record or latest(Path.cwd())
    found = read(file)
    if options.output is None:
        from .record.terminal import lines

        for text, _ in lines(found, str(file)):
            print(text)
        return FINE
    from .record.html import page

    write_named(options.output, page(found, details_of(file)))
    print(f"report: {options.output}")
    return FINE


if __name__ == "__main__":
    sys.exit(main())
