"""docs/power.md, from the results and from what a person made of the survivors."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from .faults import Fault, load
from .run import HEALTHY, KILLED, RESULTS, ROOT, SUITES, Result, known, without

FILE = ROOT / "docs" / "power.md"
READINGS = Path(__file__).with_name("readings.json")
UNSEEN = "F138"  # the first fault whose fate no one knew when the checks of suites/test_library.py were written
EQUIVALENT, UNREAD = "equivalent", "not looked at yet"


def readings() -> dict[str, tuple[str, str]]:
    """(verdict, why) of every survivor that a person has looked at: equivalent, outside (no LLM pruning would show it)
    or hole.
    """
    return {id: (row["verdict"], row["why"]) for id, row in json.loads(READINGS.read_text()).items()}


def write() -> None:
    """Write the page."""
    FILE.write_text("\n".join(_lines()) + "\n")


def _lines() -> Iterator[str]:
    faults, read = load(), readings()
    suites, upstream = known(SUITES), _upstream()
    yield INTRODUCTION
    yield from _figures(faults, suites, upstream, read)
    yield from _defects()
    yield from _survivors(faults, suites, read)


def _upstream() -> dict[str, Result]:
    file = RESULTS / "upstream.jsonl"
    rows = file.read_text().splitlines() if file.exists() else []
    return {(result := Result(**json.loads(row))).fault: result for row in rows}


def _found(result: Result) -> bool:
    """What a fix shadows counts as survived, though a probe of the unpatched library may have shown it."""
    return result.outcome == KILLED and not result.shadowed


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole} ({part / whole:.0%})" if whole else "none run"


def _figures(faults, suites, upstream, read) -> Iterator[str]:
    ran = [fault for fault in faults if fault.id in suites]
    results = [suites[fault.id] for fault in ran]
    killed = sum(map(_found, results))
    equivalent = sum(not _found(suites[f.id]) and read.get(f.id, ("",))[0] == EQUIVALENT for f in ran)
    shadowed = [result for result in results if result.shadowed]
    both = [fault.id for fault in ran if fault.id in upstream]
    missed = [id for id in both if upstream[id].outcome != KILLED]
    open_to_view = [result for result in results if not result.shadowed]
    yield "\n## Figures\n"
    yield "| | the suites | Torch-Pruning's own tests |"
    yield "| --- | --- | --- |"
    yield f"| without a fault | {_healthy(suites)} | {_healthy(upstream)} |"
    yield f"| faults run, of {len(faults)} frozen | {len(ran)} | {len(upstream.keys() - {HEALTHY})} |"
    yield f"| killed | {_share(killed, len(ran))} | {_share(_count(upstream), len(upstream.keys() - {HEALTHY}))} |"
    yield (
        f"| killed, of the {len(both)} that both ran | {_share(sum(_found(suites[i]) for i in both), len(both))} |"
        + (f" {_share(len(both) - len(missed), len(both))} |")
    )
    yield f"| equivalent, argued below | {_share(equivalent, len(ran))} | |"
    yield f"| killed, of those not equivalent | {_share(killed, len(ran) - equivalent)} | |"
    yield f"| shadowed by a fix, counted as survived | {_share(len(shadowed), len(ran))} | |"
    yield f"| of these shown by the unpatched library | {sum(r.outcome == KILLED for r in shadowed)} | |"
    yield f"| killed, of those not shadowed | {_share(killed, len(open_to_view))} | |"
    yield f"| killed, of the {len(missed)} that upstream's tests miss | " + (
        f"{_share(sum(_found(suites[id]) for id in missed), len(missed))} | |"
    )
    fresh = [fault.id for fault in ran if fault.id >= UNSEEN]
    yield (
        f"| killed, of {UNSEEN} and later, see above | {_share(sum(_found(suites[i]) for i in fresh), len(fresh))} | "
        + (f"{_share(_count({i: upstream[i] for i in fresh if i in upstream}), sum(i in upstream for i in fresh))} |")
    )
    seconds = [_median(suites), _median(upstream)]
    yield f"| seconds per fault, median | {seconds[0]} | {seconds[1]} |"
    tests = Counter(result.by.partition("[")[0].partition("::")[2] for result in results if _found(result))
    yield (
        "\nWhat killed them: "
        + ", ".join(f"`{name or 'no end'}` {number}" for name, number in tests.most_common())
        + "."
    )


def _count(results: dict[str, Result]) -> int:
    return sum(result.outcome == KILLED for id, result in results.items() if id != HEALTHY)


def _healthy(results: dict[str, Result]) -> str:
    if HEALTHY not in results:
        return "not run"
    return "fails: " + results[HEALTHY].by if results[HEALTHY].outcome == KILLED else "passes"


def _median(results: dict[str, Result]) -> str:
    seconds = [result.seconds for id, result in results.items() if id != HEALTHY]
    return f"{statistics.median(seconds):.0f}" if seconds else ""


def _defects() -> Iterator[str]:
    from pytest_llmprune.fixes import FIXES

    results = known(without(next(iter(FIXES))))
    yield "\n## The defects of docs/defects.md\n"
    yield "Each on 1.6.1, with all fixes but its own and those that build on it, by the same run or, where tiny has not"
    yield "what it takes, by the tests of another model's miniature.\n"
    yield "| defect | outcome | by | what it says |"
    yield "| --- | --- | --- | --- |"
    for id in FIXES:
        if result := results.get(id):
            yield f"| {id} | {result.outcome} | {_test(result)} | {_cell(result.reason)} |"


def _survivors(faults: list[Fault], suites: dict[str, Result], read) -> Iterator[str]:
    yield "\n## Survivors\n"
    yield "| fault | where | change | reading |"
    yield "| --- | --- | --- | --- |"
    for fault in faults:
        result = suites.get(fault.id)
        if result is None or _found(result):
            continue
        verdict, why = read.get(fault.id, ("", ""))
        if result.shadowed:
            shown = f"; the unpatched library shows it: {_test(result)}" if result.outcome == KILLED else ""
            verdict, why = "shadowed", "a fix replaces the lines" + shown
        old, new = (" ".join(line.strip() for line in lines) for lines in (fault.old, fault.new))
        where = f"`{fault.file}`:{fault.start} `{fault.function}`"
        yield f"| {fault.id} | {where} | `{_cell(old)}` -> `{_cell(new)}` | {verdict or UNREAD}{why and ': '}{why} |"


def _test(result: Result) -> str:
    return f"`{result.by.partition('::')[2].partition('[')[0]}`" if result.by else ""


def _cell(text: str) -> str:
    text = text.replace("|", "\\|").replace("`", "'")
    return text if len(text) < 130 else text[:127] + "..."


INTRODUCTION = """# Power to detect

