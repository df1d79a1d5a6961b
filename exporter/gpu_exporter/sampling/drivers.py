"""The drivers' readings: when each is read, and the latest of all of them as one page."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from gpu_exporter import metrics
from gpu_exporter.devices.base import Driver, DriverUnavailable, SamplingDriver
from gpu_exporter.exposition import Renderer
from gpu_exporter.metrics import FamilySamples, group_by_family
from gpu_exporter.sampling.tasks import CollectorTask
from gpu_exporter.snapshot import DeviceReading, DownReason, DriverState, device_samples

log = logging.getLogger(__name__)

#: Retry interval for an absent driver: it may be installed or loaded later.
ABSENT_RETRY_SECONDS = 30.0


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
