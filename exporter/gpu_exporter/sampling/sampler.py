"""All tasks, and the page that they render together."""

from __future__ import annotations

import logging
import platform
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial

from gpu_exporter import __version__, metrics
from gpu_exporter.exposition import Renderer, render
from gpu_exporter.metrics import FamilySamples, group_by_family
from gpu_exporter.sampling.drivers import DeviceCache, DriverTask
from gpu_exporter.sampling.pages import RenderedPage
from gpu_exporter.sampling.tasks import CollectorHealth, CollectorTask

log = logging.getLogger(__name__)

#: Startup waits this long for the first readings, so that the first scrape is complete unless a collector hangs.
FIRST_READING_TIMEOUT_SECONDS = 3.0

#: How long a released driver stays released: time to replace its kernel module.
RELEASE_DURATION_SECONDS = 120.0
RELEASE_TIMEOUT_SECONDS = 10.0


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
