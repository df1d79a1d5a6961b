"""BusyMeter against a driver's buffer made up here: waves, jitter, gaps, stepping clocks, garbage."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from gpu_exporter.devices.meters import (
    MIN_COVERAGE_RATIO,
    WINDOW_SECONDS,
    BusyMeter,
    BusySource,
    UtilizationSample,
    WindowMeter,
)
from hypothesis import given, settings
from hypothesis import strategies as st

PERIOD = 1 / 6
BUFFER = 100

patient = settings(deadline=None, max_examples=60)  # a busy machine is no failure


def busy_until(t: float, period: float, duty: float) -> float:
    """Busy seconds of a square wave from 0 to t."""
    whole, rest = divmod(t, period)
    return whole * period * duty + min(rest, period * duty)


class FakeSampleBuffer:
    """The driver's ring: a sample each 1/6 s, stamped by a clock that may be off."""

    def __init__(self, period: float, duty: float, offset: Callable[[float], float] = lambda t: 0.0) -> None:
        self.wave = (period, duty)
        self.offset = offset

    def since(self, seen: int, now: float) -> list[UtilizationSample]:
        last = int(now / PERIOD)
        samples = []
        for tick in range(max(1, last - BUFFER + 1), last + 1):
            end = tick * PERIOD
            stamp = round((end + 1e6 + self.offset(end)) * 1e6)
            if stamp > seen:
                busy = busy_until(end, *self.wave) - busy_until(end - PERIOD, *self.wave)
                samples.append((stamp, float(round(100 * busy / PERIOD))))
        return samples

    def mean(self, start: float, end: float) -> float:
        return (busy_until(end, *self.wave) - busy_until(start, *self.wave)) / (end - start)


waves = {"period": st.floats(0.05, 30), "duty": st.floats(0, 1)}
gaps_between_reads = st.lists(st.floats(0.05, 10), min_size=20, max_size=60)


@patient
@given(**waves, steps=gaps_between_reads)
def test_mean_from_the_buffer_is_within_a_point_whatever_the_load_and_the_jitter_of_reads(
    period: float, duty: float, steps: list[float]
) -> None:
    buffer, meter = FakeSampleBuffer(period, duty), BusyMeter()
    start = now = 20.0
    meter.update(now, buffer.since(meter.next_sample_since, now), None)
    for step in steps:
        now += step
        meter.update(now, buffer.since(meter.next_sample_since, now), None)
    # The first and the last period are cut off by the reads, not by the samples: 1/6 s each at most.
    slack = 2 * PERIOD / (now - start)
    assert meter.busy / meter.observed == pytest.approx(buffer.mean(start, now), abs=0.0099 + slack)
    assert now - start - meter.observed < 2 * PERIOD + 1e-6
    assert meter.source is BusySource.BUFFER


@pytest.mark.parametrize("duty", [0.0, 0.2, 0.5, 0.97, 1.0])
def test_mean_over_an_hour_is_within_a_point(duty: float) -> None:
    buffer, meter = FakeSampleBuffer(0.7, duty), BusyMeter()
    for i in range(3600):
        meter.update(float(i), buffer.since(meter.next_sample_since, float(i)), None)
    assert meter.busy / meter.observed == pytest.approx(duty, abs=0.01)
    assert meter.observed == pytest.approx(3599, abs=0.5)


anything = st.one_of(st.floats(allow_nan=True, allow_infinity=True), st.floats(0, 100))
a_sample = st.tuples(st.integers(0, 10**8), anything)
a_read = st.tuples(
    st.floats(-5, 100), st.one_of(st.none(), st.lists(a_sample, max_size=8)), st.one_of(st.none(), anything)
)


