"""Replace single functions of torch_pruning by their own source with a few lines changed, and put them back.

A fix is written as a change of source, so that what runs here, what `inspect.getsource` shows and what could be
proposed upstream are the same thing. Every edit names the fingerprint of the function it was written against: code that
nobody has looked at is not patched.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import linecache
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any


@dataclass(frozen=True)
class Edit:
    """One change inside one function.

    module: dotted name below torch_pruning, e.g. `dependency.index_mapping`, as 1.6.0 lays it out (see `legacy`).
    function: `name` or `Class.name`.
    fingerprints: of the function's source as upstream ships it.
    old, new: whole lines, indented alike; `old` occurs exactly once.
    """

    module: str
    function: str
    fingerprints: tuple[str, ...]
    old: str
    new: str

    @property
    def place(self) -> tuple[str, str]:
        return self.module, self.function


@dataclass(frozen=True)
class Addition:
    """A function or class that a fix adds to a module of torch_pruning; its name must be new there."""

    module: str
    source: str

    @property
    def name(self) -> str:
        definition = ast.parse(self.source).body[0]
        assert isinstance(definition, ast.FunctionDef | ast.ClassDef)
        return definition.name


@dataclass(frozen=True)
class Fix:
    """The smallest patch that removes one defect.

    id: as in the defect registry. symptom: one line. upstream: issues and pull requests of VainF/Torch-Pruning.
    affected: requirements that hold, all of them, where the defect was found by probing, e.g. `torch-pruning>=1.5.3`.
    probe: says whether the defect shows on the torch_pruning that is loaded, patched or not; builds a toy model,
    milliseconds. Raises ImportError where transformers lacks what it looks at. Uses torch, transformers, torch_pruning
    and `toys` alone, so that it can be written out as a test for upstream.
    requires: ids of fixes that this one builds on.
    """

    id: str
    symptom: str
    upstream: tuple[int, ...]
    affected: tuple[str, ...]
    edits: tuple[Edit, ...]
    probe: Callable[[], bool]
    additions: tuple[Addition, ...] = ()
    requires: tuple[str, ...] = ()

    def refusal(self) -> str | None:
        """Why this fix can't be applied to the installed torch_pruning, or None if it can. Reads source, imports
        nothing.
        """
        for edit in self.edits:
            source = function_source(edit.module, edit.function)
            if source is None:
                return f"torch_pruning has no {edit.module}.{edit.function}"
            if fingerprint(source) not in edit.fingerprints:
                return f"torch_pruning.{edit.module}.{edit.function} is code this fix does not know ({fingerprint(source)})"
        return None


def fingerprint(source: str) -> str:
    """The first 12 hex digits of the SHA-256 of a function's source, as it stands in its file from `def` on."""
    return hashlib.sha256(source.encode()).hexdigest()[:12]


def module_file(module: str) -> Path | None:
    """The source file of a module below torch_pruning, found without importing it, or None."""
    spec = importlib.util.find_spec("torch_pruning")
    if spec is None or not spec.submodule_search_locations:
        return None
    base = Path(next(iter(spec.submodule_search_locations))).joinpath(*module.split("."))
    return next((file for file in (base.with_suffix(".py"), base / "__init__.py") if file.is_file()), None)


def function_source(module: str, function: str) -> str | None:
    """The source of a function of the installed torch_pruning as it lies on disk (dedented), or None if there is none."""
    file = module_file(module)
    return None if file is None else _functions(file, file.stat().st_mtime_ns).get(function)


@cache
def _functions(file: Path, _mtime: int) -> dict[str, str]:
    text = file.read_text()
    found: dict[str, str] = {}

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef):
                visit(child, f"{prefix}{child.name}.")
            elif isinstance(child, ast.FunctionDef):
                segment = ast.get_source_segment(text, child, padded=True) or ""
                found[prefix + child.name] = textwrap.dedent(segment)

    visit(ast.parse(text), "")
    return found


