"""What the idle plugin adds to pytest's start: CPU time of `pytest --version`-like runs, with the plugin and with `-p
no:llmprune`, in turn.

Run it in an environment with pytest and this package alone (`pip install --no-deps`), as other plugins only add noise.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path


def cpu_seconds(arguments: list[str], folder: str) -> float:
    """User plus system seconds of one pytest run."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *arguments], cwd=folder, env=environment, check=True, capture_output=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "test_one.py").write_text("def test_one(): pass\n")
        variants: dict[str, list[str]] = {"with llmprune": [], "without": ["-p", "no:llmprune"]}
        times: dict[str, list[float]] = {name: [] for name in variants}
        for arguments in variants.values():
            cpu_seconds(arguments, folder)
        for _ in range(rounds):
            for name, arguments in variants.items():
                times[name].append(cpu_seconds(arguments, folder))
    for name, values in times.items():
        print(
            f"{name:14} median {1000 * statistics.median(values):6.1f} ms,"
            f" from {1000 * min(values):.1f} to {1000 * max(values):.1f}"
        )
    added = statistics.median(a - b for a, b in zip(*times.values(), strict=True))
    print(f"added          median {1000 * added:6.1f} ms of CPU time over {rounds} pairs")


if __name__ == "__main__":
    main()
