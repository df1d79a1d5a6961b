"""The back-test's arithmetic: days, and targets that are set by the past alone."""

from __future__ import annotations

import pytest

from benchmarks.serving import week
from benchmarks.serving.advisor_policy import late
from benchmarks.serving.outcomes import Days, Outcome, hours_at, nearest, replay
from benchmarks.serving.week import Fleet, Scrape
from benchmarks.serving_backtest import PAST_DAYS, Comparison, best_of, tuned_on_the_past

WINDOWS = week.DAY_SECONDS // week.WINDOW_SECONDS


class Constant:
    def decide(self, scrape: Scrape, fleet: Fleet) -> int:
        return 10


def test_a_replay_counts_windows_and_hours_by_day() -> None:
    """Ten replicas serve ten requests a second for a day, and not 500."""
    per_day = week.DAY_SECONDS // week.STEP_SECONDS
    found = replay(Constant(), [10 * week.STEP_SECONDS] * per_day + [500 * week.STEP_SECONDS] * 40)
    assert found.met == (WINDOWS, 0)
    assert found.gpu_hours[0] == pytest.approx(240, rel=0.01)
    assert found.outcome(0, 1).met == 1


def days(early: int, later: int, hours: float) -> Days:
    met = [WINDOWS - early] * PAST_DAYS + [WINDOWS - later] * (week.DAYS - PAST_DAYS)
    return Days(tuple(met), (hours,) * week.DAYS)


def test_targets_of_the_past_are_not_those_that_were_best_afterwards() -> None:
    found = Comparison(
        {
            "HPA queue 1": days(0, 0, 300),
            "HPA running 40": days(0, 0, 100),  # safe
            "HPA running 50": days(1, 60, 80),  # looked as good for three days
            "HPA running 60": days(60, 60, 70),
        },
        (),
    )
    (name, later) = tuned_on_the_past(found)["HPA on running requests"]
    assert (name, later.gpu_hours, later.met < 0.8) == ("HPA running 50", 320, True)
    assert best_of(found)["HPA on running requests"] == ("HPA running 40", Outcome(1.0, 700))


@pytest.mark.parametrize(("met", "expected"), [((0.995, 0.999), "a"), ((0.98, 0.999), "b"), ((0.98, 0.97), "a")])
def test_the_cheapest_that_meets_the_goal_or_the_nearest(met: tuple[float, float], expected: str) -> None:
    assert nearest({"a": Outcome(met[0], 1.0), "b": Outcome(met[1], 2.0)}, 0.99) == expected


def test_hours_between_points_of_a_frontier() -> None:
    points = [Outcome(0.98, 100.0), Outcome(1.0, 200.0)]
    assert hours_at(points, 0.99) == pytest.approx(150)
    assert hours_at(points, 0.97) is None


def test_the_latency_of_a_window_is_the_95th_percentile_of_its_requests() -> None:
    steps = [(95, 0.1, 0.0), (4, 2.0, 0.0), (1, 3.0, 0.0)]
    assert late(steps, 1) == 0.1
    assert late([*steps, (10, 5.0, 0.0)], 1) == 5.0
    assert late([], 1) is None
