"""One face for torch-pruning 1.2.5 to the newest: the names that differ between versions are named here and in `fixes/`
only.
"""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Iterator
from importlib import metadata
from typing import TYPE_CHECKING, Any

from .errors import UserError

if TYPE_CHECKING:
    from torch import nn


def version() -> str:
    """The installed torch-pruning's version, read from its metadata (1.6.1 calls itself 1.6.0 in `__version__`)."""
    try:
        return metadata.version("torch-pruning")
    except metadata.PackageNotFoundError:
        import torch_pruning as tp

        return str(getattr(tp, "__version__", "unknown"))


def pruner_class() -> Any:
    """BasePruner, which was called MetaPruner before 1.5.0."""
    import torch_pruning as tp

    return getattr(tp.pruner, "BasePruner", None) or tp.pruner.MetaPruner


def make_pruner(model: nn.Module, **arguments: Any) -> Any:
    """torch-pruning's pruner with today's argument names, whatever the installed version calls them.

    Raises UserError if the installed version has no such argument (1.2.5 knows no heads).
    """
    pruner = pruner_class()
    known = inspect.signature(pruner.__init__).parameters
    if "pruning_ratio" not in known and "pruning_ratio" in arguments:
        arguments["ch_sparsity"] = arguments.pop("pruning_ratio")
    if unknown := sorted(set(arguments) - set(known)):
        raise UserError(
            f"torch-pruning {version()} has no pruner argument {', '.join(unknown)}; this recipe needs a newer one"
        )
    with quiet():
        return pruner(model, **arguments)


def make_importance(name: str) -> Any:
    """The importance of that name: `taylor`, `magnitude` (L2 over the group's layers) or `random`. Raises UserError for
    another.
    """
    import torch_pruning as tp

    classes = {
        "taylor": ("GroupTaylorImportance", "TaylorImportance"),
        "magnitude": ("GroupMagnitudeImportance", "GroupNormImportance", "MagnitudeImportance"),
        "random": ("RandomImportance",),
    }
    if name not in classes:
        raise UserError(f"unknown importance {name!r}: there are {', '.join(classes)}")
    for attribute in classes[name]:
        if found := getattr(tp.importance, attribute, None):
            return found()
    raise UserError(f"torch-pruning {version()} has no importance {name}")


def out_channels() -> Any:
    """The pruning function that removes output channels of a Linear layer."""
    import torch_pruning as tp

    return tp.prune_linear_out_channels


def in_channels() -> Any:
    """The pruning function that removes input channels of a Linear layer."""
    import torch_pruning as tp

    return tp.prune_linear_in_channels


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence torch-pruning's warning about norms ("Unwrapped parameters", one name per norm of the model)."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Unwrapped parameters detected")
        yield
