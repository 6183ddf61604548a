"""Fixes as a series of patches to torch-pruning's own source tree, with a test for each: what a pull request needs.

The patches apply one after another, in registry order: with `git apply` or `patch -p1` in a checkout of the version
that is installed. So each is made from the tree that those before it leave.
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterable, Iterator
from pathlib import Path
from sys import modules

from ..errors import UserError
from .patch import Addition, Edit, Fix, edited, module_file
from .registry import FIXES, applied
from .standalone import as_test


def write(ids: Iterable[str], folder: Path) -> list[Path]:
    """Write `NNNN-<id>.patch` and `test_<id>.py` for these fixes and what they build on; returns the files.

    Raises UserError, and writes nothing, if a file exists already or the folder can't be written to.
    """
    with applied(ids) as chosen:
        fixes = [FIXES[id] for id in chosen]
    contents = {folder / f"{number:04}-{fix.id}.patch": text for number, (fix, text) in enumerate(series(fixes), 1)}
    contents |= {folder / f"test_{fix.id.replace('-', '_')}.py": as_test(fix) for fix in fixes}
    if existing := [file.name for file in contents if file.exists()]:
        raise UserError(f"{folder} holds {existing[0]} already, and nothing is written over; name another directory")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in contents.items():
            with file.open("x", newline="") as stream:
                stream.write(text)
    except OSError as error:
        raise UserError(f"{folder}: the patches can't be written: {error.strerror}") from None
    return list(contents)


def series(fixes: Iterable[Fix]) -> Iterator[tuple[Fix, str]]:
    """Each fix with its patch: a few words on it, and a unified diff from the tree that the fixes before it leave."""
    tree: dict[str, str] = {}
    added: set[Addition] = set()  # fixes may share one
    for fix in fixes:
        names = {edit.module for edit in fix.edits} | {addition.module for addition in fix.additions}
        before = {name: tree[name] if name in tree else _file(name).read_text("utf-8") for name in names}
        after = dict(before)
        for addition in fix.additions:
            if addition not in added:
                after[addition.module] = _added(after[addition.module], addition, fix)
        added.update(fix.additions)
        for edit in fix.edits:
            after[edit.module] = _edited(after[edit.module], edit)
        tree |= after
        diffs = [_diff(_file(name), before[name], after[name]) for name in sorted(names)]
        yield fix, f"{modules[fix.probe.__module__].__doc__ or fix.symptom}\n{''.join(diffs)}"


def _file(module: str) -> Path:
    file = module_file(module)
    assert file is not None  # or the fix would have been refused
    return file


def _edited(text: str, edit: Edit) -> str:
    """A module's text with one edit made in its function."""
    node = _definitions(text)[edit.function]
    function = ast.get_source_segment(text, node, padded=True) or ""  # ends before a comment behind its last statement
    start = text.index(function, sum(map(len, text.splitlines(keepends=True)[: node.lineno - 1])))
    return text[:start] + edited(function, [edit]) + text[start + len(function) :]


def _added(text: str, addition: Addition, fix: Fix) -> str:
    """A module's text with a function added, before the first function or class there that the fix edits, else last."""
    heads = {edit.function.split(".")[0] for edit in fix.edits if edit.module == addition.module}
    known = _definitions(text)
    starts = [min(n.lineno for n in (known[head], *known[head].decorator_list)) for head in heads]
    source = addition.source.strip("\n")
    if not starts:
        return f"{text.rstrip()}\n\n\n{source}\n"
    lines = text.splitlines(keepends=True)
    return "".join([*lines[: min(starts) - 1], f"{source}\n\n\n", *lines[min(starts) - 1 :]])


def _definitions(text: str) -> dict[str, ast.FunctionDef | ast.ClassDef]:
    """Every function and class of a module by its dotted name."""
    found: dict[str, ast.FunctionDef | ast.ClassDef] = {}

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                found[prefix + child.name] = child
            if isinstance(child, ast.ClassDef):
                visit(child, f"{prefix}{child.name}.")

    visit(ast.parse(text), "")
    return found


def _diff(file: Path, before: str, after: str) -> str:
    parts = file.parts
    name = "/".join(parts[len(parts) - parts[::-1].index("torch_pruning") - 1 :])
    lines = difflib.unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), f"a/{name}", f"b/{name}"
    )
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)
