"""Statistics of the values that a job records by name: loss, accuracy, any other number."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

from gpu_advisor.training.metrics import LOSS, NONFINITE, VALUE, MetricSample
from gpu_advisor.training.publishers import MonitorError
from gpu_advisor.training.running_statistics import RunningStatistics, Statistics

#: Each name adds five series per rank for the job's lifetime.
MAX_NAMES = 100
#: Recorded numbers that are not aggregated yet.
MAX_QUEUED_VALUES = 10_000


@dataclass(slots=True)
class _ValueSeries:
    total: RunningStatistics
    window: RunningStatistics
    last_window: Statistics | None = None


class ValueStatistics:
    """Statistics by name, of the whole run and of windows. Call `record` from one thread; the rest is thread-safe.

    `record` only queues a number. Aggregating two of them at once took 50 microseconds of a step, with cold CPU caches;
    the reporting thread aggregates thousands at one or two microseconds each.
    """

    def __init__(self, reserved_names: tuple[str, ...]) -> None:
        """reserved_names: names that the job must not use."""
        self._reserved_names = reserved_names
        self._lock = threading.Lock()
        self._names: set[str] = set()
        self._queue: deque[tuple[str, float]] = deque()
        self._values: dict[str, _ValueSeries] = {}

    def record(self, name: str, number: float) -> None:
        """Raises MonitorError for a reserved name, and for too many names."""
        if name not in self._names:
            self._register_name(name)
        self._queue.append((name, number))
        if len(self._queue) > MAX_QUEUED_VALUES:  # no reader
            self._aggregate_values()

    def _register_name(self, name: str) -> None:
        if name in self._reserved_names:
            raise MonitorError(f"{name} is recorded by the monitor itself; use another name")
        if len(self._names) >= MAX_NAMES:
            raise MonitorError(
                f"{name!r} exceeds the limit of {MAX_NAMES} names, each of which is a set of series. "
                "Do not put a changing value, such as the step number, into a name"
            )
        self._names.add(name)

    def _aggregate_values(self) -> None:
        with self._lock:
            while self._queue:
                name, number = self._queue.popleft()
                value = self._values.get(name)
                if value is None:
                    value = self._values[name] = _ValueSeries(RunningStatistics(), RunningStatistics())
                value.total.add(number)
                value.window.add(number)

    def close_window(self) -> None:
        """Make the current window the one that `samples` returns. A name without a new value keeps its last window."""
        self._aggregate_values()
        with self._lock:
            for value in self._values.values():
                value.last_window = value.window.statistics() or value.last_window
                value.window = RunningStatistics()

    def statistics(self) -> dict[str, Statistics]:
        """Of the whole run, by name."""
        self._aggregate_values()
        with self._lock:
            found = {name: value.total.statistics() for name, value in self._values.items()}
        return {name: statistics for name, statistics in found.items() if statistics}

    def samples(self) -> list[MetricSample]:
        self._aggregate_values()
        samples: list[MetricSample] = []
        with self._lock:
            for name, value in self._values.items():
                if name == "loss" and value.total.last is not None:
                    samples.append(MetricSample(LOSS, value.total.last))
                if value.total.nonfinite:
                    samples.append(MetricSample(NONFINITE, value.total.nonfinite, (name,)))
                if value.last_window:
                    samples += statistic_samples(name, value.last_window)
        return samples


def statistic_samples(name: str, statistics: Statistics) -> list[MetricSample]:
    return [MetricSample(VALUE, getattr(statistics, part), (name, part)) for part in ("mean", "min", "max", "std")]
