"""The frozen faults: single changes of torch-pruning 1.6.1's source, in lines that LLM pruning executes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

VERSION = "1.6.1"  # of torch-pruning
FILE = Path(__file__).with_name("faults.json")


@dataclass(frozen=True)
class Fault:
    """One fault.

    file: below torch_pruning. function: `name` or `Class.name`, the innermost that holds it. line: of the statement,
    the first is 1. operator: what changed it, by cosmic-ray's name. start, old, new: whole lines from `start` on, and
    what stands there instead.
    """

    id: str
    file: str
    function: str
    line: int
    operator: str
    start: int
    old: tuple[str, ...]
    new: tuple[str, ...]

    @property
    def module(self) -> str:
        """Dotted name below torch_pruning."""
        return self.file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    def applied_to(self, text: str) -> str:
        """A file's text with the fault. Raises ValueError if it doesn't hold the fault's lines."""
        lines = text.splitlines()
        end = self.start - 1 + len(self.old)
        if tuple(lines[self.start - 1 : end]) != self.old:
            raise ValueError(f"{self.id}: {self.file} does not hold the fault's lines at {self.start}")
        return "\n".join([*lines[: self.start - 1], *self.new, *lines[end:]]) + "\n"


def load() -> list[Fault]:
    """The frozen faults, in the random order they were drawn in."""
    return [
        Fault(**{**row, "old": tuple(row["old"]), "new": tuple(row["new"])}) for row in json.loads(FILE.read_text())
    ]


def freeze(faults: Iterable[Fault]) -> None:
    """Write the faults, once: raises FileExistsError if they are frozen already."""
    with FILE.open("x") as stream:
        json.dump([asdict(fault) for fault in faults], stream, indent=1)
        stream.write("\n")
