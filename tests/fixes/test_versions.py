"""What holds with the fixes on the installed torch-pruning holds with them on older ones, whatever their layout."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from pytest_llmprune.fixes import gqa_map, iterative_heads, legacy, unsigned_dim

TESTS = Path(__file__).parents[1]
FAMILIES = (
    "meta-llama/Llama-3.2-1B",
    "mistralai/Mistral-7B-v0.1",
    "Qwen/Qwen3-0.6B",
    "microsoft/Phi-3-mini-4k-instruct",
)


def _run_tests(folder, place, *arguments):
    """Run tests of this project with another torch-pruning, in an empty directory; returns exit code and output."""
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=place,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr


def test_fixes_fit_1_5_2_but_for_defects_that_came_later(overlay, tmp_path):
    code, output = _run_tests(overlay("1.5.2"), tmp_path, TESTS / "fixes" / "test_fixes.py")
    assert code == 0, output


def test_fixes_fit_the_one_file_of_1_5_3_and_it_prunes_as_the_package_does(overlay, tmp_path):
    code, output = _run_tests(
        overlay("1.5.3"),
        tmp_path,
        *(TESTS / "fixes", "--ignore", __file__, TESTS / "prune/test_families.py", TESTS / "graph/test_snapshot.py"),
        *("-k", "test_fixes or exactly or lstm or llama or mistral or qwen3 or phi3"),
    )
    assert code == 0, output


def test_families_have_the_groups_that_they_imply_in_1_5_3(overlay, tmp_path):
    code, output = _run_tests(
        overlay("1.5.3"),
        tmp_path,
        *(TESTS.parent / "suites" / "test_graph.py", "-k", "miniature", "--llmprune-weights", "meta"),
        *(argument for name in FAMILIES for argument in ("--llmprune-model", name)),
    )
    assert code == 0, output


def test_an_edit_for_the_package_is_made_where_the_one_file_has_the_code(monkeypatch):
    monkeypatch.setattr(legacy, "module_file", lambda module: None if module == "dependency.graph" else Path("there"))
    sources = {edit.function: edit for edit in legacy.fitted(unsigned_dim.FIX).edits[1:3]}
    concat = sources["DependencyGraph._update_concat_index_mapping"]
    assert concat.module == "dependency"
    assert "chs.append(self.infer_channels_between(n, cat_node))" in concat.old
    assert " not works_on_channels(cat_node.grad_fn" in concat.new
    (mapping, expand), (indices, helper) = legacy.fitted(gqa_map.FIX).edits, legacy.fitted(gqa_map.FIX).additions
    assert (mapping.module, mapping.function) == ("_helpers", "_GQAIndexMapping.__call__")
    assert "new_idxs = _HybridIndices(" in mapping.new
    assert indices.module == "_helpers"
    assert "source_channels(self, node)" in expand.new
    assert helper.module == "dependency"
    assert "def source_channels(graph, node)" in helper.source
    assert legacy.fitted(iterative_heads.FIX) == iterative_heads.FIX
