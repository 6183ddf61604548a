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
