"""Are torch-pruning's known defects where they are expected to be, and nowhere else?"""

from __future__ import annotations

import pytest

from pytest_llmprune.fixes import FIXES
from pytest_llmprune.fixes.expectation import ABSENT, NOT_PROBED, PRESENT, disagreement, installed


@pytest.mark.parametrize("defect", FIXES)
def test_a_defect_shows_where_it_is_expected_and_nowhere_else(defect, llm_defects, llm_record):
    found = llm_defects[defect]
    if found.outcome in (PRESENT, ABSENT):
        llm_record.measure("defect", float(found.outcome == PRESENT))
    if message := disagreement(FIXES[defect], found, installed()):
        pytest.fail(message, pytrace=False)
    if found.outcome == NOT_PROBED:
        pytest.skip(found.reason)
