"""A probe as a test that stands alone: its source, and that of everything of this package that it uses, in one file."""

from __future__ import annotations

import ast
import copy
import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

from .patch import Fix

ISSUES = "https://github.com/VainF/Torch-Pruning/issues"
TEMPLATE = '''"""{id}: {symptom}.{issues}
"""

from __future__ import annotations{imports}


{definitions}


def test_{name}():
    assert not {name}_shows(), {symptom!r}
'''


def as_test(fix: Fix) -> str:
    """A pytest module that fails while the defect shows, and needs torch, transformers and torch_pruning alone."""
    name = fix.id.replace("-", "_")
    bundle = _Bundle()
    bundle.add(sys.modules[fix.probe.__module__], fix.probe.__name__)
    imports = sorted(bundle.imports, key=_import_order)
    return TEMPLATE.format(
        id=fix.id,
        symptom=fix.symptom,
        issues="\n\n" * bool(fix.upstream) + "\n".join(f"{ISSUES}/{number}" for number in fix.upstream),
        imports="".join(["\n", *(f"\n{line}" for line in imports)]) if imports else "",
        definitions=re.sub(rf"\b{fix.probe.__name__}\b", f"{name}_shows", "\n\n\n".join(bundle.definitions)),
        name=name,
    )


def program(code: str, module: ModuleType) -> str:
    """Code that uses names of a module of this package, as a program that stands alone: after what it uses."""
    bundle = _Bundle()
    source = inspect.getsource(module)
    top = {bound: node for node in ast.parse(source).body for bound in _bound(node)}
    bundle.add_used(ast.parse(code), top, module)
    imports = "\n".join(sorted(bundle.imports, key=_import_order))
    return "\n\n\n".join(filter(None, (imports, *bundle.definitions, code)))


def _import_order(line: str) -> tuple[bool, str]:
    return line.startswith("from"), line


class _Bundle:
    """Definitions of this package, each after what it uses itself, and the imports of other packages."""

    def __init__(self) -> None:
        self.definitions: list[str] = []
        self.imports: set[str] = set()
        self._taken: set[tuple[str, str]] = set()

    def add(self, module: ModuleType, name: str) -> None:
        """Take a top-level definition of a module, after everything that it uses."""
        if (module.__name__, name) in self._taken:
            return
        self._taken.add((module.__name__, name))
        text = inspect.getsource(module)
        top = {bound: node for node in ast.parse(text).body for bound in _bound(node)}
        definition = top[name]
        ours = [n for n in ast.walk(definition) if isinstance(n, ast.ImportFrom) and n.level]
        source = _source(text, definition, ours)
        known = top | {bound: node for node in ours for bound in _bound(node)}
        for used in _names(definition):
            node = known.get(used)
            if isinstance(node, ast.ImportFrom) and node.level:
                value = _imported(node, used, module)
                if isinstance(value, ModuleType):
                    source = self._without_module(value, used, definition, source)
        self.add_used(definition, known, module)
        self.definitions.append(source)

    def add_used(self, code: ast.AST, known: Mapping[str, ast.stmt | ast.AST], module: ModuleType) -> None:
        """Take what code uses of a module's own definitions and of the imports of other packages."""
        for used in _names(code):
            node = known.get(used)
            if isinstance(node, ast.ImportFrom) and node.level:
                if not isinstance(value := _imported(node, used, module), ModuleType):
                    self.add(sys.modules[value.__module__], value.__name__)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                single = copy.copy(node)
                single.names = [alias for alias in node.names if (alias.asname or alias.name) == used]
                self.imports.add(ast.unparse(single))
            elif node is not None:
                self.add(module, used)

    def _without_module(self, value: ModuleType, used: str, definition: ast.stmt, source: str) -> str:
        """Take what a definition uses of a module of ours, and return its source without the module's name."""
        for n in ast.walk(definition):
            if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name) and n.value.id == used:
                self.add(value, n.attr)
        return re.sub(rf"\b{used}\.", "", source)


def _names(code: ast.AST) -> list[str]:
    """The names in a piece of code, each once."""
    return list(dict.fromkeys(n.id for n in ast.walk(code) if isinstance(n, ast.Name)))


def _bound(node: ast.stmt | ast.AST) -> Iterator[str]:
    """The names that a statement binds."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Assign):
        yield from (target.id for target in node.targets if isinstance(target, ast.Name))
    elif isinstance(node, ast.Import | ast.ImportFrom):
        yield from (alias.asname or alias.name for alias in node.names)


def _source(text: str, definition: ast.stmt, without: list[ast.ImportFrom]) -> str:
    """The lines of a definition, without some import statements, the blank lines after them and hints for mypy."""
    lines = dict(enumerate(text.splitlines(), start=1))
    for node in without:
        end = node.end_lineno or node.lineno
        for number in range(node.lineno, end + 1 + (lines.get(end + 1) == "")):
            del lines[number]
    start = min(n.lineno for n in (definition, *getattr(definition, "decorator_list", ())))
    kept = (lines[n] for n in range(start, (definition.end_lineno or 0) + 1) if n in lines)
    return re.sub(r"  # type: ignore\S*", "", "\n".join(kept))


def _imported(node: ast.ImportFrom, name: str, module: ModuleType) -> Any:
    """What a relative import statement of a module binds to a name."""
    namespace: dict[str, Any] = {"__name__": module.__name__, "__package__": module.__package__}
    exec(compile(ast.unparse(node), str(module.__file__), "exec"), namespace)
    return namespace[name]
