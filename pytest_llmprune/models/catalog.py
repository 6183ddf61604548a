"""The published architectures that ship as configs: enough to build them on the meta device without a network."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Any

from ..resources import data_dir


@dataclass(frozen=True)
class CatalogEntry:
    """A published model: its hub id, its published parameter count and its config values."""

    name: str
    parameters: int
    config: dict[str, Any]


@cache
def names() -> tuple[str, ...]:
    """The hub ids of the catalogue, sorted."""
    return tuple(sorted(path.stem.replace("--", "/") for path in (data_dir() / "configs").glob("*.json")))


@cache
def entry(name: str) -> CatalogEntry:
    """The catalogue's entry of a hub id. Raises KeyError if there is none."""
    if name not in names():
        raise KeyError(name)
    values = json.loads((data_dir() / "configs" / f"{name.replace('/', '--')}.json").read_text())
    return CatalogEntry(values["name"], values["parameters"], values["config"])
