"""The families of one collector, rendered when they are scraped."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

from gpu_exporter.exposition import Renderer, render
from gpu_exporter.host.base import HostCollector, ScrapeTimeCollector
from gpu_exporter.metrics import FamilySamples


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
