"""The plugin costs nothing while it is not used."""

from __future__ import annotations

HEAVY = ("torch", "transformers", "torch_pruning", "hypothesis", "numpy", "jinja2")

CHECK = f"""
    import sys

    def pytest_unconfigure():
        found = sorted({{name.split(".")[0] for name in sys.modules}} & set({HEAVY}))
        ours = sorted(name for name in sys.modules if name.startswith("pytest_llmprune"))
        print("HEAVY", found)
        print("OURS", ours)
"""


def test_an_idle_pytest_imports_nothing_heavy_header_and_summary_included(pytester):
    pytester.makeconftest(CHECK)
    pytester.makepyfile("def test_it(): pass")
    result = pytester.runpytest_subprocess("-v", "-rA", "-p", "no:hypothesispytest", "-p", "no:benchmark")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*1 passed*", "HEAVY []"])
    assert "pytest_llmprune.plugin" in result.stdout.str()
    result.stdout.no_fnmatch_line("*llmprune fixes*")
    assert not (pytester.path / ".llmprune").exists()


def test_a_given_option_imports_nothing_heavy_before_a_test_asks_for_a_model(pytester):
    pytester.makeconftest(CHECK)
    pytester.makepyfile("def test_it(): pass")
    result = pytester.runpytest_subprocess("--llm-model", "tiny", "-p", "no:hypothesispytest", "-p", "no:benchmark")
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        ["llmprune: tiny; torch-pruning *, transformers *, torch *", "llmprune fixes: *", "HEAVY []"]
    )


def test_collecting_the_suites_loads_no_model(pytester):
    from pytest_llmprune.resources import suites_dir

    pytester.makeconftest(
        """
        def pytest_unconfigure():
            import sys

            from pytest_llmprune.models import load as loading
            print("LOADED", "transformers.models.llama.modeling_llama" in sys.modules)
        """
    )
    result = pytester.runpytest_subprocess(
        str(suites_dir()), "--collect-only", "-q", f"--confcutdir={pytester.path}", "-p", "conftest"
    )
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*test_quality[[]tiny-ffn-0.2-taylor[]]", "LOADED False"])
    assert not (pytester.path / ".llmprune").exists() or not list((pytester.path / ".llmprune").rglob("*.json*"))
