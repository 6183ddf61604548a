"""Draw the faults: once, at random, before anything is known of which are found.

    for mode in on off; do
        COVERAGE_FILE=.coverage.$mode python -m coverage run --source torch_pruning -m tests.power.drive $mode
    done
    python -m tests.power.draw .coverage.on .coverage.off

Needs cosmic-ray and coverage. A fault is a change that cosmic-ray makes at a line of a function which ran. Lines are
drawn alike, whatever the number of changes that one admits: first one change from every line, then a second, until
there are enough. Left out: strings and annotations (cosmic-ray leaves them alone), arguments of print, warn and raise,
and what decides about printing alone.
"""

from __future__ import annotations

import ast
import random
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from .faults import Fault, freeze

NUMBER = 200
SEED = 20261124
PER_LINE = 2
TALK = ("print", "warnings.warn")


@dataclass(frozen=True)
class Candidate:
    """One change that could be made: the how-manieth that an operator of cosmic-ray makes in a file."""

    path: Path
    file: str
    line: int
    function: str
    operator: str
    occurrence: int


def executed(data_files: list[str]) -> dict[Path, set[int]]:
    """The lines that ran, by file, of the runs together."""
    from coverage import CoverageData

    lines: dict[Path, set[int]] = defaultdict(set)
    for name in data_files:
        data = CoverageData(name)
        data.read()
        for file in data.measured_files():
            lines[Path(file)].update(data.lines(file) or ())
    return lines


class Places(ast.NodeVisitor):
    """Where a file may be changed: for every physical line of a statement that ran, inside a function that ran, the
    statement's first line and the function's name.
    """

    def __init__(self, tree: ast.AST, ran: set[int]) -> None:
        self.ran = ran
        self.lines: dict[int, tuple[int, str]] = {}
        self._names: list[str] = []
        self._function = False
        self.visit(tree)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._inside(node, False)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        if any(line in self.ran for line in range(node.body[0].lineno, (node.end_lineno or 0) + 1)):
            self._inside(node, True)

    def _inside(self, node: ast.ClassDef | ast.FunctionDef, function: bool) -> None:
        before, self._function = self._function, function
        self._names.append(node.name)
        for child in node.body:
            self.visit(child)
        self._names.pop()
        self._function = before

    def generic_visit(self, node: ast.AST) -> None:
        if isinstance(node, ast.stmt) and self._function and node.lineno in self.ran and not talks(node):
            first_inner = min(
                (s.lineno for s in ast.walk(node) if s is not node and isinstance(s, ast.stmt)), default=0
            )
            last = first_inner - 1 if first_inner else node.end_lineno
            for line in range(node.lineno, max(last or 0, node.lineno) + 1):
                self.lines[line] = (node.lineno, ".".join(self._names))
        super().generic_visit(node)


def talks(node: ast.AST) -> bool:
    """Whether a statement only tells a person something: also an `if` whose branches all do."""
    if isinstance(node, ast.If):
        return all(talks(child) for child in [*node.body, *node.orelse])
    if isinstance(node, ast.Expr):
        value = node.value
        return isinstance(value, ast.Constant) or (isinstance(value, ast.Call) and ast.unparse(value.func) in TALK)
    return isinstance(node, ast.Raise)


def candidates(file: Path, name: str, ran: set[int]) -> Iterator[Candidate]:
    """Every change of a file that cosmic-ray would make at a line where it may."""
    from cosmic_ray import plugins
    from cosmic_ray.ast import ast_nodes, get_ast

    text = file.read_text()
    places = Places(ast.parse(text), ran).lines
    nodes = list(ast_nodes(get_ast(text)))
    for operator in sorted(plugins.operator_names()):
        if "Variable" in operator:  # these want to be told which variables
            continue
        positions = plugins.get_operator(operator)().mutation_positions
        starts = (start for node in nodes for start, _ in positions(node))
        for occurrence, (line, _) in enumerate(starts):
            if line in places:
                yield Candidate(file, name, *places[line], operator, occurrence)


def fault_of(candidate: Candidate) -> Fault | None:
    """The fault, without id; None if the change is none, or no Python."""
    from cosmic_ray import plugins
    from cosmic_ray.mutating import mutate_code

    text = candidate.path.read_text()
    changed = mutate_code(text, plugins.get_operator(candidate.operator)(), candidate.occurrence)
    try:
        if changed is None or ast.dump(ast.parse(changed)) == ast.dump(ast.parse(text)):
            return None
    except SyntaxError:
        return None
    before, after = text.splitlines(), changed.splitlines()
    start = next(i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b)
    tail = next(i for i, (a, b) in enumerate(zip(before[::-1], after[::-1], strict=False)) if a != b)
    old, new = tuple(before[start : len(before) - tail]), tuple(after[start : len(after) - tail])
    operator = candidate.operator.removeprefix("core/")
    return Fault("", candidate.file, candidate.function, candidate.line, operator, start + 1, old, new)


def draw(by_line: dict[tuple[str, int], list[Candidate]]) -> list[Fault]:
    """NUMBER faults, in random order."""
    generator = random.Random(SEED)
    lines = sorted(by_line)
    for line in lines:
        generator.shuffle(by_line[line])
    drawn: list[Fault] = []
    for _ in range(PER_LINE):
        generator.shuffle(lines)
        for line in lines:
            fault = None
            while by_line[line] and (fault is None or fault in drawn):
                fault = fault_of(by_line[line].pop())
            if fault is not None and fault not in drawn and len(drawn) < NUMBER:
                drawn.append(fault)
            if len(drawn) == NUMBER:
                break
    generator.shuffle(drawn)
    return [replace(fault, id=f"F{n:03}") for n, fault in enumerate(drawn, 1)]


def main(data_files: list[str]) -> None:
    import torch_pruning

    root = Path(torch_pruning.__file__).resolve().parent
    by_line: dict[tuple[str, int], list[Candidate]] = defaultdict(list)
    for file, ran in sorted(executed(data_files).items()):
        for candidate in candidates(file, str(file.relative_to(root)), ran):
            by_line[candidate.file, candidate.line].append(candidate)
    admitted, lines = sum(map(len, by_line.values())), len(by_line)
    faults = draw(by_line)
    freeze(faults)
    print(f"{len(faults)} faults of {admitted:,} that {lines} lines admit")


if __name__ == "__main__":
    main(sys.argv[1:])
