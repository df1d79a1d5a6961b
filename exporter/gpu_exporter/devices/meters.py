"""Turns utilization readings into counters: busy seconds, the seconds in which we know, idle seconds with memory held;
and readings of anything into their min, mean and max over windows of the wall clock.

A gauge that is read every 15 s misses what happens in between; `rate(busy) / rate(observed)` is the true mean over any
window. Two sources: the driver's sample buffer, whose samples each stand for the period that ended at their time stamp,
and, where there is none, the gauge at the moments when it is read.

Pure: times are passed in. The caller's clock is monotonic; the samples' time stamps are the driver's, which may be the
wall clock or the time since boot, and may step. They are only ever compared with each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import NamedTuple

MAX_PERIOD_SECONDS = 1.5
"""Seconds. NVML's documented sample periods are 1/6 to 1 s: time stamps further apart have a hole between them."""

MAX_GAP_SECONDS = 5.0
"""Seconds. A gauge read less often than this says nothing about the time in between."""

UtilizationSample = tuple[int, float]
"""When the period ended, in microseconds of the driver's clock, and the utilization in percent."""


class BusySource(str, Enum):
    """What a meter counts by."""

    NONE = "none"
    BUFFER = "buffer"
    GAUGE = "gauge"
    DRIVER = "driver"
    """Not a meter's: of drivers that count themselves."""


class BusyInterval(NamedTuple):
    """A stretch of time that was accounted for. `age` is how long before the update it ended, both in seconds."""

    age: float
    seconds: float
    percent: float


class BusyMeter:
    """Busy and observed time of one GPU, and idle time while memory is held. They only grow;
    busy <= observed <= elapsed, and idle_held <= observed - busy.

    The last holds by construction: time that elapses on the caller's clock is a credit, and only credit can become
    observed time. So two sources that overlap, or a driver's clock that steps, cannot count a second twice.
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
        """Where the time accounted for last came from."""
        return self._source

    @property
    def since(self) -> int:
        """Time stamp after which samples are wanted, in the driver's microseconds; 0 wants all there are.

        When the buffer has been silent for longer than a period, the driver's clock may have stepped back, and
        asking for what is newer than the last sample would hide all samples until it has caught up.
        """
        return 0 if self._buffer_is_stale(self._now) else self._seen

    def update(
        self, now: float, samples: Sequence[UtilizationSample] | None, percent: float | None, held: bool = False
    ) -> list[BusyInterval]:
        """Account for the time since the last update. Returns what it was, newest first.

        `now` is the caller's clock in seconds. `samples` are the driver's, oldest first, empty if it has no new ones,
        None if it keeps no buffer. `percent` is the utilization gauge at `now`, None if it could not be read.
        `held` says whether processes hold memory: idle time then counts as idle_held, too.
        """
        self._memory_held = held
        intervals: list[BusyInterval] = []
        self._intervals = intervals
        elapsed = self._advance(now)
        new_periods = self._new_periods(samples or ())
        if new_periods:
            self._last_buffer_at = now
            self._source = BusySource.BUFFER
            self._account(new_periods)
        elif samples is None or self._buffer_is_stale(now):
            # Some GPUs keep no samples while they are idle: silence is no proof of anything, the gauge is.
            self._account_gauge(elapsed, percent)
        else:
            return intervals  # the period that is running has not ended yet
        # What is left is the period still running. Anything older was a gap, which no later reading may claim.
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
        """(length in seconds, percent) of the periods not seen before, oldest first; holes are left out."""
        run = _after_last_clock_step(samples)
        if run and run[-1][0] < self._seen:
            self._seen = run[-1][0]  # the driver's clock stepped back: start anew from here
            return []
        periods = []
        for end, percent in run:
            if end > self._seen:
                periods.append(((end - self._seen) / 1e6, percent))
                self._seen = end
        return periods

    def _account(self, periods: Iterable[tuple[float, float]]) -> None:
        # Newest first: if the credit does not reach for all, the oldest were accounted for by the other source.
        age = 0.0
        for length, percent in reversed(list(periods)):
            if length <= self._longest_period:
                self._account_interval(age, length, percent)
            age += length

    def _account_gauge(self, elapsed: float, percent: float | None) -> None:
        if percent is None or elapsed > self._longest_gap:
            self._unaccounted = 0.0
            return
        self._source = BusySource.GAUGE
        self._account_interval(0.0, self._unaccounted, percent)

    def _account_interval(self, age: float, seconds: float, percent: float) -> None:
        accounted = min(seconds, self._unaccounted)
        self._unaccounted -= accounted
        if 0 <= percent <= 100:  # neither garbage nor NaN: else the period is spent, but not observed
            self.observed += accounted
            self.busy += accounted * (percent / 100)
            if self._memory_held:
                self.idle_held_seconds += accounted * (1 - percent / 100)
            if accounted > 0:
                self._intervals.append(BusyInterval(age, accounted, percent))


def _after_last_clock_step(samples: Sequence[UtilizationSample]) -> Sequence[UtilizationSample]:
    """The samples after the last step back of the driver's clock."""
    for i in range(len(samples) - 1, 0, -1):
        if samples[i][0] < samples[i - 1][0]:
            return samples[i:]
    return samples


WINDOW_SECONDS = 60.0
"""Length of the windows, which begin and end on its multiples on the wall clock: the same for all that scrape."""

MIN_COVERAGE_RATIO = 0.9
"""Share of a window that must have been seen: what happened in the rest could be anything."""


class WindowStatistics(NamedTuple):
    """Of the values seen in one window."""

    min: float
    mean: float
    max: float


class WindowMeter:
    """Min, mean and max of a value over the last whole window, and nothing while there is none that was well seen.

    Pieces of time are added oldest first. The end of a window that comes after it was closed is lost.
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
        """`value` held for `seconds` up to `end` (seconds since 1970). Time must not go back by more than a piece."""
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
            self._seen += seconds
            self._sum += seconds * value
            self._min, self._max = min(self._min, value), max(self._max, value)

    def _roll_over(self, index: int) -> None:
        if self._index - 1 <= index < self._index:
            return  # the tail of the window that was closed
        complete = index == self._index + 1 and self._seen >= MIN_COVERAGE_RATIO * self.seconds
        self._last = WindowStatistics(self._min, self._sum / self._seen, self._max) if complete else None
        self._index = index
        self._reset()

    def last(self, now: float) -> WindowStatistics | None:
        """Of the last whole window before `now` (seconds since 1970)."""
        index = math.floor(now / self.seconds)
        if index != self._index:
            self._roll_over(index)
        return self._last
