"""`llmprune graph`: trace a model, hold its groups against the expected structure, keep them, draw them; or say what is
different between two snapshots.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .. import fixes
from ..errors import UserError
from ..fixes.expectation import chosen
from ..models.load import load
from ..models.spec import ModelSpec, check
from ..record.store import write_named
from ..torch_pruning_api import heard, summarised
from .budget import propagation_budget
from .diff import differences, other_model
from .expected import expected_groups
from .names import PARTS, RESIDUAL, Finding, fold, label, layer_of, place_of, ranges
from .picture import picture
from .snapshot import GraphSnapshot, GroupSnapshot, dumps, fingerprint, groups_of, read, snapshot_of
from .trace import trace


def show(spec: ModelSpec, asked_fixes: str, output: Path | None, drawing: Path | None) -> bool:
    """Print a model's groups, or write them and their picture to files. Returns whether they are as the architecture
    implies; the lines that say what is not are printed.

    Raises UserError for a model that can't be had, CheckFailed where torch-pruning can't trace it.
    """
    check(spec)
    for file in filter(None, (output, drawing)):
        if not file.parent.is_dir() or file.is_dir():
            raise UserError(f"{file}: no file can be written there")
    with fixes.applied(chosen(asked_fixes)), propagation_budget():
        model = load(spec).model
        graph = trace(model)
        snapshot = snapshot_of(graph, spec.name, groups_of(graph))
    if output:
        write_named(output, dumps(snapshot))
        print(f"snapshot: {output} ({len(snapshot.groups)} groups, {fingerprint(snapshot.groups)})")
    if drawing:
        write_named(drawing, picture(snapshot))
        print(f"picture: {drawing}")
    if not output and not drawing:
        print("\n".join(summary(snapshot)))
    if warned := summarised(heard()):
        print(warned)
    found = differences(expected_groups(model.config), snapshot.groups)
    print("not as the architecture implies (implied -> traced):" if found else "as the architecture implies")
    for line in found:
        print(f"  {line}")
    return not found


def compare(a: Path, b: Path) -> bool:
    """Print what is different between two snapshots. Returns whether they are equal. Raises UserError if they are of
    different models, or one can't be read.
    """
    before, after = read(a), read(b)
    if other := other_model(before, after):
        raise UserError(f"{a} and {b} are snapshots of different models, which can't be compared: {other}")
    found = differences(before.groups, after.groups, " in B")
    versions = [
        f"{name} {before.environment.get(name, 'absent')} -> {after.environment.get(name, 'absent')}"
        for name in sorted(before.environment.keys() | after.environment.keys())
        if before.environment.get(name) != after.environment.get(name)
    ]
    print(f"A {a}, B {b}: {'; '.join(versions) or 'made in equal environments'}")
    for line in found:
        print(line)
    print(f"{'changed' if found else 'equal'}: {len(before.groups)} groups in A, {len(after.groups)} in B")
    return not found


def summary(snapshot: GraphSnapshot) -> Iterator[str]:
    """A snapshot for a person: the model, the versions, and a line per group, equal ones folded over layers."""
    model, versions = snapshot.model, snapshot.environment
    tied = "tied" if model.tied else "not tied"
    heads = f"{model.heads} query heads on {model.kv_heads} kv heads of {model.head_dim}"
    yield (
        f"{model.architecture}, {model.layers} layers: hidden {model.hidden}, FFN {model.ffn}, {heads},"
        f" embeddings {tied}"
    )
    stack = ", ".join(f"{name} {versions.get(name)}" for name in ("torch-pruning", "transformers", "torch"))
    yield f"{stack}; {versions['attention']} attention; fixes: {versions['fixes']}"
    findings = []
    for group in snapshot.groups:
        part, layer = place_of(group.keys)
        findings.append(Finding(part, layer, _residual(group) if part == RESIDUAL else _members(group)))
    findings.sort(key=lambda finding: (PARTS.index(finding.part), finding.layer or 0))
    yield from fold(findings)


def _members(group: GroupSnapshot) -> str:
    """`k_proj.out, v_proj.out (64); o_proj.in, q_proj.out (256)`, with numbers of channels."""
    names: dict[int, list[str]] = {}
    for member in group.members:
        names.setdefault(member.channels, []).append(label(*member.key))
    return "; ".join(f"{', '.join(names[channels])} ({channels})" for channels in sorted(names))


def _residual(group: GroupSnapshot) -> str:
    """Members outside layers first, then those of layers, equal ones folded."""
    layers: dict[tuple[str, int], list[int]] = {}
    for member in group.members:
        layer = layer_of(member.name)
        layers.setdefault((label(*member.key), member.channels), []).extend([] if layer is None else [layer])
    by_extent: dict[tuple[str, int], list[str]] = {}
    for (name, channels), numbers in layers.items():
        where = f"in layers {ranges(sorted(numbers))} " if numbers else ""
        by_extent.setdefault((where, channels), []).append(name)
    return "; ".join(f"{where}{', '.join(names)} ({width})" for (where, width), names in sorted(by_extent.items()))
