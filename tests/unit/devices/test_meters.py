"""BusyMeter and WindowMeter with a fake sample buffer: square waves, jitter, gaps, clock steps, invalid samples."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
from gpu_exporter.devices.meters import (
    MAX_PERIOD_SECONDS,
    MAX_RUN_SECONDS,
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

patient = settings(deadline=None, max_examples=60)  # no deadline: the machine may be busy


def busy_until(t: float, period: float, duty: float) -> float:
    """Busy seconds of a square wave from 0 to t."""
    whole, rest = divmod(t, period)
    return whole * period * duty + min(rest, period * duty)


class FakeSampleBuffer:
    """The driver's ring buffer: a sample every 1/6 s, with a driver clock that may be off."""

    def __init__(self, period: float, duty: float, offset: Callable[[float], float] = lambda t: 0.0) -> None:
        self.wave = (period, duty)
        self.offset = offset

    def since(self, observed: int, now: float) -> list[UtilizationSample]:
        last = int(now / PERIOD)
        samples = []
        for tick in range(max(1, last - BUFFER + 1), last + 1):
            end = tick * PERIOD
            stamp = round((end + 1e6 + self.offset(end)) * 1e6)
            if stamp > observed:
                busy = busy_until(end, *self.wave) - busy_until(end - PERIOD, *self.wave)
                samples.append((stamp, float(round(100 * busy / PERIOD))))
        return samples

    def mean(self, start: float, end: float) -> float:
        return (busy_until(end, *self.wave) - busy_until(start, *self.wave)) / (end - start)


waves = {"period": st.floats(0.05, 30), "duty": st.floats(0, 1)}
gaps_between_reads = st.lists(st.floats(0.05, 10), min_size=20, max_size=60)


@patient
@given(**waves, steps=gaps_between_reads)
def test_mean_from_the_buffer_is_within_one_point_for_any_load_and_jitter(
    period: float, duty: float, steps: list[float]
) -> None:
    buffer, meter = FakeSampleBuffer(period, duty), BusyMeter()
    start = now = 20.0
    meter.update(now, buffer.since(meter.next_sample_since, now), None)
    for step in steps:
        now += step
        meter.update(now, buffer.since(meter.next_sample_since, now), None)
    # Reads do not align with the first and last period: an error of up to 1/6 s each.
    slack = 2 * PERIOD / (now - start)
    assert meter.busy / meter.observed == pytest.approx(buffer.mean(start, now), abs=0.0099 + slack)
    assert now - start - meter.observed < 2 * PERIOD + 1e-6
    assert meter.source is BusySource.BUFFER


