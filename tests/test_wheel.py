"""The wheel carries the suites and their data, and runs them from an empty directory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (file,) = folder.glob("*.whl")
    return file


def test_suites_and_data_are_inside_once(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert "pytest_llmprune/suites/test_quality.py" in names
    assert "pytest_llmprune/data/tiny-llama/model.safetensors" in names
    assert "pytest_llmprune/data/configs/meta-llama--Llama-2-7b-hf.json" in names
    assert "pytest_llmprune/data/texts/hamlet.txt" in names
    assert len(names) == len(set(names))
    assert not [name for name in names if name.startswith(("suites/", "fixtures/", "tests/"))]


def test_the_installed_package_runs_its_suites_from_an_empty_directory(wheel, tmp_path):
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        "--target",
        str(site),
        str(wheel),
    ]
    subprocess.run(install, check=True, capture_output=True)
    command = [sys.executable, "-m", "pytest", "--pyargs", "pytest_llmprune.suites", "--llm-model", "tiny"]
    command += ["--llmprune-prune", "ffn:0.2", "-k", "test_quality or test_groups_are"]
    # first on the path, so that this installation is the one that is imported
    result = subprocess.run(
        command, cwd=empty, env={**os.environ, "PYTHONPATH": str(site)}, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "2 passed" in result.stdout
    (record,) = empty.glob(".llmprune/*/0001_tiny.json")
    # a checkout would name its folder here
    assert json.loads(record.read_text())["settings"]["suites"] == "--pyargs pytest_llmprune.suites"
