"""What a job tells by name: loss, accuracy, anything that is a number."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass

from gpu_advisor.training.families import LOSS, NONFINITE, VALUE, Sample
from gpu_advisor.training.outlets import MonitorError
from gpu_advisor.training.statistics import Running, Statistics

#: Each name is five series a rank for as long as the job lives.
MAX_NAMES = 100


@dataclass(slots=True)
class _Value:
    whole: Running
    window: Running
    last_window: Statistics | None = None


class Values:
    """Statistics by name, of the whole run and of windows. Any thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[str, _Value] = {}

    def add(self, numbers: Iterable[tuple[str, float]]) -> None:
        """Raises MonitorError where there are too many names."""
        with self._lock:
            for name, number in numbers:
                value = self._values.get(name) or self._new(name)
                value.whole.add(number)
                value.window.add(number)

    def _new(self, name: str) -> _Value:
        if len(self._values) >= MAX_NAMES:
            raise MonitorError(
                f"{name!r} would be the {MAX_NAMES + 1}th name: each is a set of series for good. "
                "Names must not hold what changes, such as a step's number"
            )
        value = self._values[name] = _Value(Running(), Running())
        return value

    def close_window(self) -> None:
        """From here on `samples` tells what came since the last call. A value that had nothing keeps what it had."""
        with self._lock:
            for value in self._values.values():
                value.last_window = value.window.statistics() or value.last_window
                value.window = Running()

    def statistics(self) -> dict[str, Statistics]:
        """Of the whole run, by name."""
        with self._lock:
            found = {name: value.whole.statistics() for name, value in self._values.items()}
        return {name: statistics for name, statistics in found.items() if statistics}

    def samples(self) -> list[Sample]:
        samples: list[Sample] = []
        with self._lock:
            for name, value in self._values.items():
                if name == "loss" and value.whole.last is not None:
                    samples.append(Sample(LOSS, value.whole.last))
                if value.whole.nonfinite:
                    samples.append(Sample(NONFINITE, value.whole.nonfinite, (name,)))
                if value.last_window:
                    samples += statistic_samples(name, value.last_window)
        return samples


def statistic_samples(name: str, found: Statistics) -> list[Sample]:
    return [Sample(VALUE, getattr(found, part), (name, part)) for part in ("mean", "min", "max", "std")]
