"""Scheduling: each collector runs in its own thread at its own interval and renders its part of one page.

A scrape never waits for a collector. A collector that hangs keeps its thread and becomes overdue: its GPUs are exported
as down with reason `hung`, and all other collectors continue.
"""

from __future__ import annotations

import logging
import platform
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from gpu_exporter import __version__, metrics
from gpu_exporter.devices.base import Driver, DriverUnavailable, SamplingDriver
from gpu_exporter.exposition import Renderer, render
from gpu_exporter.host.base import HostCollector, ScrapeTimeCollector
from gpu_exporter.metrics import FamilySamples, group_by_family
from gpu_exporter.snapshot import DeviceReading, DownReason, DriverState, device_samples

log = logging.getLogger(__name__)

#: Startup waits this long for the first readings, so that the first scrape is complete unless a collector hangs.
FIRST_READING_TIMEOUT_SECONDS = 3.0

#: Retry interval for an absent driver: it may be installed or loaded later.
ABSENT_RETRY_SECONDS = 30.0

#: How long a released driver stays released: time to replace its kernel module.
RELEASE_DURATION_SECONDS = 120.0
RELEASE_TIMEOUT_SECONDS = 10.0


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


#: Families computed from those of these devices.
DeriveFamilies = Callable[[Sequence[FamilySamples], Sequence[DeviceReading]], list[FamilySamples]]


class DeviceCache:
    """The latest readings of all drivers, and their page, rendered when it is scraped.

    The lock is held only to swap and to render.
    """

    def __init__(self, nodename: str) -> None:
        self._nodename = nodename
        self._derivations: list[DeriveFamilies] = []
        self._readings: dict[str, tuple[DeviceReading, ...]] = {}
        self._states: dict[str, DriverState] = {}
        self._hung: frozenset[str] = frozenset()
        self._lock = threading.Lock()
        self._renderer = Renderer()
        self._page: bytes | None = b""

    def derive(self, families: DeriveFamilies) -> None:
        """Add further families computed from the devices: the same under other names."""
        self._derivations.append(families)

    def update(self, driver: str, readings: tuple[DeviceReading, ...], state: DriverState) -> None:
        with self._lock:
            self._readings[driver] = readings
            self._states[driver] = state
            self._hung -= {driver}
            self._page = None

    def devices(self) -> tuple[DeviceReading, ...]:
        """The latest reading of each GPU, without waiting."""
        return tuple(device for _, readings in sorted(self._readings.items()) for device in readings)

    def page(self, hung: frozenset[str]) -> bytes:
        """The rendered page. `hung` are the drivers that are overdue now: their last readings are outdated."""
        with self._lock:
            if self._page is None or hung != self._hung:
                self._hung = hung
                self._page = self._render()
            return self._page

    def _render(self) -> bytes:
        devices: list[DeviceReading] = []
        states: list[tuple[metrics.MetricFamily, tuple[str, ...], float]] = []
        for driver in sorted(self._states.keys() | self._hung):
            readings = self._readings.get(driver, ())
            hung = driver in self._hung
            devices += [r if r.down or not hung else r.as_down(DownReason.HUNG) for r in readings]
            states.append(
                (metrics.DRIVER_INFO, (driver, (DriverState.HUNG if hung else self._states[driver]).value), 1)
            )
        samples = device_samples(devices, self._nodename)
        return self._renderer.render(
            [
                *samples,
                *(family for derive in self._derivations for family in derive(samples, devices)),
                *group_by_family(sorted(states, key=lambda s: s[1])),
            ]
        )


