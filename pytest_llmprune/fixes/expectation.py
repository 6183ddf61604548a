"""Where a defect is expected, what its probe finds, and whether the two agree.

`affected` says where a defect was measured, the probe says whether it shows here. If they disagree, either way, a
person must look: a defect that comes back may not be patched over in silence, and one that is gone must be noticed.
"""

from __future__ import annotations

import platform
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module, metadata

from ..errors import UserError
from ..torch_pruning_api import version
from .patch import Fix
from .registry import FIXES, applicable, applied

# the oldest and the newest that the probes were run on; those between are in docs/decisions.md
MEASURED = {"torch-pruning": ("1.2.5", "1.6.1"), "transformers": ("4.44.2", "5.23.0")}

PRESENT, ABSENT, NOT_PROBED, BROKEN = "present", "absent", "not probed", "broken"


@dataclass(frozen=True)
class Finding:
    """What one probe found.

    outcome: `present`; `absent`; `not probed`: the stack lacks what the probe looks at, so it says nothing; `broken`:
    the probe stopped with an error that it does not know. reason: in one line, for the last two, and for a hang.
    """

    outcome: str
    reason: str = ""


def find(fix: Fix) -> Finding:
    """Run a fix's probe on torch_pruning as it is now, patched or not. Never raises, never hangs."""
    from ..graph.budget import RunawayPropagation, propagation_budget

    try:
        with propagation_budget(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Finding(PRESENT if fix.probe() else ABSENT)
    except RunawayPropagation as error:
        return Finding(PRESENT, _first_line(error))
    except (ImportError, UserError) as error:
        return Finding(NOT_PROBED, _first_line(error))
    except Exception as error:  # whatever an unknown torch-pruning raises is a finding, not a crash
        return Finding(BROKEN, f"{type(error).__name__}: {_first_line(error)}")


def find_all() -> dict[str, Finding]:
    """What every probe finds on the unpatched library, by defect; fixes that are active are active again after it."""
    with applied(()):
        return {id: find(fix) for id, fix in FIXES.items()}


def chosen(asked: str, found: Callable[[], Mapping[str, Finding]] = find_all) -> tuple[str, ...]:
    """The ids that the option's text means: `auto` (the fixes of what is present on the unpatched library, as `found`
    says, and that know its source), `off`, or ids separated by commas.
    """
    if asked != "auto":
        return () if asked == "off" else tuple(asked.split(","))
    findings = found()
    return tuple(id for id in applicable() if findings[id].outcome == PRESENT)


def installed() -> dict[str, str]:
    """The versions that a defect may depend on; a package without metadata is asked for its own."""
    return {
        "python": platform.python_version(),
        "torch": _version("torch"),
        "transformers": _version("transformers"),
        "torch-pruning": version(),
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return str(getattr(import_module(package), "__version__", "unknown"))


def is_expected(fix: Fix, versions: Mapping[str, str]) -> bool:
    """Whether a defect is expected with these versions; one beyond those measured counts as the nearest that was."""
    from packaging.requirements import Requirement

    requirements = map(Requirement, fix.affected)
    return all(r.specifier.contains(nearest(r.name, versions[r.name]), prereleases=True) for r in requirements)


def unmeasured(versions: Mapping[str, str]) -> str:
    """Which of these versions lie beyond those measured, in words; empty if none does."""
    stand_ins = {name: nearest(name, versions[name]) for name in MEASURED}
    return "; ".join(
        f"{name} {versions[name]} has not been measured, {measured} stands for it"
        for name, measured in stand_ins.items()
        if measured != versions[name]
    )


def disagreement(fix: Fix, finding: Finding, versions: Mapping[str, str]) -> str:
    """Why a person must look at this defect, and what to do, in one line; empty if finding and expectation agree."""
    stack = ", ".join(f"{name} {versions[name]}" for name in MEASURED)
    expected = is_expected(fix, versions)
    file = f"pytest_llmprune/fixes/{fix.id.replace('-', '_')}.py"
    if finding.outcome == PRESENT and not expected:
        text = (
            f"defect {fix.id} shows on {stack}, where it is not expected (only on {', '.join(fix.affected)}): it came"
            f" back or has spread; find out why, then say so in `affected` of {file}"
        )
    elif finding.outcome == ABSENT and expected:
        text = (
            f"defect {fix.id} does not show on {stack}, where it is expected ({', '.join(fix.affected)}): it may be"
            f" mended; make sure, then say so in `affected` of {file}"
        )
    elif finding.outcome == BROKEN or (finding.outcome == NOT_PROBED and expected):
        text = (
            f"defect {fix.id} can't be looked for on {stack} ({finding.reason}); mend the probe in {file}, or say in"
            " `affected` that the defect can't occur there"
        )
    else:
        return ""
    return "; ".join(filter(None, (text, unmeasured(versions))))


def nearest(name: str, version: str) -> str:
    """`version`, or the oldest or newest measured one if it lies beyond."""
    from packaging.version import InvalidVersion, Version

    if name not in MEASURED:
        return version
    oldest, newest = MEASURED[name]
    try:
        if Version(version) > Version(newest):
            return newest
        return oldest if Version(version) < Version(oldest) else version
    except InvalidVersion:  # a checkout that calls itself something else is new
        return newest


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