@patient
@given(reads=st.lists(a_read, max_size=30))
def test_counters_never_fall_and_never_exceed_the_time_that_passed(
    reads: list[tuple[float, list[UtilizationSample] | None, float | None]],
) -> None:
    meter = BusyMeter()
    now, elapsed = 100.0, 0.0
    meter.update(now, None, None)
    before = (0.0, 0.0)
    for step, samples, percent in reads:
        now += step
        elapsed += max(0.0, step)
        meter.update(now, samples, percent)
        assert before[0] <= meter.busy
        assert before[1] <= meter.observed
        assert meter.busy <= meter.observed + 1e-9
        assert meter.observed <= elapsed + 1e-6
        before = (meter.busy, meter.observed)


@patient
@given(step=st.floats(-3600, 3600).filter(lambda s: abs(s) > 2), reading=st.floats(0.2, 3))
def test_a_step_of_the_drivers_clock_costs_seconds_not_the_mean(step: float, reading: float) -> None:
    buffer = FakeSampleBuffer(1.0, 0.3, offset=lambda t: step if t > 60 else 0.0)
    meter = BusyMeter()
    now = 0.0
    while now < 180:
        meter.update(now, buffer.since(meter.next_sample_since, now), None)
        now += reading
    assert meter.observed <= 180
    assert meter.observed > 180 - 30  # at most the buffer (17 s) and some reads are lost; never "until it catches up"
    assert meter.busy / meter.observed == pytest.approx(0.3, abs=0.02)


def test_an_overrun_buffer_is_a_gap_not_idle_time() -> None:
    buffer, meter = FakeSampleBuffer(1.0, 1.0), BusyMeter()
    meter.update(0.0, buffer.since(meter.next_sample_since, 0.0), None)
    for now in (10.0, 70.0, 80.0):  # a call that hung for a minute: the ring keeps 17 s of it
        meter.update(now, buffer.since(meter.next_sample_since, now), None)
    assert meter.observed == pytest.approx(10 + 100 / 6 + 10, abs=0.4)
    assert meter.busy == pytest.approx(meter.observed)


def test_garbage_samples_go_with_their_period() -> None:
    meter = BusyMeter()
    meter.update(0.0, [(1_000_000, 50.0)], None)
    meter.update(1.0, [(1_250_000, 50.0), (1_500_000, 250.0), (1_750_000, math.nan), (2_000_000, -1.0)], None)
    assert meter.observed == 0.25
    assert meter.busy == 0.125


def test_the_same_samples_again_count_once() -> None:
    samples = [(1_000_000, 100.0), (1_500_000, 100.0), (2_000_000, 100.0)]
    meter = BusyMeter()
    meter.update(0.0, samples[:1], None)
    meter.update(1.0, samples, None)
    meter.update(1.2, samples, None)
    assert meter.observed == 1.0


def test_a_ring_that_still_holds_samples_of_before_the_clock_was_set_back_counts_the_new_ones_only() -> None:
    meter = BusyMeter()
    meter.update(0.0, [(1_000_000, 0.0)], None)
    meter.update(1.0, [(3_600_000_000, 100.0), (3_601_000_000, 100.0), (1_500_000, 0.0), (2_000_000, 0.0)], None)
    assert (meter.busy, meter.observed) == (0.0, 1.0)


def test_time_in_a_hole_of_the_buffer_is_not_claimed_by_the_gauge_later() -> None:
    meter = BusyMeter(max_period_seconds=1.5)
    meter.update(0.0, [(0, 100.0)], 100.0)
    meter.update(60.0, [(60_000_000, 100.0)], 100.0)  # nothing is known of the minute
    assert meter.observed == 0.0
    meter.update(62.0, [], 100.0)
    assert meter.observed <= 2.0 + 1.5


def test_where_gauge_and_samples_overlap_the_newest_samples_count() -> None:
    meter = BusyMeter()
    meter.update(0.0, [(0, 0.0)], 0.0)
    meter.update(2.0, [], 0.0)  # silent: the gauge accounts for two seconds
    meter.update(3.0, [(1_000_000, 100.0), (2_000_000, 100.0), (3_000_000, 50.0)], 50.0)
    assert (meter.busy, meter.observed) == (0.5, 3.0)


