"""Where the time of a training loop goes.

A step begins when the loop asks for its first batch (or says that it begins) and ends when the loop asks for the next
one (or says that it ends): waiting for data is part of it. What lies between steps, and what is marked as a pause
(validation, a checkpoint), counts for nothing.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from gpu_advisor.training.statistics import Running, Statistics

#: Steps noted and not summed up yet.
MAX_NOTED = 10_000


@dataclass(frozen=True, slots=True)
class Totals:
    """Since the job began. None: the job has not told."""

    steps: int
    step_seconds: float
    data_wait_seconds: float | None
    communication_seconds: float | None
    samples: int | None


@dataclass(frozen=True, slots=True)
class Window:
    """Steps that ended within one window of reporting."""

    step_seconds: Statistics | None
    data_wait_seconds: Statistics | None
    batch_size: int | None


class StepClock:
    """Marks of one thread, the training loop's; `totals` and `take_window` may be called from any.

    A step is only noted when it ends, and summed up by whoever asks: see values.Values.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock`: seconds, monotonic."""
        self._clock = clock
        self._lock = threading.Lock()
        self._opened: float | None = None
        self._waiting: float | None = None
        self._paused: float | None = None
        self._communicating: float | None = None
        self._wait_seconds = 0.0
        self._pause_seconds = 0.0
        self._communication_seconds = 0.0
        self._waits_told = False
        self._communication_told = False
        self._samples_told = False
        self._ended: deque[tuple[float, float, float, int | None]] = deque()
        self._steps = 0
        self._total_step_seconds = 0.0
        self._total_wait_seconds = 0.0
        self._total_communication_seconds = 0.0
        self._total_samples = 0
        self._new_window()

    def _new_window(self) -> None:
        self._window_steps = Running()
        self._window_waits = Running()
        self._window_batch_size: int | None = None

    @property
    def open(self) -> bool:
        return self._opened is not None

    def begin_step(self) -> None:
        if self._opened is None:
            self._opened = self._clock()

    def begin_wait(self) -> None:
        now = self._clock()
        if self._opened is None:
            self._opened = now
        self._waiting = now

    def end_wait(self) -> None:
        if self._waiting is not None:
            self._wait_seconds += self._clock() - self._waiting
            self._waiting = None
            self._waits_told = True

    def cancel_wait(self) -> None:
        """The wait was for nothing: there was no batch left. It counts for no step."""
        if self._waiting is not None and self._opened is not None:
            self._pause_seconds += self._clock() - self._waiting
        self._waiting = None

    def begin_communication(self) -> None:
        self._communicating = self._clock()

    def end_communication(self) -> None:
        if self._communicating is not None:
            self.add_communication(self._clock() - self._communicating)
            self._communicating = None

    def add_communication(self, seconds: float) -> None:
        self._communication_seconds += seconds
        self._communication_told = True

    def begin_pause(self) -> None:
        self._paused = self._clock()

    def end_pause(self) -> None:
        if self._paused is not None:
            if self._opened is not None:
                self._pause_seconds += self._clock() - self._paused
            self._paused = None

    def end_step(self, samples: int | None = None) -> None:
        """Ends the step that is open. `samples`: how many it trained on, on this rank; None if not known."""
        if self._opened is None:
            return
        elapsed = self._clock() - self._opened - self._pause_seconds
        self._ended.append((elapsed, self._wait_seconds, self._communication_seconds, samples))
        self._opened = None
        self._wait_seconds = self._pause_seconds = self._communication_seconds = 0.0
        if len(self._ended) > MAX_NOTED:  # nobody reports
            self._fold()

    def cancel_step(self) -> None:
        """Forgets the step that is open: it did not come to its end."""
        self._opened = self._waiting = self._paused = self._communicating = None
        self._wait_seconds = self._pause_seconds = self._communication_seconds = 0.0

    def _fold(self) -> None:
        with self._lock:
            while self._ended:
                seconds, wait_seconds, communication_seconds, samples = self._ended.popleft()
                self._steps += 1
                self._total_step_seconds += seconds
                self._total_wait_seconds += wait_seconds
                self._total_communication_seconds += communication_seconds
                self._window_steps.add(seconds)
                self._window_waits.add(wait_seconds)
                if samples is not None:
                    self._samples_told = True
                    self._total_samples += samples
                    # The largest, not the last: the rest at the end of an epoch is not the job's batch size.
                    self._window_batch_size = max(self._window_batch_size or 0, samples)

    def totals(self) -> Totals:
        self._fold()
        with self._lock:
            return Totals(
                self._steps,
                self._total_step_seconds,
                self._total_wait_seconds if self._waits_told else None,
                self._total_communication_seconds if self._communication_told else None,
                self._total_samples if self._samples_told else None,
            )

    def take_window(self) -> Window:
        """The steps that ended since the last call."""
        self._fold()
        with self._lock:
            steps, waits, batch_size = self._window_steps, self._window_waits, self._window_batch_size
            self._new_window()
        return Window(steps.statistics(), waits.statistics() if self._waits_told else None, batch_size)
