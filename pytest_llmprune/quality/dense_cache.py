"""What was measured of dense models, kept on disk: a sweep of ratios, recipes and torch-pruning versions measures dense
once.

    .llmprune/dense/<digest of the key>.json      or below $LLMPRUNE_DENSE_CACHE

An entry is found under everything that its numbers depend on. It holds its key and a digest of its values; one that
doesn't agree with either is measured anew and replaced. Entries appear whole or not at all. To forget them, remove the
folder.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .. import __version__
from ..errors import UserError
from ..record.store import FOLDER, write_atomically

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ..models.load import LoadedModel

T = TypeVar("T")
MEASURED, CACHED = "measured", "cached"
_NOT_OF_THE_MODEL = ("_name_or_path", "transformers_version", "dtype", "torch_dtype")


@dataclass(frozen=True)
class DenseKey:
    """Everything that a measurement of a dense model depends on. weights, tokenizer (its vocabulary, and the ids it
    gives to the text), text: hashes. protocol: what is measured, generation settings included.
    """

    measurement: str
    weights: str
    tokenizer: str
    text: str
    protocol: dict[str, Any]
    dtype: str
    device: str
    attention: str
    torch: str
    transformers: str
    llmprune: str

    @property
    def digest(self) -> str:
        """SHA-256 of the key as canonical JSON."""
        return _digest(asdict(self))


def key_for(
    loaded: LoadedModel, measurement: str, protocol: dict[str, Any], *, weights: str, tokenizer: str, text: str
) -> DenseKey:
    """The key of one measurement of `loaded`, where it runs and as it runs. The hashes are the caller's, since several
    measurements share them.
    """
    return DenseKey(
        measurement=measurement,
        weights=weights,
        tokenizer=tokenizer,
        text=text,
        protocol=protocol,
        dtype=str(loaded.dtype).removeprefix("torch."),
        device=_device(loaded),
        attention=getattr(loaded.model.config, "_attn_implementation", "") or "",
        torch=metadata.version("torch"),
        transformers=metadata.version("transformers"),
        llmprune=__version__,
    )


def folder_of(root: Path) -> Path:
    """`$LLMPRUNE_DENSE_CACHE`, else `.llmprune/dense` under `root`."""
    return Path(os.environ.get("LLMPRUNE_DENSE_CACHE") or root / FOLDER / "dense")


def found_or_measured(
    folder: Path | None, key: DenseKey, measure: Callable[[], T], decode: Callable[[dict[str, Any]], T]
) -> tuple[T, str]:
    """The value under `key` and `cached`, or what `measure` returns, kept for the next time, and `measured`.

    The value is a dataclass; decode: its inverse of `asdict`. folder: None keeps nothing. Raises UserError if the
    folder can't be written.
    """
    file = folder / f"{key.digest}.json" if folder else None
    if file is not None and (values := _read(file, key)) is not None:
        return decode(values), CACHED
    value = measure()
    if file is not None:
        values = asdict(value)  # type: ignore[call-overload]
        entry = {"key": asdict(key), "values": values, "digest": _digest(values)}
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, json.dumps(entry, ensure_ascii=False, allow_nan=False))
        except OSError as error:
            raise UserError(f"{file.parent}: measurements of dense can't be kept there: {error.strerror}") from None
    return value, MEASURED


def _read(file: Path, key: DenseKey) -> dict[str, Any] | None:
    """An entry's values, or None if there is none or it isn't what was written."""
    try:
        entry = json.loads(file.read_text(encoding="utf-8"))
        values: dict[str, Any] = entry["values"]
        sound = entry["digest"] == _digest(values) and _canonical(entry["key"]) == _canonical(asdict(key))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return values if sound else None


def weights_hash(model: PreTrainedModel) -> str:
    """SHA-256 of a model's config and of every tensor of its state: name, shape, dtype and bytes."""
    import torch

    config = {name: value for name, value in model.config.to_dict().items() if name not in _NOT_OF_THE_MODEL}
    found = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()


def short_hash(values: Any) -> str:
    """The first 16 hex digits of the SHA-256 of plain values as canonical JSON."""
    return _digest(values)[:16]


def _device(loaded: LoadedModel) -> str:
    """The device as far as it changes numbers: a GPU's name, or a CPU's instruction set."""
    import torch

    if loaded.device.type == "cuda":
        return f"cuda {torch.cuda.get_device_name(loaded.device)}"
    return f"{loaded.device.type} {torch.backends.cpu.get_cpu_capability()}"


def _canonical(values: Any) -> str:
    return json.dumps(values, sort_keys=True, allow_nan=False)


def _digest(values: Any) -> str:
    return hashlib.sha256(_canonical(values).encode()).hexdigest()
