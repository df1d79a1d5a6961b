"""How the SLO back-tests judge: what is within a factor of two, what whole GPUs bound, what a hand would have cost."""

from __future__ import annotations

import numpy as np
import pytest
from gpu_advisor.backtest.trace import Trace

from benchmarks.headroom_by_hand import ALONE, NO_THRESHOLD, WITH_THRESHOLDS, Candidate, Outcome, hours_by_hand, run
from benchmarks.slo_backtest import Verdict, verdict_of


@pytest.mark.parametrize(
    ("reached", "constant", "one_fewer", "verdict"),
    [
        (0.001, 0.0, 0.1, Verdict.WITHIN),
        (0.002, 0.0, 0.1, Verdict.WITHIN),
        (0.0005, 0.0, 0.1, Verdict.WITHIN),
        (0.0021, 0.0, 0.1, Verdict.ABOVE),  # whole GPUs excuse nothing that is above
        (0.0, 0.0, 0.1, Verdict.WHOLE_GPUS),
        (0.0004, 0.0004, 0.0021, Verdict.WHOLE_GPUS),
        (0.0004, 0.0004, 0.0019, Verdict.BELOW),  # one GPU fewer would have been within
        (0.0004, 0.0006, 0.0021, Verdict.BELOW),  # this many GPUs would have been within
    ],
)
def test_verdicts(reached: float, constant: float, one_fewer: float, verdict: Verdict) -> None:
    around = {"constant_unserved_ratio": constant, "one_fewer_unserved_ratio": one_fewer}
    assert verdict_of(reached, 0.001, around) is verdict


@pytest.mark.parametrize(
    ("unserved", "hours"),
    [(0.04, 100), (0.01, 200), (0.02, 150), (0.0025, 400), (0.001, 400), (0.05, None), (0.0005, None)],
)
def test_hours_by_hand_are_between_two_headrooms(unserved: float, hours: float | None) -> None:
    shares = (0.04, 0.01, 0.0025, 0.001, 0.001, 0.0, 0.0)
    spent = (100, 200, 400, 400, 500, 600, 700)
    outcomes = {
        each.name: Outcome(gpu_hours, share, 0)
        for each, gpu_hours, share in zip(WITH_THRESHOLDS, spent, shares, strict=True)
    }
    outcomes |= {each.name: Outcome(90, 0.9, 0) for each in ALONE}
    found = hours_by_hand(outcomes, unserved)
    assert found == (None if hours is None else pytest.approx(hours))


def test_the_cheaper_way_by_hand_counts() -> None:
    outcomes = {each.name: Outcome(100 + number, 0.01 / 2**number, 0) for number, each in enumerate(WITH_THRESHOLDS)}
    outcomes |= {each.name: Outcome(50 + number, 0.01 / 2**number, 0) for number, each in enumerate(ALONE)}
    assert hours_by_hand(outcomes, 0.005) == pytest.approx(51)
    assert hours_by_hand(outcomes, 0.01 / 2**5) == pytest.approx(105)  # beyond those alone


def test_without_thresholds_headroom_alone_sizes_a_pool() -> None:
    day = Trace(60, tuple(float(value) for value in np.random.default_rng(1).poisson(100, 300) * 0.1))
    alone, limited = (run(day, Candidate(deviations=1.0, threshold=each)) for each in (NO_THRESHOLD, None))
    assert alone.gpu_hours < 0.95 * limited.gpu_hours
