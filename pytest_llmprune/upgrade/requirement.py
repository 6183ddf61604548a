"""What the user names as a side of an upgrade: a version, a checkout, a wheel, a git URL, or a file of requirements."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from ..errors import UserError

# what can be upgraded, and where a checkout keeps it
PACKAGES = {"torch-pruning": ("torch_pruning",), "transformers": ("src/transformers",), "torch": ("torch",)}


@dataclass(frozen=True)
class Req:
    """One package of a side. text: what pip is given. version: what it is pinned to, empty if it isn't. label: as named
    by the user.
    """

    name: str
    text: str
    version: str
    label: str


def parse_all(texts: Sequence[str]) -> tuple[Req, ...]:
    """All requirements of one side. Raises UserError for one that can't be understood, or a package named twice."""
    reqs = tuple(req for text in texts for req in _parse(text))
    names = [req.name for req in reqs]
    for name in names:
        if names.count(name) > 1:
            raise UserError(
                f"{name} is named twice on one side, as {' and '.join(r.label for r in reqs if r.name == name)}"
            )
    return reqs


def check_sides(old: Sequence[Req], new: Sequence[Req]) -> None:
    """Raise UserError unless both sides name the same of torch-pruning, transformers and torch."""
    sides = [[name for name in PACKAGES if any(req.name == name for req in reqs)] for reqs in (old, new)]
    if sides[0] != sides[1]:
        named = " and --to ".join(", ".join(side) or "nothing" for side in sides)
        raise UserError(
            f"--from names {named}, which are different packages; name the same on both sides, so that it is said what"
            " each of them has"
        )
    if not sides[0]:
        raise UserError(f"neither side names one of {', '.join(PACKAGES)}")


def _parse(text: str) -> Iterator[Req]:
    path = Path(text).expanduser()
    if path.is_dir() and text and text not in PACKAGES:
        yield Req(_of_checkout(path), str(path.resolve()), "", text)
    elif path.suffix == ".whl":
        yield _wheel(path)
    elif path.is_file():
        for line in _lines(path):
            yield _requirement(line)
    elif re.match(r"[./~]", text) or path.suffix == ".txt":
        raise UserError(f"{text}: no such file or directory")
    else:
        req = _requirement(text)
        if req.name not in PACKAGES:
            raise UserError(f"{text}: what can be upgraded is {', '.join(PACKAGES)}, not {req.name}")
        yield req


def _requirement(text: str) -> Req:
    if re.match(r"git\+", text):
        name = canonicalize_name(re.sub(r"(\.git)?(@[^/]*)?(#.*)?$", "", text).rpartition("/")[2])
        return Req(name, text, "", text)
    with contextlib.suppress(InvalidVersion):
        text = f"torch-pruning=={Version(text)}"
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        raise UserError(
            f"{text!r} is no requirement; write a version as torch-pruning==1.6.1, or give a checkout, a wheel, a git"
            " URL (git+https://...) or a file of requirements"
        ) from None
    pins = [specifier.version for specifier in requirement.specifier if specifier.operator in ("==", "===")]
    pinned = pins[0] if len(pins) == 1 and not pins[0].endswith(".*") and not requirement.url else ""
    return Req(canonicalize_name(requirement.name), text, pinned, text)


def _wheel(path: Path) -> Req:
    if not path.is_file():
        raise UserError(f"{path}: no such file or directory")
    try:
        name = parse_wheel_filename(path.name)[0]
    except InvalidWheelFilename as error:
        raise UserError(f"{path}: {error}") from None
    return Req(name, str(path.resolve()), "", str(path))


def _of_checkout(path: Path) -> str:
    for name, folders in PACKAGES.items():
        if any((path / folder).is_dir() for folder in folders):
            return name
    raise UserError(f"{path}: the directory is a checkout of none of {', '.join(PACKAGES)}")


def _lines(path: Path) -> Iterator[str]:
    """The requirements in a file, without comments and hashes. Raises UserError for an option."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    for line in text.splitlines():
        line = re.sub(r"(^|\s)#.*$|\s--hash=\S+", "", line).strip()
        if line.startswith("-"):
            raise UserError(f"{path}: only requirements are read from a file, no options: {line}")
        if line:
            yield line