How many faults of torch-pruning do the suites find? Written by `python -m tests.power report` from
`tests/power/results/`; everything here can be run again:

    make power                                    # what has not been run yet
    python -m tests.power run --survivors         # what was not found, after a change of the suites
    python -m tests.power run --upstream DIR      # Torch-Pruning's own tests, from its source distribution
    python -m tests.power run --defects           # the suites without one fix after another
    python -m tests.power report

## What a fault is

200 single changes of torch-pruning 1.6.1, made by cosmic-ray's operators, in lines that pruning LLMs executes: every
recipe and importance on tiny and four families, torch-pruning's own example flow on eleven models with and without a
cache, the pruner in steps, local and global, its history on a fresh copy, and the count of operations
(`tests/power/drive.py`; with fixes and without, since a line that a fix replaces runs only without it). They were
drawn at random, line by line, at most two per line, and frozen in `tests/power/faults.json` before any was run. Left
out are lines outside functions, text for people, and what decides about such text alone.

## What counts

Each fault is put into a copy of torch_pruning, and `pytest suites --llm-model tiny --llmprune-profile smoke -x` runs
on it in a process of its own. It is killed if the run fails or does not end within 10 minutes. `--quick` leaves out the
reload in a fresh process and the benchmarks, which take most of a survivor's time; what they alone would find counts
as survived.

A fix refuses a function whose fingerprint it doesn't know, and then the suites fail for the defect that is not fixed.
That is no detection. So a fix is made to take the function with the fault for the one it knows: it edits it all the
same. If the fault lies in the lines that the edits replace, it is gone while the fixes are on. Such a fault is
*shadowed* and counts as
survived, even if a probe of the unpatched library shows it.

Many survivors of F001 to F137 were looked at, and `suites/test_library.py` was written to close what they showed. The
faults from F138 on were run after that: their figure says what the suites find of faults that nobody had in mind.

Torch-Pruning's own tests are those of its source distribution, on the same stack and the same copies, without fixes.
Left out are those that want a download or a GPU (`test_benchmark`, `test_group_prune`, `test_hessian_importance`,
`test_print_tool`, `test_regularization`, `test_taylor_importance`), and, with `--quick`, the two `TransposeConv`
tests, which take minutes: what they alone would find counts as survived. They were run on the first faults only; the
order of the faults is random. torchvision must match torch; where its operators don't load, a `conftest.py` that
declares `torchvision::nms` and
`torchvision::qnms` is enough for its models."""
