"""The environment of one side: what is installed, with the packages that differ put before it (an overlay), or a
virtual environment of its own where torch or transformers differ, since those bring dependencies.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.specifiers import SpecifierSet

from .. import __version__
from ..errors import UserError
from .process import Ended, run
from .requirement import PACKAGES, Req

AS_INSTALLED, OVERLAY, VENV, INTERPRETER = "as installed", "overlay", "virtual environment", "interpreter"
NEED_DEPENDENCIES = ("torch", "transformers")
# what the suites use beside the packages under test: pinned where results must read alike, else as pip resolves it
PINNED = ("pytest", "pytest-xdist", "pytest-benchmark", "pytest-timeout")
FREE = ("safetensors", "packaging", "jinja2", "numpy", "gguf", "sentencepiece", "protobuf", "datasets")
DISK_FULL = "No space left on device"


class CannotInstall(Exception):
    """A side can't be installed: a result. The message is pip's reason in one line."""


@dataclass(frozen=True)
class Environment:
    """How the programs of a side are run. path: what stands first on Python's path. how: what kind it is."""

    python: Path
    path: tuple[Path, ...]
    how: str

    def variables(self, folder: Path) -> dict[str, str]:
        """The variables of a program of this side that keeps its temporary files in `folder`."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        inherited = os.environ.get("PYTHONPATH", "") if self.how in (AS_INSTALLED, OVERLAY) else ""
        path = os.pathsep.join(filter(None, [*map(str, self.path), inherited]))
        return {**kept, "PYTHONPATH": path, "PYTHONSAFEPATH": "1", "TMPDIR": str(folder)}


def installed() -> dict[str, str]:
    """The versions of everything installed here, by name."""
    return {name: version for name in (*PACKAGES, *PINNED, *FREE) if (version := _version(name))}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def differing(reqs: Sequence[Req], here: Mapping[str, str]) -> tuple[Req, ...]:
    """The requirements that what is installed here does not meet by a pinned version."""
    return tuple(
        req
        for req in reqs
        if not (req.version and req.name in here and SpecifierSet(f"=={req.version}").contains(here[req.name], True))
    )


def prepare(reqs: Sequence[Req], python: Path | None, folder: Path, limit: float) -> Environment:
    """Make the environment of a side in `folder`. python: an interpreter to use instead of this one.

    Raises UserError for a version that doesn't exist, without an index, or for a full disk; CannotInstall where
    installing fails.
    """
    host = _host(folder)
    missing = tuple(reqs) if python else differing(reqs, installed())
    executable = python or Path(sys.executable)
    if not missing:
        return Environment(executable, (host,), INTERPRETER if python else AS_INSTALLED)
    if not python and any(req.name in NEED_DEPENDENCIES for req in missing):
        return _virtual(reqs, host, folder, limit)
    overlay = folder / "overlay"
    target = ["--no-deps", "--target", str(overlay)]
    _pip(executable, [*target, *(req.text for req in missing)], folder, limit)
    return Environment(executable, (overlay, host), INTERPRETER if python else OVERLAY)


def _host(folder: Path) -> Path:
    """A folder that makes this package and its pytest plugin importable by any interpreter, and nothing else."""
    host = folder / "host"
    information = host / f"pytest_llmprune-{__version__}.dist-info"
    information.mkdir(parents=True)
    (host / "pytest_llmprune").symlink_to(Path(__file__).resolve().parent.parent)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: pytest-llmprune\nVersion: {__version__}\n")
    (information / "entry_points.txt").write_text("[pytest11]\nllmprune = pytest_llmprune.entry\n")
    return host


def _virtual(reqs: Sequence[Req], host: Path, folder: Path, limit: float) -> Environment:
    """A virtual environment with these requirements, and everything else in the version that is installed here."""
    here, named = installed(), {req.name for req in reqs}
    pins = [f"{name}=={here[name]}" for name in (*PACKAGES, *PINNED) if name in here and name not in named]
    free = [name for name in FREE if name in here and name not in named]
    python = folder / "venv" / "bin" / "python"
    ended = run([sys.executable, "-m", "venv", str(folder / "venv")], os.environ, folder, "venv-made", limit)
    if ended.code != 0:
        raise CannotInstall(f"no virtual environment can be made: {ended.last_line}")
    _pip(python, [*(req.text for req in reqs), *pins, *free], folder, limit)
    return Environment(python, (host,), VENV)


def _pip(python: Path, arguments: Sequence[str], folder: Path, limit: float) -> None:
    command = [str(python), "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check", *arguments]
    ended = run(command, {**os.environ, "TMPDIR": str(folder)}, folder, "pip", limit)
    if ended.code != 0:
        raise_for(ended, limit)


def raise_for(ended: Ended, limit: float) -> None:
    """Raise what pip's failure means: UserError where it says nothing of the package, else CannotInstall."""
    errors = [line.removeprefix("ERROR: ") for line in ended.stderr.splitlines() if line.startswith("ERROR: ")]
    reason = errors[0] if errors else ended.last_line
    if DISK_FULL in ended.stderr:
        raise UserError(f"the disk is full: {reason}")
    if "No module named pip" in ended.stderr:
        raise UserError(f"{reason}; install it with: python -m ensurepip")
    if "Could not find a version" in reason:
        none = "; is there a network, and such a package?" if "from versions: none" in reason else ""
        newest = re.sub(r"from versions: .*?((, [^,]+){5}\))$", r"the newest are\1", reason).replace("are, ", "are ")
        raise UserError(f"pip: {newest}{none}")
    raise CannotInstall(f"{reason} (pip {ended.how(limit)})" if ended.code is None else reason)
