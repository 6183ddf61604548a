"""Make `docs/defects.md`: which defects a torch-pruning has, and what its own example of LLM pruning then does.

    python scripts/defect_table.py 1.5.3 1.6.1 --probe 1.2.5 1.4.3 --output docs/defects.md

Each version is installed by pip into a folder of its own; a folder that holds one already (`pip install --no-deps
--target`) can be named instead. For every family of models the flow of torch-pruning's `examples/LLMs/prune_llm.py`
runs with half of the channels and half of the heads to go: without fixes, with all that are applicable, and, where
those differ, with all but one at a time. A defect stands in the way where leaving out its fix changes the result.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

from example_flow import ATTENTIONS, FAMILIES, OUTPUTS, STEPS, outcome
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Row:
    """What became of one family, traced with one kind of attention and of output, and which defects it met."""

    family: str
    attention: str
    output: str
    without: str
    fixed: str
    defects: tuple[str, ...]


def rows() -> Iterator[Row]:
    """Every case on the installed torch-pruning, told on stderr as it comes."""
    from pytest_llmprune import fixes

    warnings.simplefilter("ignore")
    known = fixes.applicable()
    for case in ((f, a, o) for f in FAMILIES for o in OUTPUTS for a in ATTENTIONS):
        with fixes.applied(()):
            without = outcome(*case)
        with fixes.applied(known):
            fixed = outcome(*case) if known else without
        defects = []
        for id in known if without != fixed else ():
            with fixes.applied(other for other in known if id not in (other, *fixes.FIXES[other].requires)):
                if outcome(*case) != fixed:
                    defects.append(id)
        yield Row(*case, without, fixed, tuple(defects))
        print(*case, without, fixed, *defects, sep=" | ", file=sys.stderr, flush=True)


def measure(with_rows: bool) -> None:
    """Print what `measured` reads."""
    from pytest_llmprune.fixes import doctor

    found = doctor.to_json(doctor.examine())
    print(json.dumps({"doctor": found, "rows": [asdict(row) for row in rows()] if with_rows else []}))


def measured(source: str, with_rows: bool) -> tuple[dict, list[Row]]:
    """What doctor says of a torch-pruning, a version or a folder, and the rows of its table."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(source).resolve()
        if not folder.is_dir():
            folder = Path(scratch)
            pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", scratch]
            subprocess.run([*pip, f"torch-pruning=={source}"], check=True)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(folder), str(ROOT))), "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, __file__, "--measure", "rows" if with_rows else "doctor"]
        result = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    values = json.loads(result.stdout)
    return values["doctor"], [Row(**{**row, "defects": tuple(row["defects"])}) for row in values["rows"]]


def page(stacks: list[tuple[dict, list[Row]]]) -> Iterator[str]:
    """The lines of the Markdown page."""
    stacks = sorted(stacks, key=lambda stack: Version(stack[0]["versions"]["torch-pruning"]))
    names = {doctor["versions"]["torch-pruning"]: bool(table) for doctor, table in stacks}
    probed = [name for name, has_rows in names.items() if not has_rows]
    arguments = [name for name in names if name not in probed] + (["--probe", *probed] if probed else [])
    versions = stacks[0][0]["versions"]
    others = ", ".join(f"{name} {version}" for name, version in versions.items() if name != "torch-pruning")
    yield "# Defects of torch-pruning on Llama-family models"
    yield ""
    yield f"Measured with {others}, by"
    yield ""
    yield f"    python scripts/defect_table.py {' '.join(arguments)} --output docs/defects.md"
    yield ""
    yield "## Where they show"
    yield ""
    yield "`present`: the probe finds it, and no fix is applicable. `fixed`: it is gone with the fixes applied."
    yield ""
    yield from head("defect", "symptom", "upstream", *names)
    for defects in zip(*(doctor["defects"] for doctor, _ in stacks), strict=True):
        issues = " ".join(f"#{number}" for number in defects[0]["upstream"])
        yield line(defects[0]["id"], defects[0]["symptom"], issues, *(defect["verdict"] for defect in defects))
    for name, (_, table) in zip(names, stacks, strict=True):
        if table:
            yield from flow(name, table)


def flow(version: str, table: list[Row]) -> Iterator[str]:
    """The table of what the example does, cases alike in both kinds of attention in one row."""
    yield ""
    yield f"## torch-pruning {version}: what its example makes of a model"
    yield ""
    yield "Query heads / kv heads, before -> after. `cache`: the model returns one, as it does by default, and"
    yield "torch-pruning traces it with the logits, or the logits alone. A defect stands in the way where the result is"
    yield "another without its fix, and those that build on it, while all others are applied. `runs away`: a group has"
    yield f"more than {STEPS:,} steps, where a healthy one has about a hundred."
    yield ""
    yield from head("model", "output", "attention", "without fixes", "with all fixes", "defects in the way")
    for (family, output), cases in groupby(table, lambda row: (row.family, row.output)):
        alike: dict[tuple, list[str]] = {}
        for row in cases:
            alike.setdefault((row.without, row.fixed, row.defects), []).append(row.attention)
        for (without, fixed, defects), attentions in alike.items():
            fixed = "the same" if fixed == without else fixed
            yield line(family, output, ", ".join(attentions), without, fixed, ", ".join(defects))


def head(*cells: str) -> Iterator[str]:
    yield line(*cells)
    yield line(*("---" for _ in cells))


def line(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("stacks", nargs="*", metavar="VERSION", help="a version of torch-pruning, or its folder")
    parser.add_argument("--probe", nargs="+", default=[], metavar="VERSION", help="versions to ask the probes alone on")
    parser.add_argument("--output", type=Path, help="where to write the page (default: stdout)")
    parser.add_argument("--measure", choices=("doctor", "rows"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        return measure(options.measure == "rows")
    stacks = [measured(source, False) for source in options.probe]
    stacks += [measured(source, True) for source in options.stacks]
    if not stacks:
        parser.error("name a version of torch-pruning")
    text = "\n".join([*page(stacks), ""])
    if options.output:
        options.output.write_text(text)
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
