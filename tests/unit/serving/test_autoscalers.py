"""The HPA of the back-test behaves as Kubernetes documents: else a comparison with it says nothing."""

from __future__ import annotations

import pytest

from benchmarks.serving.autoscalers import Hpa, ScaleDown
from benchmarks.serving.week import Fleet, Scrape


def scrape(at: float, waiting: float) -> Scrape:
    return Scrape(at, 10, 100.0, waiting, 0.5, 1000.0, 0.03)


def decide(hpa: Hpa, replicas: int, waiting: float, at: float = 15.0) -> int:
    return hpa.decide(scrape(at, waiting), Fleet(replicas))


def hpa(target: float = 10, down: ScaleDown | None = None) -> Hpa:
    return Hpa(lambda each: each.waiting, target, down or ScaleDown())


@pytest.mark.parametrize(
    ("replicas", "waiting", "wanted"),
    [
        (10, 100, 10),  # at the target
        (10, 109, 10),  # within the tolerance
        (10, 111, 12),  # beyond it: ceil of the sum by the target
        (10, 500, 20),  # at most double in a period
        (4, 500, 8),
        (2, 500, 6),  # or 4 more
        (70, 5000, 80),  # the maximum
    ],
)
def test_scale_up(replicas: int, waiting: float, wanted: int) -> None:
    assert decide(hpa(), replicas, waiting) == wanted


def test_scale_down_waits_for_the_highest_desire_of_the_window() -> None:
    found = hpa()
    sizes = [decide(found, 10, 100 if step == 0 else 0, 15.0 * step) for step in range(22)]
    assert sizes[:20] == [10] * 20
    assert sizes[20:] == [4] * 2  # the minimum


def test_a_policy_of_one_pod_a_period() -> None:
    found = hpa(down=ScaleDown(pods=1, period_seconds=60))
    replicas, sizes = 10, []
    for step in range(40):
        replicas = decide(found, replicas, 100 if step == 0 else 0, 15.0 * step)
        sizes.append(replicas)
    assert sizes[19] == 10
    assert sizes[20:28] == [9, 9, 9, 9, 8, 8, 8, 8]


def test_replicas_that_start_count() -> None:
    fleet = Fleet(5, pending=[100.0] * 5)
    assert hpa().decide(scrape(15.0, 100), fleet) == 10