@pytest.mark.parametrize("duty", [0.0, 0.2, 0.5, 0.97, 1.0])
def test_mean_over_an_hour_is_within_one_point(duty: float) -> None:
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
def test_counters_are_monotonic_and_never_exceed_elapsed_time(
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
def test_driver_clock_step_costs_seconds_not_the_mean(step: float, reading: float) -> None:
    buffer = FakeSampleBuffer(1.0, 0.3, offset=lambda t: step if t > 60 else 0.0)
    meter = BusyMeter()
    now = 0.0
    while now < 180:
        meter.update(now, buffer.since(meter.next_sample_since, now), None)
        now += reading
    assert meter.observed <= 180
    assert meter.observed > 180 - 30  # at most the buffer (17 s) and some reads are lost
    assert meter.busy / meter.observed == pytest.approx(0.3, abs=0.02)


def test_an_overrun_buffer_is_a_gap_not_idle_time() -> None:
    buffer, meter = FakeSampleBuffer(1.0, 1.0), BusyMeter()
    meter.update(0.0, buffer.since(meter.next_sample_since, 0.0), None)
    for now in (10.0, 70.0, 80.0):  # a call hung for a minute; the buffer has the last 17 s
        meter.update(now, buffer.since(meter.next_sample_since, now), None)
    assert meter.observed == pytest.approx(10 + 100 / 6 + 10, abs=0.4)
    assert meter.busy == pytest.approx(meter.observed)


def test_periods_of_invalid_samples_are_unobserved() -> None:
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


@patient
@given(
    st.lists(st.tuples(st.integers(1, 400_000), st.floats(0, 100)), min_size=2, max_size=20),
    st.lists(st.integers(0, 19), max_size=6),
)
def test_a_repeated_sample_counts_once(steps: list[tuple[int, float]], repeated: list[int]) -> None:
    samples, at = [(1_000_000, 0.0)], 1_000_000
    for step, percent in steps:
        at += step
        samples.append((at, percent))
    twice = [each for i, each in enumerate(samples) for _ in range(1 + (i in repeated))]
    once, other = BusyMeter(), BusyMeter()
    for meter, found in ((once, samples), (other, twice)):
        meter.update(0.0, samples[:1], None)
        meter.update(100.0, found, None)
    assert (other.busy, other.observed) == pytest.approx((once.busy, once.observed))


def test_samples_from_before_a_backward_clock_step_are_ignored() -> None:
    meter = BusyMeter()
    meter.update(0.0, [(1_000_000, 0.0)], None)
    meter.update(1.0, [(3_600_000_000, 100.0), (3_601_000_000, 100.0), (1_500_000, 0.0), (2_000_000, 0.0)], None)
    assert (meter.busy, meter.observed) == (0.0, 1.0)


def test_gap_in_the_buffer_is_not_filled_by_the_gauge_later() -> None:
    meter = BusyMeter(max_period_seconds=1.5)
    meter.update(0.0, [(0, 100.0)], 100.0)
    meter.update(60.0, [(60_000_000, 100.0)], 100.0)  # the minute is unobserved
    assert meter.observed == 0.0
    meter.update(62.0, [], 100.0)
    assert meter.observed <= 2.0 + 1.5


def test_newest_samples_count_where_gauge_and_samples_overlap() -> None:
    meter = BusyMeter()
    meter.update(0.0, [(0, 0.0)], 0.0)
    meter.update(2.0, [], 0.0)  # no samples: the gauge accounts for two seconds
    meter.update(3.0, [(1_000_000, 100.0), (2_000_000, 100.0), (3_000_000, 50.0)], 50.0)
    assert (meter.busy, meter.observed) == (0.5, 3.0)


def test_gauge_covers_the_time_since_the_last_reading() -> None:
    meter = BusyMeter()
    for now, percent in enumerate((10.0, 100.0, 50.0)):
        meter.update(float(now), None, percent)
    assert (meter.busy, meter.observed) == (1.5, 2.0)
    assert meter.source is BusySource.GAUGE


@pytest.mark.parametrize("percent", [None, math.nan, 101.0, -1.0])
def test_time_of_an_invalid_gauge_reading_stays_unobserved(percent: float | None) -> None:
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


def test_backward_step_of_the_callers_clock_adds_nothing() -> None:
    meter = BusyMeter()
    meter.update(100.0, None, 100.0)
    meter.update(40.0, None, 100.0)
    assert meter.observed == 0.0
    meter.update(41.0, None, 100.0)
    assert meter.observed == 1.0


def test_gauge_takes_over_while_the_buffer_has_no_samples() -> None:
    """Some GPUs record no samples while idle: without idle time the mean would be the peak."""
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


@given(st.lists(st.tuples(st.sampled_from((167_000, 250_000, 9_000_000)), st.sampled_from((0.0, 40.0))), min_size=1))
def test_intervals_of_one_utilization_are_joined_without_a_change(steps: list[tuple[int, float]]) -> None:
    """Each as long as its periods, at their age; none joined over a gap, or longer than it may be."""
    ends = list(itertools.accumulate((length for length, _ in steps), initial=1_000_000))
    samples = [(ends[0], 0.0), *((end, percent) for end, (_, percent) in zip(ends[1:], steps, strict=True))]
    meter = BusyMeter()
    meter.update(0.0, samples[:1], None)
    found = meter.update(ends[-1] / 1e6, samples[1:], None)
    expected = {}
    for i, (length, percent) in enumerate(steps):
        if length <= MAX_PERIOD_SECONDS * 1e6:
            expected[(ends[-1] - ends[i + 1])] = (length, percent)
    covered = {}
    for age, seconds, percent in found:
        assert seconds <= MAX_RUN_SECONDS
        at, end = round(age * 1e6), round((age + seconds) * 1e6)
        while at < end:
            covered[at] = expected[at]
            assert covered[at][1] == percent
            at += covered[at][0]
        assert at == end
    assert covered == expected


def test_a_constant_load_is_one_interval() -> None:
    meter = BusyMeter()
    meter.update(0.0, [(1_000_000, 50.0)], None)
    samples = [(1_000_000 + 125_000 * i, 50.0) for i in range(1, 9)]
    assert meter.update(1.0, samples, None) == [(0.0, 1.0, 50.0)]


def test_without_any_reading_nothing_is_observed() -> None:
    meter = BusyMeter()
    for now in range(5):
        meter.update(float(now), None, None)
    assert (meter.busy, meter.observed, meter.source) == (0.0, 0.0, BusySource.NONE)


# ---- idle time while memory is held -----------------------------------------------------------------------------


@patient
@given(**waves, steps=gaps_between_reads, held=st.lists(st.booleans(), min_size=60, max_size=60))
def test_idle_held_time_is_the_idle_part_of_observed_time_with_memory_held(
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


def test_update_returns_the_accounted_intervals_newest_first() -> None:
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


def test_window_is_reported_until_the_next_is_complete() -> None:
    meter = WindowMeter()
    fill_meter(meter, 600, 30, 0.2)
    fill_meter(meter, 630, 30, 0.6)
    assert meter.last(659.9) is None
    reported = close_to(0.2, 0.4, 0.6)
    assert meter.last(660.0) == reported
    fill_meter(meter, 660, 59, 1.0)
    assert meter.last(719.9) == reported
    fill_meter(meter, 719, 1, 1.0)
    assert meter.last(720.0) == close_to(1.0, 1.0, 1.0)


def test_interval_across_a_boundary_counts_in_both_windows() -> None:
    meter = WindowMeter()
    fill_meter(meter, 600, 59, 0.0)
    meter.add(661.0, 2.0, 1.0)
    assert meter.last(661.0) == close_to(0.0, 1 / 60, 1.0)
    fill_meter(meter, 661, 59, 0.0)
    assert meter.last(720.0) == close_to(0.0, 1 / 60, 1.0)


@pytest.mark.parametrize(
    ("observed", "reported"),
    [(math.ceil(MIN_COVERAGE_RATIO * WINDOW_SECONDS), True), (MIN_COVERAGE_RATIO * WINDOW_SECONDS - 1, False)],
)
def test_partly_observed_window_is_not_reported(observed: float, reported: bool) -> None:
    meter = WindowMeter()
    fill_meter(meter, 600, observed, 0.5)
    assert (meter.last(660.0) is not None) is reported


def test_old_window_is_not_reported() -> None:
    meter = WindowMeter()
    fill_meter(meter, 600, 60, 0.5)
    assert meter.last(660) is not None
    assert meter.last(721) is None
    fill_meter(meter, 900, 60, 0.5)
    assert meter.last(960) is not None


def test_window_not_read_in_time_is_not_reported_later() -> None:
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


def test_meters_with_different_intervals_agree() -> None:
    one, other = WindowMeter(), WindowMeter()
    for k in range(240):
        one.add(600 + (k + 1) / 4, 0.25, k % 7)
    for k in range(60):
        other.add(601 + k, 1.0, sum((4 * k + i) % 7 for i in range(4)) / 4)
    assert one.last(660).mean == pytest.approx(other.last(660).mean)  # type: ignore[union-attr]
