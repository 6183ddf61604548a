"""One face for torch-pruning 1.2.5 to the newest: the names that differ between versions are named here and in `fixes/`
only.
"""

from __future__ import annotations

import contextlib
import inspect
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

from .errors import CheckFailed, UserError

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


def dependency_graph(
    model: nn.Module, example_inputs: dict[str, Any], outputs: Callable[[Any], Any] | None = None
) -> Any:
    """torch-pruning's DependencyGraph of a model. outputs: picks what of the model's output to trace; None: all.

    Raises what torch-pruning raises.
    """
    import torch_pruning as tp

    graph = tp.DependencyGraph()
    # from 1.3.7 to 1.5.2 the default is None, which get_pruning_group iterates; 1.2.5 has no such argument
    known = inspect.signature(graph.build_dependency).parameters
    ignored: dict[str, Any] = {"ignored_params": []} if "ignored_params" in known else {}
    return graph.build_dependency(model, example_inputs=example_inputs, output_transform=outputs, **ignored)


@dataclass(frozen=True)
class GroupItem:
    """One layer's part in a group that torch-pruning made.

    name: the module's or parameter's, empty for an operation without weights. side: `out` or `in`. channels: those that
    go. roots: for each of them the root's channel it goes with, None if it goes only with several.
    """

    name: str
    side: str
    channels: Sequence[int]
    roots: Sequence[int | None]


def group_items(graph: Any, module: nn.Linear, side: str, channels: Sequence[int]) -> list[GroupItem]:
    """The group that removing `channels` from one side (`out`, `in`) of a Linear layer drags along.

    Raises CheckFailed if torch-pruning fails to make it.
    """
    name = graph._module2name[module]
    prune = out_channels() if side == "out" else in_channels()
    try:
        group = graph.get_pruning_group(module, prune, list(channels))
    except CheckFailed:
        raise
    except Exception as error:
        raise CheckFailed(f"torch-pruning makes no group of {name}.{side}: {type(error).__name__}: {error}") from error
    return [
        GroupItem(
            _name(graph, item.dep.target.module),
            "out" if graph.is_out_channel_pruning_fn(item.dep.handler) else "in",
            item.idxs,
            item.root_idxs,
        )
        for item in group
    ]


def _name(graph: Any, module: Any) -> str:
    import torch

    if isinstance(module, torch.nn.Parameter):
        return str(graph._param_to_name.get(module, ""))
    return "" if type(module).__module__.startswith("torch_pruning") else str(graph._module2name.get(module, ""))


_heard: list[str] = []


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep torch-pruning's warnings from the terminal, where the names of a large model's norms bury everything else,
    until `heard` asks for them. Other warnings pass.
    """
    caught: list[warnings.WarningMessage] = []
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
    finally:  # what came before an error may explain it
        for warning in caught:
            if "torch_pruning" in warning.filename:
                _heard.append(str(warning.message))
            else:
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def heard() -> list[str]:
    """The full text of every warning of torch-pruning since the last call."""
    texts = list(_heard)
    _heard.clear()
    return texts


def summarised(texts: Iterable[str]) -> str:
    """Warnings of torch-pruning in one line, its lists of unwrapped parameters as numbers; empty without any."""
    texts = list(texts)
    unwrapped = [re.findall(r"'([^']+)'", text) for text in texts if text.startswith(_UNWRAPPED)]
    # an object's address tells nothing, and makes equal warnings different
    others = Counter(re.sub(r" at 0x[0-9a-f]+", "", " ".join(t.split())) for t in texts if not t.startswith(_UNWRAPPED))
    parts = [_named(unwrapped)] if unwrapped else []
    parts += [f"{text} ({count} times)" if count > 1 else text for text, count in sorted(others.items())]
    times = "once" if len(texts) == 1 else f"{len(texts)} times"
    return f"torch-pruning warned {times}: {'; '.join(parts)}" if parts else ""


_UNWRAPPED = "Unwrapped parameters detected"


def _named(unwrapped: Sequence[Sequence[str]]) -> str:
    """`61 unwrapped parameters, all of them norms`; of several models, `5 to 61`."""
    fewest, most = min(map(len, unwrapped)), max(map(len, unwrapped))
    amount = f"{most}" if fewest == most else f"{fewest} to {most}"
    others = sorted({name for names in unwrapped for name in names if "norm" not in name})
    shown = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
    return f"{amount} unwrapped parameters, {f'norms and {shown}' if others else 'all of them norms'}"
