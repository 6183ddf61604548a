"""Markers do what `pytest --markers` says of them."""

from __future__ import annotations

import pytest


def test_what_can_not_run_here_is_skipped_with_the_reason(pytester):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.llm_gpu
        def test_gpu(): raise AssertionError

        @pytest.mark.llm_network
        def test_network(): raise AssertionError

        @pytest.mark.llm_slow
        def test_slow(): raise AssertionError
        """
    )
    result = pytester.runpytest_subprocess("-rs")
    result.assert_outcomes(skipped=3)
    result.stdout.fnmatch_lines_random(
        [
            "*llm_gpu: torch sees no CUDA device*",
            "*llm_network: HF_HUB_OFFLINE is set",
            "*llm_slow: left out of the smoke*",
        ]
    )
    pytester.makepyfile("import pytest\n\n@pytest.mark.llm_slow\ndef test_slow(): pass\n")
    pytester.runpytest_subprocess("--llmprune-profile", "standard").assert_outcomes(passed=1)


KNOWN = """
    import pytest

    @pytest.mark.known_defect("gqa-map")
    def test_it(llm_fixes):
        assert "gqa-map" in llm_fixes{}
"""


def test_a_known_defect_is_expected_while_it_shows_and_only_then(pytester):
    pytester.makepyfile(KNOWN.format(""))
    pytester.runpytest_subprocess("--llmprune-fixes", "off").assert_outcomes(xfailed=1)
    pytester.runpytest_subprocess().assert_outcomes(passed=1)
    pytester.makepyfile(KNOWN.format(" or True"))
    pytester.runpytest_subprocess("--llmprune-fixes", "off").assert_outcomes(failed=1)


def test_an_unknown_defect_is_one_line(pytester):
    pytester.makepyfile("import pytest\n\n@pytest.mark.known_defect('gqa')\ndef test_it(): pass\n")
    result = pytester.runpytest_subprocess()
    assert result.ret == 1
    result.stdout.fnmatch_lines(["known_defect('gqa'): there is no such defect; there are nested-outputs, *"])
