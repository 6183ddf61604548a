"""A run that is cut short loses nothing: earlier records stay, no half file has a record's name, and the journal tells
what was done.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from pytest_llmprune.record.store import Journal, latest, read, store_dir

TESTS = """
import os, pathlib, time

def test_done(llm_record):
    llm_record.measure("x", 1.0)

def test_hangs(llm_record):
    pathlib.Path("hanging").write_text(str(os.getpid()))
    time.sleep(600)

def test_never(llm_record):
    pass
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill"])
def test_what_was_done_and_planned_is_kept(pytester, how):
    pytester.makepyfile(test_first="def test_first(llm_record): pass")
    pytester.runpytest_subprocess("test_first.py")
    before = latest(pytester.path).read_bytes()

    pytester.makepyfile(test_cut=TESTS)
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "test_cut.py"],
        cwd=pytester.path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    hanging = pytester.path / "hanging"
    deadline = time.monotonic() + 60
    while not hanging.exists():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(how)
    output, _ = process.communicate(timeout=60)

    assert process.returncode == (2 if how == signal.SIGINT else -9)
    store = store_dir(pytester.path)
    assert [file.name for file in store.glob("*.json")] == ["0001_tiny.json"]
    assert latest(pytester.path).read_bytes() == before
    (folder,) = store.glob("journal-*")
    journal = Journal(folder)
    assert [key.test for key in journal.planned[0]] == ["test_done", "test_hangs", "test_never"]
    assert [item.key.test for item in journal.items if item.outcome == "passed"] == ["test_done"]
    if how == signal.SIGINT:
        assert f"interrupted; what was done is kept in {folder.relative_to(pytester.path)}" in output

    pytester.runpytest_subprocess("test_first.py")
    assert read(latest(pytester.path)).exit_status == 0
    assert latest(pytester.path).name == "0002_tiny.json"
