"""Timing of a training loop.

A step begins when the loop requests a batch (or calls `begin_step`) and ends when it requests the next one (or calls
`end_step`): it includes the wait for data. Time between steps and pauses (validation, a checkpoint) is not counted.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from gpu_advisor.training.running_statistics import RunningStatistics, Statistics

#: Finished steps that are not aggregated yet.
MAX_QUEUED_STEPS = 10_000


@dataclass(frozen=True, slots=True)
class StepTotals:
    """Since the job started. None: not recorded by the job."""

    steps: int
    step_seconds: float
    data_wait_seconds: float | None
    communication_seconds: float | None
    samples: int | None


@dataclass(frozen=True, slots=True)
class StepWindow:
    """Steps that ended within one reporting window."""

    step_seconds: Statistics | None
    data_wait_seconds: Statistics | None
    batch_size: int | None


class StepClock:
    """Call the timing methods from the training loop's thread; `totals` and `take_window` are thread-safe.

    The end of a step only queues it; readers aggregate: see value_statistics.ValueStatistics.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock`: monotonic, in seconds."""
        self._clock = clock
        self._lock = threading.Lock()
        self._step_start: float | None = None
        self._wait_start: float | None = None
        self._pause_start: float | None = None
        self._communication_start: float | None = None
        self._wait_seconds = 0.0
        self._pause_seconds = 0.0
        self._communication_seconds = 0.0
        self._waits_recorded = False
        self._communication_recorded = False
        self._samples_recorded = False
        self._finished_steps: deque[tuple[float, float, float, int | None]] = deque()
        self._steps = 0
        self._total_step_seconds = 0.0
        self._total_wait_seconds = 0.0
        self._total_communication_seconds = 0.0
        self._total_samples = 0
        self._reset_window()

    def _reset_window(self) -> None:
        self._window_steps = RunningStatistics()
        self._window_waits = RunningStatistics()
        self._window_batch_size: int | None = None

    @property
    def open(self) -> bool:
        return self._step_start is not None

    def begin_step(self) -> None:
        if self._step_start is None:
            self._step_start = self._clock()

    def begin_wait(self) -> None:
        now = self._clock()
        if self._step_start is None:
            self._step_start = now
        self._wait_start = now

    def end_wait(self) -> None:
        if self._wait_start is not None:
            self._wait_seconds += self._clock() - self._wait_start
            self._wait_start = None
            self._waits_recorded = True

    def cancel_wait(self) -> None:
        """Discard the current wait: the loader had no batch left."""
        if self._wait_start is not None and self._step_start is not None:
            self._pause_seconds += self._clock() - self._wait_start
        self._wait_start = None

    def begin_communication(self) -> None:
        self._communication_start = self._clock()

    def end_communication(self) -> None:
        if self._communication_start is not None:
            self.add_communication(self._clock() - self._communication_start)
            self._communication_start = None

    def add_communication(self, seconds: float) -> None:
        self._communication_seconds += seconds
        self._communication_recorded = True

    def begin_pause(self) -> None:
        self._pause_start = self._clock()

    def end_pause(self) -> None:
        if self._pause_start is not None:
            if self._step_start is not None:
                self._pause_seconds += self._clock() - self._pause_start
            self._pause_start = None

    def end_step(self, samples: int | None = None) -> None:
        """End the current step, if there is one. `samples`: trained on by this rank; None if unknown."""
        if self._step_start is None:
            return
        elapsed = self._clock() - self._step_start - self._pause_seconds
        self._finished_steps.append((elapsed, self._wait_seconds, self._communication_seconds, samples))
        self._step_start = None
        self._wait_seconds = self._pause_seconds = self._communication_seconds = 0.0
        if len(self._finished_steps) > MAX_QUEUED_STEPS:  # no reader
            self._aggregate_steps()

    def cancel_step(self) -> None:
        """Discard the current step."""
        self._step_start = self._wait_start = self._pause_start = self._communication_start = None
        self._wait_seconds = self._pause_seconds = self._communication_seconds = 0.0

    def _aggregate_steps(self) -> None:
        with self._lock:
            while self._finished_steps:
                seconds, wait_seconds, communication_seconds, samples = self._finished_steps.popleft()
                self._steps += 1
                self._total_step_seconds += seconds
                self._total_wait_seconds += wait_seconds
                self._total_communication_seconds += communication_seconds
                self._window_steps.add(seconds)
                self._window_waits.add(wait_seconds)
                if samples is not None:
                    self._samples_recorded = True
                    self._total_samples += samples
                    # The largest, not the last: the last batch of an epoch may be smaller.
                    self._window_batch_size = max(self._window_batch_size or 0, samples)

    def totals(self) -> StepTotals:
        self._aggregate_steps()
        with self._lock:
            return StepTotals(
                self._steps,
                self._total_step_seconds,
                self._total_wait_seconds if self._waits_recorded else None,
                self._total_communication_seconds if self._communication_recorded else None,
                self._total_samples if self._samples_recorded else None,
            )

    def take_window(self) -> StepWindow:
        """The steps that ended since the last call."""
        self._aggregate_steps()
        with self._lock:
            steps, waits, batch_size = self._window_steps, self._window_waits, self._window_batch_size
            self._reset_window()
        return StepWindow(steps.statistics(), waits.statistics() if self._waits_recorded else None, batch_size)
