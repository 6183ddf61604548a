"""`llmprune doctor`: which known defects the installed stack has, and what can be done about each.

The facts are frozen values; `lines` words them for a person, `to_json` for a machine. The JSON is an object with
`schema` (this module's SCHEMA; it grows when a key changes its meaning or goes), `versions`, `torch_pruning` (the folder
that was examined), `unmeasured`, `exit_code` and `defects`: a list, in registry order, of objects with the fields of
`Diagnosis`.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from . import expectation
from .expectation import ABSENT, BROKEN, MEASURED, NOT_PROBED, PRESENT, Finding
from .patch import Fix, module_file
from .registry import FIXES, applicable, applied
from .upstream import write

SCHEMA = 1
FIXED = "fixed"
APPLY = "from pytest_llmprune import fixes; fixes.apply()"


@dataclass(frozen=True)
class Diagnosis:
    """One defect on the installed stack.

    verdict: `present`, and no fix removes it; `fixed`: it shows, and not with the fixes applied; `absent`;
    `not probed` or `broken`, with the reason. expected: whether it was to be expected on these versions. disagreement:
    why a person must look, or empty. remedy: what to do, or empty.
    """

    id: str
    verdict: str
    reason: str
    symptom: str
    upstream: tuple[int, ...]
    affected: tuple[str, ...]
    expected: bool
    disagreement: str
    remedy: str


@dataclass(frozen=True)
class Examination:
    """What was examined and what was found. torch_pruning: the folder it was imported from."""

    versions: dict[str, str]
    torch_pruning: str
    unmeasured: str
    defects: tuple[Diagnosis, ...]

    @property
    def exit_code(self) -> int:
        """1 if a defect is present and not fixed, else 3 if a person must look at something, else 0."""
        if any(defect.verdict == PRESENT for defect in self.defects):
            return 1
        return 3 if any(defect.disagreement for defect in self.defects) else 0


def examine() -> Examination:
    """Run every probe, without fixes and with all that know the installed torch-pruning. Changes nothing.

    Raises UserError if torch, transformers or torch_pruning can't be imported.
    """
    for package in ("torch", "transformers", "torch_pruning"):
        _import(package)
    versions = expectation.installed()
    findings = expectation.find_all()
    with applied():
        mended = {id for id in applicable() if expectation.find(FIXES[id]).outcome == ABSENT}
    file = module_file("ops")
    return Examination(
        versions=versions,
        torch_pruning=str(file.parent) if file else "",
        unmeasured=expectation.unmeasured(versions),
        defects=tuple(_diagnose(FIXES[id], finding, id in mended, versions) for id, finding in findings.items()),
    )


def _import(package: str) -> None:
    try:
        importlib.import_module(package)
    except Exception as error:  # whatever a broken installation raises
        name = package.replace("_", "-")
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UserError(
            f"{package} can't be imported, so nothing can be examined: {reason}; try pip install {name}"
        ) from None


def write_patches(examination: Examination, folder: Path) -> list[Path]:
    """Write the fixes of what was found `fixed` as patches and tests for upstream, and return their files.

    Raises UserError if there is none, if a file exists already, or if the folder can't be written to.
    """
    ids = [defect.id for defect in examination.defects if defect.verdict == FIXED]
    if not ids:
        raise UserError("there is no patch to write: no defect of torch-pruning here has a fix")
    return write(ids, folder)


def _diagnose(fix: Fix, finding: Finding, mended: bool, versions: dict[str, str]) -> Diagnosis:
    verdict = FIXED if finding.outcome == PRESENT and mended else finding.outcome
    return Diagnosis(
        id=fix.id,
        verdict=verdict,
        reason=finding.reason,
        symptom=fix.symptom,
        upstream=fix.upstream,
        affected=fix.affected,
        expected=expectation.is_expected(fix, versions),
        disagreement=expectation.disagreement(fix, finding, versions),
        remedy=_remedy(fix, verdict, versions),
    )


def _remedy(fix: Fix, verdict: str, versions: dict[str, str]) -> str:
    if verdict != PRESENT:
        return APPLY if verdict == FIXED else ""
    newest = MEASURED["torch-pruning"][1]
    if expectation.nearest("torch-pruning", versions["torch-pruning"]) == newest:
        return "no fix for this version: " + (fix.refusal() or "the fix for it does not help here")
    if expectation.is_expected(fix, {**versions, "torch-pruning": newest}):
        return f"upgrade torch-pruning to {newest}, for which there is a fix"
    return f"upgrade torch-pruning to {newest}, which does not have it"


def to_json(examination: Examination) -> dict[str, Any]:
    """The examination as JSON values."""
    return {"schema": SCHEMA, **asdict(examination), "exit_code": examination.exit_code}


def lines(examination: Examination) -> Iterator[str]:
    """The examination in lines for a person: versions, a block per defect, and a conclusion."""
    yield ", ".join(f"{name} {version}" for name, version in examination.versions.items())
    yield f"torch_pruning is {examination.torch_pruning}"
    if examination.unmeasured:
        yield examination.unmeasured
    for defect in examination.defects:
        issues = f" (upstream {', '.join(f'#{number}' for number in defect.upstream)})" if defect.upstream else ""
        yield f"{defect.verdict:10}  {defect.id}{issues}"
        for text in (
            defect.symptom,
            defect.reason,
            defect.remedy,
            defect.disagreement and f"look: {defect.disagreement}",
        ):
            if text:
                yield f"{'':10}    {text}"
    yield _conclusion(examination)


def _conclusion(examination: Examination) -> str:
    counts = [
        f"{count} {verdict}"
        for verdict in (PRESENT, FIXED, ABSENT, NOT_PROBED, BROKEN)
        if (count := sum(defect.verdict == verdict for defect in examination.defects))
    ]
    what = {0: "with the fixes, nothing stands in the way", 1: "pruning goes wrong here", 3: "a person must look"}
    return f"{', '.join(counts)}: {what[examination.exit_code]}"
