"""What groups and their members are called in sentences, and equal sentences folded over layers.

A name alone says where a member belongs in a Llama-family model: `model.layers.7.self_attn.v_proj` and `out` belong to
the attention group of layer 7, the same layer's `in` to the residual group.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

RESIDUAL, ATTENTION, FFN = "residual", "attention", "FFN"
PARTS = (RESIDUAL, ATTENTION, FFN)
NAMES_SHOWN = 3

_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")


@dataclass(frozen=True)
class Finding:
    """One sentence about a part (residual, attention, FFN) of a layer; layer None: about no layer in particular."""

    part: str
    layer: int | None
    text: str


def layer_of(name: str) -> int | None:
    """The number of the decoder layer that a module or parameter lies in, or None."""
    found = _LAYER.search(name)
    return int(found[1]) if found else None


def part_of(name: str, side: str) -> str:
    """The part whose channels a member's side carries."""
    for block, part, last in ((".self_attn.", ATTENTION, "o_proj"), (".mlp.", FFN, "down_proj")):
        if block in name and (side == "in") == name.endswith(last):
            return part
    return RESIDUAL


def label(name: str, side: str) -> str:
    """A member in short: `v_proj.out`; a norm's weight has only one side: `input_layernorm`."""
    owner, _, last = name.rpartition(".")
    return owner.rpartition(".")[2] if last == "weight" else f"{last}.{side}"


def listed(members: Sequence[tuple[str, str]]) -> str:
    """The first members (name, side) of a list in short, and how many more there are."""
    shown = ", ".join(label(name, side) for name, side in members[:NAMES_SHOWN])
    return shown if len(members) <= NAMES_SHOWN else f"{shown} and {len(members) - NAMES_SHOWN} more"


def place_of(members: Sequence[tuple[str, str]]) -> tuple[str, int | None]:
    """The part and layer that most of a group's members (name, side) belong to; the residual group has no layer."""
    part = Counter(part_of(name, side) for name, side in members).most_common(1)[0][0]
    if part == RESIDUAL:
        return part, None
    own = (layer_of(name) for name, side in members if part_of(name, side) == part)
    return part, Counter(own).most_common(1)[0][0]


def title(part: str, layers: Sequence[int | None]) -> str:
    """`layer 7 attention`, `layers 0-31 FFN`, `residual`, `residual, layers 0-31`."""
    numbers = sorted({layer for layer in layers if layer is not None})
    if not numbers:
        return part
    where = f"layer{'s' if len(numbers) > 1 else ''} {ranges(numbers)}"
    return f"{part}, {where}" if part == RESIDUAL else f"{where} {part}"


def ranges(numbers: Sequence[int]) -> str:
    """Sorted numbers with runs of three and more joined: `0-3, 7`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    parts = (f"{run[0]}-{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)
    return ", ".join(parts)


def fold(findings: Iterable[Finding]) -> list[str]:
    """One line per sentence, with all the layers it is true of, in the order in which the sentences first came."""
    layers: dict[tuple[str, str], list[int | None]] = {}
    for finding in findings:
        layers.setdefault((finding.part, finding.text), []).append(finding.layer)
    return [f"{title(part, numbers)}: {text}" for (part, text), numbers in layers.items()]
