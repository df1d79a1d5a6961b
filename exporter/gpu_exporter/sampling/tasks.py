"""One collector, run periodically: in a thread of its own, or in one that many quick ones share."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CollectorHealth:
    """Health of one collector. `last_success` is Unix time, `busy_since` monotonic seconds; None if not running."""

    success: bool = False
    duration_seconds: float | None = None
    last_success: float | None = None
    busy_since: float | None = None

    def is_overdue(self, now: float, timeout_seconds: float) -> bool:
        return self.busy_since is not None and now - self.busy_since > timeout_seconds


class CollectorTask:
    """Runs one collector periodically, in a daemon thread: a hanging call cannot block the exit of the process."""

    def __init__(
        self,
        name: str,
        run: Callable[[], float | None],
        interval_seconds: float,
        timeout_seconds: float,
        offset_seconds: float = 0.0,
        shared_thread: SharedThread | None = None,
        is_needed: Callable[[], bool] = lambda: True,
    ) -> None:
        """`run` collects once and may return seconds to wait instead of the interval.

        It runs `offset_seconds` after each full interval of the wall clock, in a thread of its own or a shared one,
        unless `is_needed` returns False.
        """
        self.name = name
        self.timeout_seconds = timeout_seconds
        self.health = CollectorHealth()
        self._run = run
        self._interval = interval_seconds
        self._offset = offset_seconds
        self._shared_thread = shared_thread
        self._is_needed = is_needed
        self._stopped = False
        self._wake = threading.Event()
        self._last_error = ""

    def start(self) -> None:
        self.first_run_done = threading.Event()
        if self._shared_thread:
            self._shared_thread.add(self)
        else:
            threading.Thread(target=self._loop, name=f"collect-{self.name}", daemon=True).start()

    def stop(self) -> None:
        self._stopped = True
        self._wake.set()
        if self._shared_thread:
            self._shared_thread.remove(self)

    def is_overdue(self) -> bool:
        """Whether a run takes too long: of this task, or of the one that its shared thread is busy with."""
        busy = (self._shared_thread and self._shared_thread.running) or self
        return busy.health.is_overdue(time.monotonic(), self.timeout_seconds)

    def run_once(self) -> float:
        """Collect once. Returns the seconds until the next run."""
        wait = (self.collect_once() if self._is_needed() else None) or self._interval
        self.first_run_done.set()
        # Aligned to the wall clock, so that all nodes sample at once.
        return wait - (time.time() - self._offset) % wait

    def _loop(self) -> None:
        while not self._stopped:
            self._wake.clear()
            self._pause(self.run_once())

    def _pause(self, seconds: float) -> None:
        self._wake.wait(seconds)

    def collect_once(self) -> float | None:
        before, started_at = self.health, time.monotonic()
        self.health = CollectorHealth(before.success, before.duration_seconds, before.last_success, started_at)
        wait: float | None = None
        error = ""
        try:
            wait = self._run()
        except Exception as exception:  # noqa: BLE001 - one failing collector must not stop the others
            error = f"{type(exception).__name__}: {exception}"
        success = not error
        self.health = CollectorHealth(
            success, time.monotonic() - started_at, time.time() if success else before.last_success
        )
        if error and error != self._last_error:
            log.warning("collector %s failed: %s", self.name, error)
        self._last_error = error
        return wait


class SharedThread:
    """One daemon thread for many quick collectors: a thread of its own costs each of them memory and a wake-up.

    If one of them hangs, all of them are overdue.
    """

    def __init__(self, name: str) -> None:
        self.running: CollectorTask | None = None
        self._name = name
        self._due: dict[CollectorTask, float] = {}  # monotonic seconds of the next run
        self._wake = threading.Condition()
        self._is_alive = False

    def add(self, task: CollectorTask) -> None:
        """Run the task now and periodically, until `remove`."""
        with self._wake:
            self._due[task] = 0.0
            self._wake.notify()
            if not self._is_alive:
                self._is_alive = True
                threading.Thread(target=self._loop, name=self._name, daemon=True).start()

    def remove(self, task: CollectorTask) -> None:
        """The thread ends with its last task."""
        with self._wake:
            self._due.pop(task, None)
            self._wake.notify()

    def _loop(self) -> None:
        while (task := self._next_task()) is not None:
            self.running = task
            seconds = task.run_once()
            self.running = None
            with self._wake:
                if task in self._due:
                    self._due[task] = time.monotonic() + seconds

    def _next_task(self) -> CollectorTask | None:
        """Wait until a task is due; None if there are none."""
        with self._wake:
            while self._due:
                task = min(self._due, key=self._due.__getitem__)
                seconds = self._due[task] - time.monotonic()
                if seconds <= 0:
                    return task
                self._wake.wait(seconds)
            self._is_alive = False
            return None
