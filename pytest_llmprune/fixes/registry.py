"""Every fix there is, which of them the installed torch-pruning can take, and which are active."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module

from ..errors import UserError
from .legacy import fitted
from .patch import Fix, Patcher


class RefusedFix(UserError):
    """A fix was asked for that does not know the installed torch-pruning's source."""


_MODULES = (
    "nested_outputs",
    "module_outputs",
    "none_ignored_params",
    "unpacked_batch",
    "unsigned_dim",
    "gqa_map",
    "sdpa_gqa",
    "qk_norm",
    "output_axis",
    "heads_unpruned",
    "head_ratio_gated",
    "iterative_heads",
    "global_gqa",
    "broken_ties",
    "stale_split",
    "split_order",
    "slice_bounds",
    "stale_slice",
    "quadratic_graph",
)

FIXES: dict[str, Fix] = {
    fix.id: fix for fix in (fitted(import_module(f".{name}", __package__).FIX) for name in _MODULES)
}

_patcher = Patcher()
_active: tuple[str, ...] = ()
_lock = threading.RLock()


def refusal(id: str) -> str | None:
    """Why a fix, or one that it builds on, can't be applied to the installed torch_pruning, or None if it can."""
    return next((reason for other in (*FIXES[id].requires, id) if (reason := FIXES[other].refusal())), None)


def applicable() -> tuple[str, ...]:
    """The ids of the fixes that know the installed torch-pruning's source, in registry order. Imports nothing heavy."""
    return tuple(id for id in FIXES if refusal(id) is None)


def active() -> tuple[str, ...]:
    """The ids of the fixes that are applied now."""
    return _active


def apply(ids: Iterable[str] | None = None) -> tuple[str, ...]:
    """Make exactly these fixes active (default: all applicable ones) and return their ids.

    Raises UserError for an unknown id, RefusedFix if a fix that was named does not know the installed source.
    """
    global _active
    chosen = applicable() if ids is None else tuple(dict.fromkeys(ids))
    for id in chosen:
        if id not in FIXES:
            raise UserError(f"unknown fix {id!r}: there are {', '.join(FIXES)}")
        if reason := refusal(id):
            raise RefusedFix(f"fix {id}: {reason}")
    needed = {*chosen, *(other for id in chosen for other in FIXES[id].requires)}
    chosen = tuple(id for id in FIXES if id in needed)  # one order, whatever order they were named in
    with _lock:
        if chosen != _active:
            _active = ()
            fixes = [FIXES[id] for id in chosen]
            additions = dict.fromkeys(addition for fix in fixes for addition in fix.additions)  # fixes may share one
            _patcher.install([edit for fix in fixes for edit in fix.edits], additions)
            _active = chosen
    return chosen


def undo() -> None:
    """Leave torch_pruning exactly as it was imported."""
    apply(())


@contextmanager
def applied(ids: Iterable[str] | None = None) -> Iterator[tuple[str, ...]]:
    """`apply` for the length of a `with` block; what was active before is active again after it."""
    before = _active
    try:
        yield apply(ids)
    finally:
        apply(before)
