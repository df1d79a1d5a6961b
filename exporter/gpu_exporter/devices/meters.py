"""Meters: utilization readings -> counters of busy, observed and idle-with-memory-allocated seconds; any readings ->
their min, mean and max over windows aligned to the wall clock.

A gauge scraped every 15 s misses what happens in between; `rate(busy) / rate(observed)` is the true mean over any
window. Two sources: the driver's sample buffer, each of whose samples covers the period that ends at its timestamp,
and, without a buffer, the gauge when it is read.

Pure: times are passed in. The caller's clock is monotonic; sample timestamps are the driver's, which may be wall-clock
time or time since boot and may step. They are only compared with each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import NamedTuple

MAX_PERIOD_SECONDS = 1.5
"""NVML's documented sample periods are 1/6 to 1 s: between timestamps further apart there is a gap."""

MAX_GAP_SECONDS = 5.0
"""After a longer interval between readings of the gauge, the time in between is not observed."""

MAX_RUN_SECONDS = 5.0
"""Periods of the same utilization become one interval up to this length: an interval touches two windows at most."""

UtilizationSample = tuple[int, float]
"""(end of the period in microseconds of the driver's clock, utilization in percent)."""


class BusySource(str, Enum):
    """Source of a meter's busy time."""

    NONE = "none"
    BUFFER = "buffer"
    GAUGE = "gauge"
    DRIVER = "driver"
    """Not used by meters, but by drivers with counters of their own."""


class BusyInterval(NamedTuple):
    """Accounted time: `seconds` long, ended `age` seconds before the update, at `percent` utilization."""

    age: float
    seconds: float
    percent: float


class BusyMeter:
    """Busy and observed time of one GPU, and idle time with memory allocated. They are monotonic;
    busy <= observed <= elapsed, and idle_held <= observed - busy.

    By construction: time elapsed on the caller's clock is credit, and observed time consumes credit. So two overlapping
    sources, or a step of the driver's clock, cannot count a second twice.
    """

    def __init__(
        self, max_period_seconds: float = MAX_PERIOD_SECONDS, max_gap_seconds: float = MAX_GAP_SECONDS
    ) -> None:
        self.busy = 0.0
        self.observed = 0.0
        self.idle_held_seconds = 0.0
        self._memory_held = False
        self._intervals: list[BusyInterval] = []
        self._source = BusySource.NONE
        self._longest_period = max_period_seconds
        self._longest_gap = max_gap_seconds
        self._now: float | None = None
        self._unaccounted = 0.0
        self._seen = 0
        self._last_buffer_at = 0.0

    @property
    def source(self) -> BusySource:
        """The source of the last accounted time."""
        return self._source

    @property
    def next_sample_since(self) -> int:
        """Timestamp after which to request samples, in microseconds of the driver's clock; 0 requests all.

        If the buffer returned nothing for longer than a period, the driver's clock may have stepped back; requesting
        only samples newer than the last one would then hide all samples until the clock has caught up.
        """
        return 0 if self._buffer_is_stale(self._now) else self._seen

    def update(
        self, now: float, samples: Sequence[UtilizationSample] | None, percent: float | None, memory_held: bool = False
    ) -> list[BusyInterval]:
        """Account for the time since the last update. Returns the accounted intervals, newest first.

        `now` is the caller's clock in seconds. `samples` are the driver's, oldest first; empty if there are no new
        ones, None if the driver has no buffer. `percent` is the utilization gauge at `now`, None if it could not be
        read. `memory_held`: processes have memory allocated, so that idle time also counts as idle_held.
        """
        self._memory_held = memory_held
        intervals: list[BusyInterval] = []
        self._intervals = intervals
        elapsed = self._advance(now)
        new_periods = self._new_periods(samples or ())
        if new_periods:
            self._last_buffer_at = now
            self._source = BusySource.BUFFER
            self._account(new_periods)
        elif samples is None or self._buffer_is_stale(now):
            # Some GPUs record no samples while idle: use the gauge.
            self._account_gauge(elapsed, percent)
        else:
            return intervals  # the current period has not ended yet
        # The remaining credit is the current period. Anything older is a gap, which no later reading may fill.
        self._unaccounted = min(self._unaccounted, self._longest_period)
        return intervals

    def _advance(self, now: float) -> float:
        if self._now is None:
            self._now = self._last_buffer_at = now
        elapsed = max(0.0, now - self._now)
        self._now = now
        self._unaccounted += elapsed
        return elapsed

    def _buffer_is_stale(self, now: float | None) -> bool:
        return now is None or now - self._last_buffer_at > self._longest_period

    def _new_periods(self, samples: Sequence[UtilizationSample]) -> list[tuple[float, float]]:
        """(length in seconds, percent) of the new periods, oldest first."""
        run = _after_last_clock_step(samples)
        if run and run[-1][0] < self._seen:
            self._seen = run[-1][0]  # the driver's clock stepped back: restart from here
            return []
        periods = []
        for end, percent in run:
            if end > self._seen:
                periods.append(((end - self._seen) / 1e6, percent))
                self._seen = end
        return periods

    def _account(self, periods: Iterable[tuple[float, float]]) -> None:
        # Newest first: if the credit does not cover all, the oldest were accounted for by the other source.
        for age, length, percent in _runs(reversed(list(periods)), self._longest_period):
            self._account_interval(age, length, percent)

    def _account_gauge(self, elapsed: float, percent: float | None) -> None:
        if percent is None or elapsed > self._longest_gap:
            self._unaccounted = 0.0
            return
        self._source = BusySource.GAUGE
        self._account_interval(0.0, self._unaccounted, percent)

    def _account_interval(self, age: float, seconds: float, percent: float) -> None:
        accounted = min(seconds, self._unaccounted)
        self._unaccounted -= accounted
        if 0 <= percent <= 100:  # else invalid or NaN: the time passes, but is not observed
            self.observed += accounted
            self.busy += accounted * (percent / 100)
            if self._memory_held:
                self.idle_held_seconds += accounted * (1 - percent / 100)
            if accounted > 0:
                self._intervals.append(BusyInterval(age, accounted, percent))


