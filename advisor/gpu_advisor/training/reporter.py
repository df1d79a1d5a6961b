"""The thread that closes a monitor's windows, so that a slow disk or driver does not slow down training."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Protocol

from gpu_advisor.training.system_metrics import GpuSampler, HostSampler, MetricValues

STOP_TIMEOUT_SECONDS = 5.0

log = logging.getLogger(__name__)


class _MetricReader(Protocol):
    def read(self) -> MetricValues: ...


class WindowReporter:
    """Calls `close_window` with host and GPU metrics every `interval_seconds`, from start to stop."""

    def __init__(
        self, interval_seconds: float, close_window: Callable[[Mapping[str, float]], None], figures: bool
    ) -> None:
        self._interval_seconds = interval_seconds
        self._close_window = close_window
        self._figures = figures
        self._readers: list[_MetricReader] = [HostSampler()] if figures else []
        self._gpu_uuid = ""
        self._stop_event = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def started(self) -> bool:
        return self._thread is not None

    def start(self) -> bool:
        """Start the thread. False if it was already started."""
        if self._thread is not None:
            return False
        self._thread = threading.Thread(target=self._run, name="training-monitor", daemon=True)
        self._thread.start()
        return True

    def stop(self) -> None:
        """Wait for a report in progress, at most STOP_TIMEOUT_SECONDS: it may hang on a disk or a driver."""
        self._stop_event.set()
        if self._thread is not None:
            self._thread.join(STOP_TIMEOUT_SECONDS)

    def watch_gpu(self, uuid: str) -> None:
        """Record this GPU's metrics from the next window on."""
        self._gpu_uuid = uuid

    def _run(self) -> None:
        current_uuid = ""
        while not self._stop_event.wait(self._interval_seconds):
            if self._figures and self._gpu_uuid != current_uuid:
                current_uuid = self._gpu_uuid
                self._readers.append(GpuSampler(current_uuid))
            figures: MetricValues = {}
            for reader in self._readers:
                figures.update(reader.read())
            self._close_window(figures)
