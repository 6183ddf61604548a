"""Where the suites and the data lie: beside the package in a checkout, inside it in an installed wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def _locate(inside: str, beside: str) -> Path:
    installed = _PACKAGE / inside
    return installed if installed.is_dir() else _PACKAGE.parent / beside


def suites_dir() -> Path:
    """The folder of the test suites that users run."""
    return _locate("suites", "suites")


def data_dir() -> Path:
    """The folder of shipped data: `configs/`, `tiny-llama/`, `texts/`, `prompts/`."""
    return _locate("data", "fixtures")


def suites_argument() -> str:
    """What to give pytest to run the suites from the current directory: their path in a checkout, the package in an
    installed wheel.
    """
    suites = suites_dir()
    if suites.parent == _PACKAGE:
        return "--pyargs pytest_llmprune.suites"
    return str(suites.relative_to(Path.cwd())) if suites.is_relative_to(Path.cwd()) else str(suites)
