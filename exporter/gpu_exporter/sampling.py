"""When to read: every collector in its own thread at its own interval, and one page of prepared bytes.

A scrape never waits for a collector. A collector that hangs keeps its thread; from outside it is seen to be overdue,
its devices are published as down with reason `hung`, and everything else goes on.
"""

from __future__ import annotations

import logging
import platform
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from gpu_exporter import __version__, metrics
from gpu_exporter.devices.base import Driver, DriverUnavailable
from gpu_exporter.exposition import render
from gpu_exporter.host.base import HostCollector
from gpu_exporter.metrics import Samples, by_family
from gpu_exporter.snapshot import DeviceReading, DownReason, DriverState, device_samples

log = logging.getLogger(__name__)

#: A driver that is not there is looked for again after this time: it may be installed or loaded later.
ABSENT_RETRY_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Health:
    """How a collector fares. Times are seconds since 1970 for `last_success`, monotonic seconds for `busy_since`."""

    success: bool = False
    duration_seconds: float | None = None
    last_success: float | None = None
    busy_since: float | None = None

    def overdue(self, now: float, limit_seconds: float) -> bool:
        return self.busy_since is not None and now - self.busy_since > limit_seconds


class Task:
    """Runs one collector periodically in a daemon thread, which a hanging call cannot keep from exiting."""

    def __init__(
        self, name: str, run: Callable[[], float | None], interval_seconds: float, limit_seconds: float
    ) -> None:
        """`run` does one collection and may return how long to wait instead of the interval, in seconds."""
        self.name = name
        self.limit_seconds = limit_seconds
        self.health = Health()
        self._run = run
        self._interval = interval_seconds
        self._stop = threading.Event()
        self._last_error = ""

    def start(self) -> None:
        self.run_once = threading.Event()
        threading.Thread(target=self._loop, name=f"collect-{self.name}", daemon=True).start()

    def stop(self) -> None:
        self._stop.set()

    def overdue(self) -> bool:
        return self.health.overdue(time.monotonic(), self.limit_seconds)

    def _loop(self) -> None:
        while not self._stop.is_set():
            wait = self.collect_once() or self._interval
            self.run_once.set()
            self._stop.wait(wait - time.time() % wait)  # on the wall clock's grid, so that all nodes sample together

    def collect_once(self) -> float | None:
        before, begun = self.health, time.monotonic()
        self.health = Health(before.success, before.duration_seconds, before.last_success, begun)
        wait: float | None = None
        error = ""
        try:
            wait = self._run()
        except Exception as failure:  # noqa: BLE001 - the edge: whatever a collector raises, the others go on
            error = f"{type(failure).__name__}: {failure}"
        success = not error
        self.health = Health(success, time.monotonic() - begun, time.time() if success else before.last_success)
        if error and error != self._last_error:
            log.warning("collector %s failed: %s", self.name, error)
        self._last_error = error
        return wait


class DeviceBoard:
    """The latest readings of all drivers, and their page. One lock, held only to swap and to render."""

    def __init__(self, nodename: str) -> None:
        self._nodename = nodename
        self._readings: dict[str, tuple[DeviceReading, ...]] = {}
        self._states: dict[str, DriverState] = {}
        self._hung: frozenset[str] = frozenset()
        self._lock = threading.Lock()
        self._page = b""

    def put(self, driver: str, readings: tuple[DeviceReading, ...], state: DriverState) -> None:
        with self._lock:
            self._readings[driver] = readings
            self._states[driver] = state
            self._hung -= {driver}
            self._render()

    def page(self, hung: frozenset[str]) -> bytes:
        """`hung` are the drivers that are overdue now: what they last said is no longer true."""
        if hung != self._hung:
            with self._lock:
                self._hung = hung
                self._render()
        return self._page

    def _render(self) -> None:
        devices: list[DeviceReading] = []
        states: list[tuple[metrics.Family, tuple[str, ...], float]] = []
        for driver in sorted(self._states.keys() | self._hung):
            readings = self._readings.get(driver, ())
            hung = driver in self._hung
            devices += [r if r.down or not hung else r.gone(DownReason.HUNG) for r in readings]
            states.append(
                (metrics.DRIVER_INFO, (driver, (DriverState.HUNG if hung else self._states[driver]).value), 1)
            )
        self._page = render([*device_samples(devices, self._nodename), *by_family(sorted(states, key=lambda s: s[1]))])


def device_task(name: str, driver: Driver, board: DeviceBoard, interval_seconds: float, limit_seconds: float) -> Task:
    said: set[str] = set()
    last: tuple[DeviceReading, ...] = ()

    def run() -> float | None:
        nonlocal last
        try:
            readings = last = driver.read()
        except DriverUnavailable as why:
            if str(why) not in said:
                log.info("driver %s: %s", name, why)
                said.add(str(why))
            board.put(name, (), why.state)
            return ABSENT_RETRY_SECONDS
        except Exception:
            board.put(name, tuple(r if r.down else r.gone(DownReason.ERROR) for r in last), DriverState.FAILED)
            raise
        said.clear()
        board.put(name, readings, DriverState.OK)
        return None

    return Task(name, run, interval_seconds, limit_seconds)


class HostPage:
    """The prepared bytes of one host collector; empty after a failure, so that nothing stale is served."""

    def __init__(self, collector: HostCollector) -> None:
        self._collector = collector
        self.page = b""

    def run(self) -> None:
        try:
            self.page = render(self._collector.collect())
        except Exception:
            self.page = b""
            raise


class Sampler:
    """All tasks, and the page that they make together."""

    def __init__(
        self,
        board: DeviceBoard,
        device_tasks: Sequence[Task],
        host: Sequence[tuple[Task, HostPage]],
        extra: Iterable[Samples] = (),
    ) -> None:
        self._board = board
        self._device_tasks = tuple(device_tasks)
        self._host = tuple(host)
        build = Samples(metrics.BUILD_INFO, (((__version__, platform.python_version()), 1.0),))
        self._constant = render([build, *extra])

    @property
    def tasks(self) -> tuple[Task, ...]:
        return (*self._device_tasks, *(task for task, _ in self._host))

    def start(self, wait_seconds: float) -> None:
        """Start all, and give each the chance to have been read once before the first scrape."""
        for task in self.tasks:
            task.start()
        deadline = time.monotonic() + wait_seconds
        for task in self.tasks:
            task.run_once.wait(max(0.0, deadline - time.monotonic()))

    def stop(self) -> None:
        for task in self.tasks:
            task.stop()

    def page(self) -> bytes:
        hung = frozenset(task.name for task in self._device_tasks if task.overdue())
        host = b"".join(page.page for task, page in self._host if not task.overdue())
        return b"".join((self._board.page(hung), host, self._constant, render(self._health())))

    def _health(self) -> list[Samples]:
        rows: list[tuple[metrics.Family, tuple[str, ...], float]] = []
        for task in self.tasks:
            health, labels = task.health, (task.name,)
            rows.append((metrics.COLLECTOR_SUCCESS, labels, health.success and not task.overdue()))
            if health.duration_seconds is not None:
                rows.append((metrics.COLLECTOR_DURATION, labels, health.duration_seconds))
            if health.last_success is not None:
                rows.append((metrics.COLLECTOR_LAST_SUCCESS, labels, health.last_success))
        return by_family(rows)