def _runs(periods: Iterable[tuple[float, float]], longest: float) -> list[tuple[float, float, float]]:
    """(age, seconds, percent) of the periods, newest first, without gaps, which are longer than `longest`.

    Consecutive periods of one utilization are one run: most GPUs are idle, or fully busy.
    """
    runs: list[tuple[float, float, float]] = []
    age = 0.0
    follows = False
    for length, percent in periods:
        if length > longest:
            follows = False
        elif follows and percent == runs[-1][2] and runs[-1][1] + length <= MAX_RUN_SECONDS:
            runs[-1] = (runs[-1][0], runs[-1][1] + length, percent)
        else:
            runs.append((age, length, percent))
            follows = True
        age += length
    return runs


def _after_last_clock_step(samples: Sequence[UtilizationSample]) -> Sequence[UtilizationSample]:
    """The samples after the last backward step of the driver's clock."""
    for i in range(len(samples) - 1, 0, -1):
        if samples[i][0] < samples[i - 1][0]:
            return samples[i:]
    return samples


WINDOW_SECONDS = 60.0
"""Window length. Windows start at multiples of it on the wall clock: the same for all scrapers."""

MIN_COVERAGE_RATIO = 0.9
"""Ratio of a window that must be observed for its statistics to be exported."""


class WindowStatistics(NamedTuple):
    """Statistics of the values in one window."""

    min: float
    mean: float
    max: float


class WindowMeter:
    """Min, mean and max of a value over the last complete window, if enough of it was observed.

    Intervals are added oldest first. An interval of a window that was already closed is ignored.
    """

    def __init__(self, seconds: float = WINDOW_SECONDS) -> None:
        self.seconds = seconds
        self._index = 0
        self._reset()
        self._last: WindowStatistics | None = None

    def _reset(self) -> None:
        self._seen = self._sum = 0.0
        self._min, self._max = math.inf, -math.inf

    def add(self, end: float, seconds: float, value: float) -> None:
        """Add `value` for the `seconds` before `end` (Unix time). `end` must not go back by more than one interval."""
        start = self._index * self.seconds
        if start <= end - seconds and end < start + self.seconds:  # the usual case: within the current window
            self._observe(seconds, value)
            return
        boundary = math.floor(end / self.seconds) * self.seconds
        before = min(seconds, max(0.0, boundary - (end - seconds)))
        if before > 0:
            self._accumulate(boundary - self.seconds, before, value)
        if seconds > before:
            self._accumulate(boundary, seconds - before, value)

    def _accumulate(self, start: float, seconds: float, value: float) -> None:
        index = round(start / self.seconds)
        if index != self._index:
            self._roll_over(index)
        if index == self._index:
            self._observe(seconds, value)

    def _observe(self, seconds: float, value: float) -> None:
        self._seen += seconds
        self._sum += seconds * value
        if value < self._min:
            self._min = value
        if value > self._max:
            self._max = value

    def _roll_over(self, index: int) -> None:
        if self._index - 1 <= index < self._index:
            return  # the end of the window that was just closed
        complete = index == self._index + 1 and self._seen >= MIN_COVERAGE_RATIO * self.seconds
        self._last = WindowStatistics(self._min, self._sum / self._seen, self._max) if complete else None
        self._index = index
        self._reset()

    def last(self, now: float) -> WindowStatistics | None:
        """Statistics of the last complete window before `now` (Unix time); None if it was not observed well enough."""
        index = math.floor(now / self.seconds)
        if index != self._index:
            self._roll_over(index)
        return self._last
