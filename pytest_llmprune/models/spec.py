"""What the user names: a model, the kind of its weights, where and in which precision it is to run."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..resources import data_dir
from . import catalog

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class ModelSpec:
    """A model as the user names it.

    name: `tiny`, `smollm2`, a hub id or a local path (a checkpoint directory, a GGUF file, or for random and meta
    weights a config).
    """

    name: str
    weights: str = "pretrained"
    device: str = "auto"
    dtype: str = "auto"
    revision: str | None = None
    trust_remote_code: bool = False

    @property
    def label(self) -> str:
        """A short name for test ids and tables: the last part of a hub id or path."""
        return self.name if self.is_builtin else Path(self.name).name or self.name

    @property
    def is_builtin(self) -> bool:
        return self.name in ("tiny", "smollm2")

    @property
    def path(self) -> Path | None:
        """The local path that `name` means, or None for a built-in model or a hub id."""
        if self.is_builtin:
            return None
        path = Path(self.name).expanduser()
        looks_local = self.name.startswith((".", "/", "~")) or (os.sep != "/" and os.sep in self.name)
        return path if looks_local or path.exists() else None


def check(spec: ModelSpec) -> None:
    """Reject what can be seen to be wrong without importing torch or touching a network.

    Raises UserError: an unknown name, a missing path, a directory without a config.
    """
    if spec.is_builtin or spec.name in catalog.names():
        return
    path = spec.path
    if path is None:
        if not _HUB_ID.fullmatch(spec.name):
            raise UserError(
                f"unknown model {spec.name!r}: give tiny, smollm2, a hub id such as"
                " meta-llama/Llama-2-7b-hf, or the path of a checkpoint"
            )
        return
    if not path.exists():
        raise UserError(f"model {spec.name!r}: no such file or directory")
    if path.is_dir() and not (path / "config.json").is_file():
        raise UserError(f"model {spec.name!r}: the directory holds no config.json, so it is no checkpoint")
    if path.is_file() and path.suffix not in (".gguf", ".json"):
        raise UserError(f"model {spec.name!r}: a file must be a .gguf checkpoint or a config (.json)")


def config_values(spec: ModelSpec) -> dict[str, Any] | None:
    """The model's config as plain values if it lies on this machine, else None. Reads JSON; imports nothing heavy.

    Raises UserError if the config is not valid JSON.
    """
    if spec.name == "smollm2":
        return catalog.entry("HuggingFaceTB/SmolLM2-135M").config
    if spec.name in catalog.names():
        return catalog.entry(spec.name).config
    file = data_dir() / "tiny-llama" / "config.json" if spec.name == "tiny" else spec.path
    if file is None or file.suffix == ".gguf":
        return None
    if file.is_dir():
        file = file / "config.json"
    try:
        values = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"model {spec.name!r}: {file.name} can't be read: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"model {spec.name!r}: {file.name} is no config (a JSON object is expected)")
    return values
