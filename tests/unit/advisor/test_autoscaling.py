"""Desired sizes against the arithmetic of a HorizontalPodAutoscaler."""

from __future__ import annotations

from math import ceil

import pytest
from gpu_advisor.evaluation.scaling.hpa import hpa_acts, plan_scale_step, round_past_tolerance
from hypothesis import given
from hypothesis import strategies as st

REPLICAS = st.integers(1, 2000)


def hpa(metric: float, replicas: int) -> int:
    """What an HPA with target AverageValue 1 makes of a metric."""
    return ceil(metric) if hpa_acts(metric, replicas) else replicas


@given(REPLICAS, REPLICAS)
def test_an_hpa_that_follows_never_has_less_than_is_desired_and_little_more(desired: int, replicas: int) -> None:
    after = hpa(round_past_tolerance(desired, replicas), replicas)
    if desired > replicas:
        assert desired <= after <= max(desired, replicas * 1.1 + 1)
    elif desired < replicas:
        assert desired <= after <= replicas
    else:
        assert after == replicas


@pytest.mark.parametrize(
    ("desired", "replicas", "reported"),
    [(10, 9, 10), (11, 10, 12), (12, 11, 13), (21, 20, 23), (110, 100, 111), (20, 21, 20), (5, 5, 5), (3, 0, 3)],
)
def test_growth_that_the_tolerance_hides_is_rounded_up(desired: int, replicas: int, reported: int) -> None:
    assert round_past_tolerance(desired, replicas) == reported


def test_publishing_the_desired_size_would_overlook_growth() -> None:
    assert hpa(21, 20) == 20
    assert hpa(round_past_tolerance(21, 20), 20) == 23


@pytest.mark.parametrize(
    ("wanted", "seen", "replicas", "sets", "refused"),
    [
        (4, 2, 2, 4, False),
        (2, 4, 4, 2, False),
        (4, 2, 3, 4, False),  # growing already, to less
        (4, 2, 4, None, False),
        (4, 2, 5, None, False),  # growing already, to more
        (2, 4, 2, None, False),
        (2, 4, 1, None, False),
        (2, 4, 3, None, True),  # somebody else is shrinking it: two hands on one wheel
        (2, 4, 6, None, True),  # more were asked for than are seen: what was idle may be pending
        (4, 2, 1, None, True),
        (3, 3, 5, None, False),  # nothing is advised, so nothing is undone that somebody did
        (3, 3, 1, None, False),
    ],
)
def test_steps(wanted: int, seen: int, replicas: int, sets: int | None, refused: bool) -> None:
    done = plan_scale_step(wanted, seen, replicas)
    assert (done.replicas, done.blocked) == (sets, refused)
    assert done.why


@given(REPLICAS, REPLICAS, REPLICAS)
def test_a_step_never_goes_against_the_advice(wanted: int, seen: int, replicas: int) -> None:
    done = plan_scale_step(wanted, seen, replicas)
    if done.replicas is not None:
        assert done.replicas == wanted != replicas
        assert (wanted > replicas) == (wanted > seen)
        assert wanted > seen or replicas == seen


@pytest.mark.parametrize(
    ("wanted", "seen", "replicas", "step", "blocked"),
    [
        (4, 4, 9, None, False),  # right as it was observed
        (6, 4, 6, None, False),  # set already
        (6, 4, 7, None, False),  # set further in the same direction
        (4, 6, 3, None, False),
        (6, 4, 4, 6, False),
        (6, 4, 5, 6, False),  # a growth in progress goes on
        (4, 6, 6, 4, False),
        (4, 6, 5, None, True),  # a shrinking that is not ours does not
        (6, 4, 3, None, True),
        (4, 6, 7, None, True),
    ],
)
def test_a_step_is_made_from_the_size_that_was_observed(
    wanted: int, seen: int, replicas: int, step: int | None, blocked: bool
) -> None:
    found = plan_scale_step(wanted, seen, replicas)
    assert (found.replicas, found.blocked) == (step, blocked)
