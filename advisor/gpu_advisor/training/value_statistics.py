"""What a job tells by name: loss, accuracy, anything that is a number."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

from gpu_advisor.training.metrics import LOSS, NONFINITE, VALUE, MetricSample
from gpu_advisor.training.publishers import MonitorError
from gpu_advisor.training.running_statistics import RunningStatistics, Statistics

#: Each name is five series a rank for as long as the job lives.
MAX_NAMES = 100
#: Numbers noted and not folded yet.
MAX_QUEUED_VALUES = 10_000


@dataclass(slots=True)
class _ValueSeries:
    total: RunningStatistics
    window: RunningStatistics
    last_window: Statistics | None = None


class ValueStatistics:
    """Statistics by name, of the whole run and of windows. `record` is for one thread; the others may be called by any.

    A number is only noted when it is told. Folding two of them into statistics there and then took 50 microseconds of a
    step, as that code had left the CPU's caches; the thread that reports folds thousands at one or two each.
    """

    def __init__(self, taken: tuple[str, ...]) -> None:
        """taken: names that are somebody else's."""
        self._taken = taken
        self._lock = threading.Lock()
        self._names: set[str] = set()
        self._queue: deque[tuple[str, float]] = deque()
        self._values: dict[str, _ValueSeries] = {}

    def record(self, name: str, number: float) -> None:
        """Raises MonitorError for a name that is taken, and where there are too many."""
        if name not in self._names:
            self._register_name(name)
        self._queue.append((name, number))
        if len(self._queue) > MAX_QUEUED_VALUES:  # nobody reports
            self._aggregate_values()

    def _register_name(self, name: str) -> None:
        if name in self._taken:
            raise MonitorError(f"{name} is the monitor's own; give yours another name")
        if len(self._names) >= MAX_NAMES:
            raise MonitorError(
                f"{name!r} would be the {MAX_NAMES + 1}th name: each is a set of series for good. "
                "Names must not hold what changes, such as a step's number"
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
        """From here on `samples` tells what came since the last call. A value that had nothing keeps what it had."""
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


def statistic_samples(name: str, found: Statistics) -> list[MetricSample]:
    return [MetricSample(VALUE, getattr(found, part), (name, part)) for part in ("mean", "min", "max", "std")]