def edited(source: str, edits: Iterable[Edit]) -> str:
    """The source of one function with `edits` made. Raises ValueError if one doesn't meet its text exactly once."""
    for edit in edits:
        old, new = (part.strip("\n") for part in textwrap.dedent(f"{edit.old}\0{edit.new}").split("\0"))
        depth = _depth(source, old)
        if depth is None:
            raise ValueError(
                f"{edit.module}.{edit.function} does not hold, exactly once: {old.splitlines()[0].strip()}"
            )
        source = source.replace(textwrap.indent(old, depth), textwrap.indent(new, depth))
    return source


def _depth(source: str, snippet: str) -> str | None:
    """The indentation at which `snippet` stands in `source` as whole lines, if it does so exactly once."""
    lines, wanted = source.splitlines(), snippet.splitlines()
    depths = []
    for start in range(len(lines) - len(wanted) + 1):
        depth = lines[start][: _indentation(lines[start]) - _indentation(wanted[0])]
        if lines[start : start + len(wanted)] == textwrap.indent(snippet, depth).splitlines():
            depths.append(depth)
    return depths[0] if len(depths) == 1 else None


def _indentation(line: str) -> int:
    return len(line) - len(line.lstrip())


class Patcher:
    """Holds the originals of everything replaced in torch_pruning, and replaces it anew whenever the set of fixes
    changes.
    """

    def __init__(self) -> None:
        self._originals: list[tuple[Any, str, Any]] = []
        self._added: list[tuple[ModuleType, str]] = []

    def install(self, edits: Iterable[Edit], additions: Iterable[Addition]) -> None:
        """Make exactly these edits and additions, on top of the original torch_pruning. On an error nothing is changed."""
        self.restore()
        try:
            for addition in additions:
                self._add(addition)
            by_place: dict[tuple[str, str], list[Edit]] = {}
            for edit in edits:
                by_place.setdefault(edit.place, []).append(edit)
            for (module, function), changes in by_place.items():
                source = function_source(module, function)
                if source is None:
                    raise ValueError(f"torch_pruning.{module} has no function {function}")
                self._replace(module, function, edited(source, changes))
        except BaseException:
            self.restore()
            raise

    def restore(self) -> None:
        """Put every original back."""
        while self._originals:
            owner, name, original = self._originals.pop()
            setattr(owner, name, original)
        while self._added:
            module, name = self._added.pop()
            delattr(module, name)

    def _add(self, addition: Addition) -> None:
        module = importlib.import_module(f"torch_pruning.{addition.module}")
        if hasattr(module, addition.name):
            raise ValueError(f"torch_pruning.{addition.module} already has a {addition.name}")
        setattr(module, addition.name, _compiled(textwrap.dedent(addition.source), module, addition.name))
        self._added.append((module, addition.name))

    def _replace(self, module_name: str, function: str, source: str) -> None:
        module = importlib.import_module(f"torch_pruning.{module_name}")
        *owners, name = function.split(".")
        owner: Any = module
        for part in owners:
            owner = getattr(owner, part)
        original = vars(owner)[name]
        replacement = _compiled(source, module, name)
        replacement.__qualname__ = function
        for holder, held_as in [(owner, name) for name in _names(owner, original)] if owners else _holders(original):
            self._originals.append((holder, held_as, original))
            setattr(holder, held_as, replacement)


def _names(owner: Any, function: Any) -> list[str]:
    """The names under which a class or module holds a function: `prune_in_channels = prune_out_channels` is one more."""
    return [name for name, value in vars(owner).items() if value is function]


def _holders(function: Any) -> list[tuple[ModuleType, str]]:
    """Every module of torch_pruning that holds a function, by `from .module import function` say, and the name there."""
    import sys

    modules = [m for key, m in list(sys.modules.items()) if key.split(".")[0] == "torch_pruning" and m is not None]
    return [(module, name) for module in modules for name in _names(module, function)]


def _compiled(source: str, module: ModuleType, name: str) -> Any:
    file = f"<llmprune fix of {module.__name__}.{name} {fingerprint(source)}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    namespace: dict[str, Any] = {}
    exec(compile(source, file, "exec"), module.__dict__, namespace)
    return namespace[name]
