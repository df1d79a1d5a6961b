"""What a job tells by name: loss, accuracy, anything that is a number."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

from gpu_advisor.training.families import LOSS, NONFINITE, VALUE, Sample
from gpu_advisor.training.outlets import MonitorError
from gpu_advisor.training.statistics import Running, Statistics

#: Each name is five series a rank for as long as the job lives.
MAX_NAMES = 100
#: Numbers noted and not folded yet.
MAX_NOTED = 10_000


@dataclass(slots=True)
class _Value:
    whole: Running
    window: Running
    last_window: Statistics | None = None


class Values:
    """Statistics by name, of the whole run and of windows. `tell` is for one thread; the others may be called by any.

    A number is only noted when it is told. Folding two of them into statistics there and then took 50 microseconds of a
    step, as that code had left the CPU's caches; the thread that reports folds thousands at one or two each.
    """

    def __init__(self, taken: tuple[str, ...]) -> None:
        """taken: names that are somebody else's."""
        self._taken = taken
        self._lock = threading.Lock()
        self._names: set[str] = set()
        self._told: deque[tuple[str, float]] = deque()
        self._values: dict[str, _Value] = {}

    def tell(self, name: str, number: float) -> None:
        """Raises MonitorError for a name that is taken, and where there are too many."""
        if name not in self._names:
            self._admit(name)
        self._told.append((name, number))
        if len(self._told) > MAX_NOTED:  # nobody reports
            self._fold()

    def _admit(self, name: str) -> None:
        if name in self._taken:
            raise MonitorError(f"{name} is the monitor's own; give yours another name")
        if len(self._names) >= MAX_NAMES:
            raise MonitorError(
                f"{name!r} would be the {MAX_NAMES + 1}th name: each is a set of series for good. "
                "Names must not hold what changes, such as a step's number"
            )
        self._names.add(name)

    def _fold(self) -> None:
        with self._lock:
            while self._told:
                name, number = self._told.popleft()
                value = self._values.get(name)
                if value is None:
                    value = self._values[name] = _Value(Running(), Running())
                value.whole.add(number)
                value.window.add(number)

    def close_window(self) -> None:
        """From here on `samples` tells what came since the last call. A value that had nothing keeps what it had."""
        self._fold()
        with self._lock:
            for value in self._values.values():
                value.last_window = value.window.statistics() or value.last_window
                value.window = Running()

    def statistics(self) -> dict[str, Statistics]:
        """Of the whole run, by name."""
        self._fold()
        with self._lock:
            found = {name: value.whole.statistics() for name, value in self._values.items()}
        return {name: statistics for name, statistics in found.items() if statistics}

    def samples(self) -> list[Sample]:
        self._fold()
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
