"""Keep fixes from detecting a fault by its fingerprint alone.

A fix refuses a function that it does not know, and then the suites fail for the defect that nobody fixed. That would
find every fault in a function that a fix edits, and show nothing. So here such a fix takes the function with the fault
for the one it knows, and edits it all the same. If the fault lies in the lines that it replaces, it is gone with them,
and the fault is *shadowed*: it shows in the unpatched library alone.
"""

from __future__ import annotations

from pathlib import Path

from .faults import Fault


def edits_around(fault: Fault) -> list:
    """The edits of all fixes in the function that holds the fault, or in one around it."""
    from pytest_llmprune.fixes import FIXES

    edits = [edit for fix in FIXES.values() for edit in fix.edits if edit.module == fault.module]
    return [edit for edit in edits if f"{fault.function}.".startswith(f"{edit.function}.")]


def is_shadowed(fault: Fault, pristine: Path) -> bool:
    """Whether a fix replaces the fault. pristine: the folder torch_pruning without a fault."""
    from pytest_llmprune.fixes.patch import _functions, edited

    if not (edits := edits_around(fault)):
        return False
    text = fault.applied_to((pristine / fault.file).read_text())
    faulty = pristine.parent / f"{fault.id}.py"
    faulty.write_text(text)
    source = _functions(faulty, 0)[edits[0].function]
    faulty.unlink()
    try:
        edited(source, edits)
    except ValueError:
        return True
    return False


def force_fixes(fault: Fault, pristine: Path) -> None:
    """Make the fixes of this process take the function with the fault for the one they know."""
    from pytest_llmprune.fixes import patch

    if not (places := {edit.place for edit in edits_around(fault)}):
        return
    shadowed, on_disk = is_shadowed(fault, pristine), patch.function_source

    def source(module: str, function: str) -> str | None:
        if shadowed and (module, function) in places:
            return patch._functions(pristine / fault.file, 0).get(function)
        return on_disk(module, function)

    patch.function_source = source
    patch.Fix.refusal = lambda self: None
