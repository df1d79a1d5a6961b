"""The thread that closes a monitor's windows, so that neither a slow disk nor a slow driver holds up the training."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Protocol

from gpu_advisor.training.figures import Figures, GpuFigures, HostFigures

STOP_WITHIN_SECONDS = 5.0

log = logging.getLogger(__name__)


class _Reads(Protocol):
    def read(self) -> Figures: ...


class Reporter:
    """Calls `close_window` with the figures of the machine every `interval_seconds`, from start to stop."""

    def __init__(
        self, interval_seconds: float, close_window: Callable[[Mapping[str, float]], None], figures: bool
    ) -> None:
        self._interval_seconds = interval_seconds
        self._close_window = close_window
        self._figures = figures
        self._readers: list[_Reads] = [HostFigures()] if figures else []
        self._watched = ""
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def started(self) -> bool:
        return self._thread is not None

    def start(self) -> bool:
        """Whether it was this call that started it."""
        if self._thread is not None:
            return False
        self._thread = threading.Thread(target=self._run, name="training-monitor", daemon=True)
        self._thread.start()
        return True

    def stop(self) -> None:
        """Waits for a report under way, but not for one that hangs on a disk or a driver."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(STOP_WITHIN_SECONDS)

    def watch_gpu(self, uuid: str) -> None:
        """From the next window on."""
        self._watched = uuid

    def _run(self) -> None:
        watched = ""
        while not self._ended.wait(self._interval_seconds):
            if self._figures and self._watched != watched:
                watched = self._watched
                self._readers.append(GpuFigures(watched))
            figures: Figures = {}
            for reader in self._readers:
                figures.update(reader.read())
            self._close_window(figures)