def test_gauge_is_held_for_the_time_since_the_last_reading() -> None:
    meter = BusyMeter()
    for now, percent in enumerate((10.0, 100.0, 50.0)):
        meter.update(float(now), None, percent)
    assert (meter.busy, meter.observed) == (1.5, 2.0)
    assert meter.source is BusySource.GAUGE


@pytest.mark.parametrize("percent", [None, math.nan, 101.0, -1.0])
def test_a_bad_gauge_reading_is_unobserved_and_the_next_does_not_claim_its_time(percent: float | None) -> None:
    meter = BusyMeter()
    meter.update(0.0, None, 100.0)
    meter.update(1.0, None, percent)
    meter.update(2.0, None, 100.0)
    assert (meter.busy, meter.observed) == (1.0, 1.0)


def test_a_long_gap_between_gauge_readings_is_unobserved() -> None:
    meter = BusyMeter(max_gap_seconds=5.0)
    meter.update(0.0, None, 100.0)
    meter.update(60.0, None, 100.0)
    assert meter.observed == 0.0
    meter.update(61.0, None, 100.0)
    assert meter.observed == 1.0


def test_a_clock_of_the_caller_that_runs_back_adds_nothing() -> None:
    meter = BusyMeter()
    meter.update(100.0, None, 100.0)
    meter.update(40.0, None, 100.0)
    assert meter.observed == 0.0
    meter.update(41.0, None, 100.0)
    assert meter.observed == 1.0


def test_a_buffer_that_runs_dry_while_idle_hands_over_to_the_gauge_and_back() -> None:
    """Some GPUs keep no samples while idle: idle time must not be missing, or the mean of an idle GPU is its peak."""
    meter = BusyMeter()
    sources = []
    stamp = 10**6
    now = 0.0
    meter.update(now, [(stamp, 100.0)], 100.0)
    for _ in range(100):  # ten busy seconds
        now, stamp = now + 0.1, stamp + 100_000
        meter.update(now, [(stamp, 100.0)], 100.0)
    sources.append(meter.source)
    for _ in range(20):  # twenty idle seconds without a sample
        now, stamp = now + 1, stamp + 1_000_000
        meter.update(now, [], 0.0)
    sources.append(meter.source)
    assert meter.busy == pytest.approx(10)
    assert meter.observed == pytest.approx(30, abs=0.1)
    for _ in range(100):
        now, stamp = now + 0.1, stamp + 100_000
        meter.update(now, [(stamp, 100.0)], 100.0)
    sources.append(meter.source)
    assert sources == [BusySource.BUFFER, BusySource.GAUGE, BusySource.BUFFER]
    assert meter.busy == pytest.approx(20, abs=0.2)
    assert meter.observed == pytest.approx(40, abs=0.2)


def test_without_any_reading_nothing_is_observed() -> None:
    meter = BusyMeter()
    for now in range(5):
        meter.update(float(now), None, None)
    assert (meter.busy, meter.observed, meter.source) == (0.0, 0.0, BusySource.NONE)


# ---- idle time while memory is held -----------------------------------------------------------------------------


@patient
@given(**waves, steps=gaps_between_reads, held=st.lists(st.booleans(), min_size=60, max_size=60))
def test_idle_held_time_is_the_idle_part_of_what_was_observed_while_held(
    period: float, duty: float, steps: list[float], held: list[bool]
) -> None:
    buffer, meter = FakeSampleBuffer(period, duty), BusyMeter()
    now, expected = 20.0, 0.0
    for step, holds in zip(steps, held, strict=False):
        before = (meter.observed, meter.busy)
        meter.update(now, buffer.since(meter.next_sample_since, now), None, holds)
        if holds:
            expected += meter.observed - before[0] - (meter.busy - before[1])
        assert 0 <= meter.idle_held_seconds <= meter.observed - meter.busy + 1e-6
        now += step
    assert meter.idle_held_seconds == pytest.approx(expected, abs=1e-6)


