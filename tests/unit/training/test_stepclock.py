"""Step timing, with a clock that the tests advance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from gpu_advisor.training.monitor import TrainingMonitor
from gpu_advisor.training.publishers import MonitorError
from gpu_advisor.training.step_clock import StepTotals


class ManualClock:
    """A clock that the test advances."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def slow(self, items: list[Any], seconds: float) -> Iterator[Any]:
        """Yield `items`, each after `seconds`; so does the end."""
        for item in items:
            self.now += seconds
            yield item
        self.now += seconds


@pytest.fixture
def hand():
    return ManualClock()


@pytest.fixture
def monitor(hand):
    return TrainingMonitor(job="job", clock=hand, figures=False)


def totals(monitor: TrainingMonitor) -> StepTotals:
    return monitor.summary().totals


class Batch:
    def __init__(self, samples: int) -> None:
        self.shape = (samples, 3)


def test_waiting_is_part_of_a_step_and_the_end_of_the_data_is_not(monitor, hand):
    for _ in monitor.batches(hand.slow([Batch(8)] * 5, 2)):
        hand.now += 3
    found = totals(monitor)
    assert (found.steps, found.step_seconds, found.data_wait_seconds, found.samples) == (5, 25, 10, 40)
    assert found.communication_seconds is None
    assert monitor.summary().data_wait_ratio == pytest.approx(0.4)
    assert monitor.summary().samples_per_second == pytest.approx(1.6)


def test_starting_the_workers_is_waiting(monitor, hand):
    class Loader:
        def __iter__(self):
            hand.now += 7
            return iter([Batch(1)])

    for _ in monitor.batches(Loader()):
        hand.now += 1
    assert totals(monitor).data_wait_seconds == 7


@pytest.mark.parametrize(("accumulate", "steps", "samples"), [(1, 7, 7), (2, 4, 7), (3, 3, 7), (7, 1, 7), (9, 1, 7)])
def test_accumulated_batches_are_one_step_and_the_rest_is_one_too(monitor, hand, accumulate, steps, samples):
    for _ in monitor.batches(hand.slow([Batch(1)] * 7, 1), accumulate=accumulate):
        hand.now += 1
    found = totals(monitor)
    assert (found.steps, found.samples, found.step_seconds, found.data_wait_seconds) == (steps, samples, 14, 7)


def test_break_counts_the_batch_that_was_trained_on(monitor, hand):
    for number, _ in enumerate(monitor.batches(hand.slow([Batch(1)] * 9, 1)), 1):
        hand.now += 1
        if number == 3:
            break
    assert (totals(monitor).steps, totals(monitor).step_seconds) == (3, 6)


def test_an_error_of_the_loader_is_passed_on_and_counts_no_step(monitor, hand):
    def broken() -> Iterator[Batch]:
        yield Batch(1)
        hand.now += 1
        raise OSError("gone")

    batches = monitor.batches(broken(), accumulate=2)
    next(batches)
    hand.now += 1
    with pytest.raises(OSError, match="gone"):
        next(batches)
    assert totals(monitor).steps == 0
    with monitor.step():
        hand.now += 1
    assert (totals(monitor).steps, totals(monitor).step_seconds) == (1, 1)


def test_between_steps_and_in_pauses_no_time_passes(monitor, hand):
    with monitor.step(samples=4):
        hand.now += 1
        with monitor.pause():
            hand.now += 100
        with monitor.communication():
            hand.now += 2
        monitor.add_communication_seconds(0.5)
    hand.now += 1000
    with monitor.pause():
        hand.now += 1000
    with monitor.data_wait():
        hand.now += 5
    with monitor.step(samples=4):
        hand.now += 1
    found = totals(monitor)
    assert (found.steps, found.step_seconds, found.data_wait_seconds) == (2, 9, 5)
    assert (found.communication_seconds, found.samples) == (2.5, 8)


def test_a_step_that_raises_is_not_counted(monitor, hand):
    def fails() -> None:
        with monitor.step():
            hand.now += 50
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    with monitor.step():
        hand.now += 1
    assert (totals(monitor).steps, totals(monitor).step_seconds) == (1, 1)


def test_what_is_not_reported_is_not_zero(monitor, hand):
    with monitor.step():
        hand.now += 1
    found = totals(monitor)
    assert (found.data_wait_seconds, found.communication_seconds, found.samples) == (None, None, None)
    page = monitor.page()
    assert "training_steps_total" in page
    for absent in ("data_wait", "communication", "samples", "batch_size", "memory", "loss"):
        assert absent not in page


def test_end_calls_without_a_step_do_nothing(monitor):
    monitor.end_step(3)
    monitor.end_wait()
    monitor.cancel_step()
    assert totals(monitor).steps == 0
    assert monitor.page() == ""
    with pytest.raises(MonitorError, match="at least 1"):
        next(monitor.batches([1], accumulate=0))
