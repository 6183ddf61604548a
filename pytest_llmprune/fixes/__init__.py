"""Fixes for known defects of torch-pruning, as reversible patches of its source: one module per defect.

    from pytest_llmprune import fixes

    with fixes.applied():          # every fix whose source the installed torch-pruning has
        pruner = tp.pruner.BasePruner(...)

or `fixes.apply()` for the rest of the process and `fixes.undo()` to leave torch_pruning exactly as it was.
"""

from .patch import Fix
from .registry import FIXES, RefusedFix, active, applicable, applied, apply, undo

__all__ = ["FIXES", "Fix", "RefusedFix", "active", "applicable", "applied", "apply", "undo"]