def test_pieces_are_what_was_accounted_for_newest_first() -> None:
    meter = BusyMeter()
    assert meter.update(0.0, None, 50) == []
    assert meter.update(2.0, None, 30) == [(0.0, 2.0, 30)]
    assert [piece.age for piece in meter.update(3.0, [(70_000_000, 10.0), (70_500_000, 90.0)], None)] == [0.0]
    pieces = meter.update(4.0, [(71_000_000, 20.0), (71_500_000, 80.0)], None)
    assert pieces == [(0.0, 0.5, 80.0), (0.5, 0.5, 20.0)]


# ---- windows ----------------------------------------------------------------------------------------------------


def close_to(low: float, mean: float, high: float) -> object:
    return pytest.approx((low, mean, high))


def fill_meter(meter: WindowMeter, start: float, seconds: float, value: float) -> None:
    for k in range(round(seconds)):
        meter.add(start + k + 1, 1.0, value)


def test_a_window_is_reported_when_it_is_over_and_until_the_next_is() -> None:
    meter = WindowMeter()
    fill_meter(meter, 600, 30, 0.2)
    fill_meter(meter, 630, 30, 0.6)
    assert meter.last(659.9) is None
    told = close_to(0.2, 0.4, 0.6)
    assert meter.last(660.0) == told
    fill_meter(meter, 660, 59, 1.0)
    assert meter.last(719.9) == told
    fill_meter(meter, 719, 1, 1.0)
    assert meter.last(720.0) == close_to(1.0, 1.0, 1.0)


def test_a_piece_over_the_border_counts_in_both_windows_for_its_part() -> None:
    meter = WindowMeter()
    fill_meter(meter, 600, 59, 0.0)
    meter.add(661.0, 2.0, 1.0)
    assert meter.last(661.0) == close_to(0.0, 1 / 60, 1.0)
    fill_meter(meter, 661, 59, 0.0)
    assert meter.last(720.0) == close_to(0.0, 1 / 60, 1.0)


@pytest.mark.parametrize(
    ("seen", "told"),
    [(math.ceil(MIN_COVERAGE_RATIO * WINDOW_SECONDS), True), (MIN_COVERAGE_RATIO * WINDOW_SECONDS - 1, False)],
)
def test_a_window_that_was_seen_in_part_is_not_reported(seen: float, told: bool) -> None:
    meter = WindowMeter()
    fill_meter(meter, 600, seen, 0.5)
    assert (meter.last(660.0) is not None) is told


def test_nothing_is_reported_of_a_window_long_ago() -> None:
    meter = WindowMeter()
    fill_meter(meter, 600, 60, 0.5)
    assert meter.last(660) is not None
    assert meter.last(721) is None
    fill_meter(meter, 900, 60, 0.5)
    assert meter.last(960) is not None


def test_a_window_that_nobody_asked_for_in_time_is_not_reported_later() -> None:
    meter = WindowMeter()
    fill_meter(meter, 600, 60, 0.5)
    fill_meter(meter, 900, 1, 0.5)
    assert meter.last(901) is None


def test_a_wall_clock_set_back_restarts() -> None:
    meter = WindowMeter()
    fill_meter(meter, 6000, 60, 0.9)
    assert meter.last(6060) is not None
    assert meter.last(3000) is None
    fill_meter(meter, 3000, 60, 0.1)
    assert meter.last(3060) == close_to(0.1, 0.1, 0.1)


def test_two_that_read_at_the_same_time_are_reported_the_same() -> None:
    one, other = WindowMeter(), WindowMeter()
    for k in range(240):
        one.add(600 + (k + 1) / 4, 0.25, k % 7)
    for k in range(60):
        other.add(601 + k, 1.0, sum((4 * k + i) % 7 for i in range(4)) / 4)
    assert one.last(660).mean == pytest.approx(other.last(660).mean)  # type: ignore[union-attr]