class DriverTask(CollectorTask):
    """Reads one driver into the cache. `release` unloads the driver's library for a while: while it is open, the kernel
    module cannot be replaced."""

    def __init__(
        self, name: str, driver: Driver, cache: DeviceCache, interval_seconds: float, timeout_seconds: float
    ) -> None:
        super().__init__(name, self._read, interval_seconds, timeout_seconds)
        self._driver = driver
        self._cache = cache
        self._last_readings: tuple[DeviceReading, ...] = ()
        self._last_message = ""
        self._released_until = 0.0
        self._released = threading.Event()

    def release(self, seconds: float) -> None:
        """Request release of the driver for `seconds`; see `wait_released`."""
        self._released.clear()
        self._released_until = time.monotonic() + seconds
        self._wake.set()

    def wait_released(self, seconds: float) -> bool:
        """Whether the driver was released within `seconds`. Its own thread does it, after the call in progress."""
        return self._released.wait(seconds)

    def _read(self) -> float | None:
        if time.monotonic() < self._released_until:
            if not self._released.is_set():
                self._driver.close()
                self._publish_down(DownReason.RELEASED, DriverState.RELEASED)
                self._released.set()
            return None
        try:
            self._last_readings = self._driver.read()
        except DriverUnavailable as unavailable:
            if str(unavailable) != self._last_message:
                log.info("driver %s: %s", self.name, unavailable)
                self._last_message = str(unavailable)
            self._cache.update(self.name, (), unavailable.state)
            return ABSENT_RETRY_SECONDS
        except Exception:
            self._publish_down(DownReason.ERROR, DriverState.FAILED)
            raise
        self._last_message = ""
        self._cache.update(self.name, self._last_readings, DriverState.OK)
        return None

    def _pause(self, seconds: float) -> None:
        """Sample a SamplingDriver until the next reading. A hanging call becomes overdue like any other."""
        end = time.monotonic() + seconds
        while isinstance(self._driver, SamplingDriver) and self.health.success and not self._wake.is_set():
            interval = self._driver.sampling_interval_seconds()
            left = end - time.monotonic()
            if interval is None or left <= interval:
                break
            self._wake.wait(interval)
            self.health = replace(self.health, busy_since=time.monotonic())
            try:
                self._driver.sample()
            except Exception:
                log.debug("driver %s could not be sampled; the next reading reports why", self.name, exc_info=True)
                break
            finally:
                self.health = replace(self.health, busy_since=None)
        super()._pause(max(0.0, end - time.monotonic()))

    def _publish_down(self, reason: DownReason, state: DriverState) -> None:
        self._cache.update(self.name, tuple(r if r.down else r.as_down(reason) for r in self._last_readings), state)


class RenderedPage(Protocol):
    """The page of one collector, and how to refresh it."""

    @property
    def page(self) -> bytes: ...

    def run(self) -> float | None: ...


class CollectorPage:
    """The families of one collector; none after a failure, so that nothing stale is served.

    Rendered when they are scraped: most readings are replaced by the next before anybody asks for them.
    """

    def __init__(self, collector: HostCollector, clock: Callable[[], float] = time.monotonic) -> None:
        self._collector = collector
        self._clock = clock
        self._is_scraped = True
        self._read_at = 0.0
        self._at_scrape = collector.collect_at_scrape if isinstance(collector, ScrapeTimeCollector) else None
        self._samples: tuple[FamilySamples, ...] = ()
        self._lock = threading.Lock()
        self._renderer = Renderer()
        self._page: bytes | None = b""

    @property
    def page(self) -> bytes:
        with self._lock:
            if self._page is None:
                self._page = self._renderer.render(self._samples)
            page = self._page
            self._is_scraped = True
        return page + render(self._at_scrape()) if self._at_scrape else page

    @property
    def samples(self) -> tuple[FamilySamples, ...]:
        """The last reading; empty after a failure."""
        return self._samples

    def is_outdated(self, max_age_seconds: float) -> bool:
        """Whether somebody scraped the last reading, or the next to scrape would find it older than this."""
        return self._is_scraped or self._clock() - self._read_at >= max_age_seconds

    def run(self) -> None:
        self._read_at = self._clock()
        try:
            samples = tuple(self._collector.collect())
        except Exception:
            self._replace(())
            raise
        self._replace(samples)

    def _replace(self, samples: tuple[FamilySamples, ...]) -> None:
        with self._lock:
            self._samples, self._page, self._is_scraped = samples, None, False


