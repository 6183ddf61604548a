"""Run a program in a process group of its own, within a time, and leave nothing of it behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

POLL = 0.05


@dataclass(frozen=True)
class Ended:
    """How a program ended. code: its exit code, negative for a signal, None if its time was over. peak_memory: bytes of
    its largest process, 0 if not told.
    """

    code: int | None
    seconds: float
    peak_memory: int
    stdout: str
    stderr: str

    @property
    def last_line(self) -> str:
        """What it said last, on stderr if it said anything there."""
        lines = [line for text in (self.stderr, self.stdout) for line in text.splitlines()[::-1] if line.strip()]
        return lines[0].strip() if lines else ""

    def how(self, limit: float) -> str:
        """How it ended, in words: it `did not end within 60 s`."""
        if self.code is None:
            return f"did not end within {limit:g} s"
        return f"was killed by {signal.Signals(-self.code).name}" if self.code < 0 else f"ended with code {self.code}"


def run(command: Sequence[str], env: Mapping[str, str], folder: Path, name: str, limit: float) -> Ended:
    """Run a program in `folder` and wait for it, at most `limit` seconds. It writes to `name`.out and `name`.err there.

    However it ends, and if this process is interrupted, every process of its group is killed before this returns.
    """
    files = folder / f"{name}.out", folder / f"{name}.err"
    started = time.monotonic()
    with files[0].open("wb") as stdout, files[1].open("wb") as stderr:
        process = subprocess.Popen(
            command,
            env=env,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
        memory = 0
        try:
            while process.returncode is None and time.monotonic() - started < limit:
                pid, status, usage = os.wait4(process.pid, os.WNOHANG)
                if pid:
                    process.returncode = os.waitstatus_to_exitcode(status)
                    memory = usage.ru_maxrss * (1 if os.uname().sysname == "Darwin" else 1024)
                else:
                    time.sleep(POLL)
        finally:
            code = process.returncode
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    texts = [file.read_text(encoding="utf-8", errors="replace") for file in files]
    return Ended(code, time.monotonic() - started, memory, *texts)
