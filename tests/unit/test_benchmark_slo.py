"""How the SLO back-tests judge: what is within a factor of two, what whole GPUs bound, what a hand would have cost."""

from __future__ import annotations

import pytest

from benchmarks.headroom_by_hand import BY_HAND, Outcome, hours_by_hand
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
        each.name: Outcome(gpu_hours, share, 0) for each, gpu_hours, share in zip(BY_HAND, spent, shares, strict=True)
    }
    found = hours_by_hand(outcomes, unserved)
    assert found == (None if hours is None else pytest.approx(hours))