class Sampler:
    """All tasks, and the page that they render together."""

    def __init__(
        self,
        cache: DeviceCache,
        device_tasks: Sequence[DriverTask],
        pages: Sequence[tuple[CollectorTask, RenderedPage]],
        background_tasks: Sequence[CollectorTask] = (),
        static_samples: Iterable[FamilySamples] = (),
        host_collectors: Collection[str] = (),
    ) -> None:
        """`background_tasks` have no page of their own; `static_samples` never change.

        The health of `host_collectors` is also exposed under node_exporter's names.
        """
        self._cache = cache
        self._device_tasks = tuple(device_tasks)
        self._pages = tuple(pages)
        self._background_tasks = tuple(background_tasks)
        build = FamilySamples(metrics.BUILD_INFO, (((__version__, platform.python_version()), 1.0),))
        self._static_page = render([build, *static_samples])
        self._host_collectors = frozenset(host_collectors)
        self._unrendered: set[str] = set()
        self._health_lock = threading.Lock()
        self._health_renderer = Renderer()
        self._last_health: list[tuple[CollectorHealth, bool]] = []
        self._health_page = b""

    @property
    def tasks(self) -> tuple[CollectorTask, ...]:
        return (*self._device_tasks, *(task for task, _ in self._pages), *self._background_tasks)

    def start(self, wait_seconds: float) -> None:
        """Start all tasks, and wait up to `wait_seconds` for the first run of each."""
        for task in self.tasks:
            task.start()
        deadline = time.monotonic() + wait_seconds
        for task in self.tasks:
            task.first_run_done.wait(max(0.0, deadline - time.monotonic()))

    def stop(self) -> None:
        for task in self.tasks:
            task.stop()

    def page(self) -> bytes:
        """The whole page in the text format, without waiting for any collector."""
        hung = frozenset(task.name for task in self._device_tasks if task.is_overdue())
        devices = self._isolate(lambda: self._cache.page(hung), self._device_tasks)
        pages = [
            self._isolate(partial(getattr, page, "page"), (task,))
            for task, page in self._pages
            if not task.is_overdue()
        ]
        return b"".join((devices, *pages, self._static_page, self._render_health()))

    def _isolate(self, render_page: Callable[[], bytes], tasks: Iterable[CollectorTask]) -> bytes:
        """This part of the page; empty if it cannot be rendered, which is reported: the others are served."""
        try:
            page = render_page()
        except Exception:
            failed = {task.name for task in tasks}
            if not failed <= self._unrendered:
                log.exception("cannot render the metrics of %s", ", ".join(sorted(failed)))
                self._unrendered |= failed
            return b""
        if self._unrendered:
            self._unrendered -= {task.name for task in tasks}
        return page

    def release_drivers(self) -> None:
        """Release all drivers for RELEASE_DURATION_SECONDS. Returns once they are released, or after a timeout."""
        for task in self._device_tasks:
            task.release(RELEASE_DURATION_SECONDS)
        for task in self._device_tasks:
            if not task.wait_released(RELEASE_TIMEOUT_SECONDS):
                log.warning("driver %s was not released within %g s", task.name, RELEASE_TIMEOUT_SECONDS)

    def _render_health(self) -> bytes:
        """The page of the collectors' health, rendered again if any of them ran, began or became overdue."""
        current = [(task.health, task.is_overdue() or task.name in self._unrendered) for task in self.tasks]
        with self._health_lock:
            if current != self._last_health:
                self._last_health = current
                self._health_page = self._health_renderer.render(self._health(current))
            return self._health_page

    def _health(self, current: Sequence[tuple[CollectorHealth, bool]]) -> list[FamilySamples]:
        rows: list[tuple[metrics.MetricFamily, tuple[str, ...], float]] = []
        for task, (health, is_missing) in zip(self.tasks, current, strict=True):
            labels, success = (task.name,), float(health.success and not is_missing)
            is_host = task.name in self._host_collectors
            rows.append((metrics.COLLECTOR_SUCCESS, labels, success))
            if is_host:
                rows.append((metrics.NODE_COLLECTOR_SUCCESS, labels, success))
            if health.duration_seconds is not None:
                duration = round(health.duration_seconds, 6)
                rows.append((metrics.COLLECTOR_DURATION, labels, duration))
                if is_host:
                    rows.append((metrics.NODE_COLLECTOR_DURATION, labels, duration))
            if health.last_success is not None:
                rows.append((metrics.COLLECTOR_LAST_SUCCESS, labels, round(health.last_success, 3)))
        return group_by_family(rows)
