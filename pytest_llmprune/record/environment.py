"""What a run ran on: the versions that a comparison compares, and the machine that timings belong to."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from .. import __version__

PACKAGES = ("torch-pruning", "transformers", "torch", "tokenizers", "pytest", "pytest-xdist", "numpy")


def environment(root: Path | None = None) -> dict[str, str]:
    """Versions, machine and, with `root`, the commit of what is checked out there. Imports nothing heavy."""
    values = {
        "llmprune": __version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "host": platform.node(),
    }
    for package in PACKAGES:
        try:
            values[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    values["cpus"] = str(os.cpu_count())
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        values["gpu"] = torch.cuda.get_device_name(0)
    if root is not None:
        try:
            git = ["git", "-C", str(root), "rev-parse", "HEAD"]
            commit = subprocess.run(git, capture_output=True, text=True, timeout=10, check=False).stdout.strip()
        except (OSError, subprocess.TimeoutExpired):
            commit = ""
        if commit:
            values["commit"] = commit
    return values
