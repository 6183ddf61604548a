"""Noise is measured over runs that nothing but seeds tells apart, and limits what a threshold may decide."""

from __future__ import annotations

import math
import statistics

import pytest

from pytest_llmprune.errors import CheckFailed, UserError
from pytest_llmprune.quality.gate import Gate, judge
from pytest_llmprune.quality.noise import lines, noise_of, parse_repeat, seeds
from pytest_llmprune.record.schema import Item, Key, RunRecord

KEY = Key("test_quality", "test_quality", "tiny", "ffn", 0.2, "taylor")


def _record(ratio, threshold=1.5, interval=0.01):
    low_high = (ratio * (1 - interval), ratio * (1 + interval))
    verdicts = judge([Gate("ppl_ratio", "<=", threshold)], {"ppl_ratio": ratio}, {"ppl_ratio": low_high})
    item = Item(KEY, "passed", 1.0, {"ppl_ratio": ratio}, verdicts=tuple(v.to_json() for v in verdicts))
    return RunRecord({}, {}, (), (KEY,), (item,))


def test_one_run_belongs_to_both_series_and_each_varies_one_seed():
    assert seeds(3) == [(0, 0), (1, 0), (2, 0), (0, 1), (0, 2)]


def test_spreads_flips_and_the_finest_threshold():
    repeated, calibrated = [1.2, 1.2, 1.21], [1.2, 1.22, 1.18]
    (found,) = noise_of([_record(ratio) for ratio in (*repeated, *calibrated[1:])], 3)
    assert found.repeated.sd == pytest.approx(statistics.stdev(map(math.log, repeated)))
    assert found.calibrations.sd == pytest.approx(statistics.stdev(map(math.log, calibrated)))
    assert (found.repeated.flips, found.calibrations.flips) == (0, 0)
    assert found.finest == pytest.approx(math.exp(2.8 * found.calibrations.sd) - 1)
    assert found.too_near == ()


def test_another_verdict_and_an_undecided_one_are_flips():
    (found,) = noise_of([_record(1.2), _record(1.6), _record(1.5), _record(1.2), _record(1.2)], 3)
    assert (found.repeated.flips, found.calibrations.flips) == (2, 0)
    (found,) = noise_of([_record(1.5), _record(1.5), _record(1.5)], 2)
    assert (found.repeated.flips, found.calibrations.flips) == (2, 2)


def test_a_threshold_nearer_than_the_noise_of_calibration_is_undecided():
    (found,) = noise_of([_record(1.4), _record(1.4), _record(1.44)], 2)
    assert found.too_near == (1.5,)
    assert "undecided: test_quality::test_quality[tiny-ffn-0.2-taylor]: ppl_ratio is 1.42 on average" in "\n".join(
        lines([found])
    )


def test_a_run_that_measured_nothing_is_no_repetition():
    with pytest.raises(CheckFailed, match="not one case was judged"):
        noise_of([RunRecord({}, {}, (), (), ())] * 3, 2)
    with pytest.raises(CheckFailed, match="not every run measured"):
        noise_of([_record(1.2), _record(1.2), RunRecord({}, {}, (), (), ())], 2)


@pytest.mark.parametrize("text", ["1", "0", "-2", "x", "2.5", ""])
def test_a_wrong_number_of_runs_is_one_line(text):
    with pytest.raises(UserError, match="give a whole number of runs, at least 2"):
        parse_repeat(text)
