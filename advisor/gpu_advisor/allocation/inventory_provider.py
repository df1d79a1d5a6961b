"""Which machines there are: from a file that is read again when it changes, from the signals, or from both."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from gpu_advisor.allocation import inventory_file, observed_inventory
from gpu_advisor.allocation.model import Inventory
from gpu_advisor.settings.loader import ConfigError
from gpu_advisor.state.view import View

log = logging.getLogger(__name__)


class InventoryProvider:
    """The inventory of the moment. Raises ConfigError at the start for a file that cannot be used; a file that is
    spoilt later is said in `last_error`, and the last good one stays."""

    def __init__(
        self,
        view: Callable[[], View],
        specs: Mapping[str, float],
        file: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._view = view
        self._specs = specs
        self._file = file
        self._clock = clock
        self._lock = threading.Lock()
        self.last_error = ""
        self._file_inventory: Inventory | None = None
        self._stamp: tuple[int, int] | None = None
        self._cached: tuple[object, bool, Inventory | None, Inventory | None] | None = None
        if file is not None:
            self._stamp, self._file_inventory = _stamp(file), inventory_file.read_inventory(file, clock(), specs)

    def __call__(self) -> Inventory | None:
        """None before the first evaluation, also with a file: who uses the listed GPUs is not known yet.

        Made once for each evaluation, not for each request.
        """
        view, listed = self._view(), self._file_inventory
        if view.evaluation is None:
            return None
        with self._lock:
            last = self._cached
            if last and last[0] is view.evaluation and last[1] == view.source.up and last[2] is listed:
                return last[3]
        seen = observed_inventory.inventory_from_facts(view.evaluation.facts, not view.source.up, self._specs)
        now = seen if listed is None else inventory_file.overlay_signals(listed, seen)
        with self._lock:
            self._cached = (view.evaluation, view.source.up, listed, now)
        return now

    def refresh(self) -> None:
        """Read the file again if it has changed."""
        if self._file is None:
            return
        try:
            stamp = _stamp(self._file)
            if stamp == self._stamp:
                return
            self._stamp, self._file_inventory = (
                stamp,
                inventory_file.read_inventory(self._file, self._clock(), self._specs),
            )
            self.last_error = ""
            log.info("%s was read again", self._file)
        except ConfigError as error:
            if str(error) != self.last_error:
                log.warning("%s; the last good list stays", error)
            self.last_error = str(error)


def _stamp(file: Path) -> tuple[int, int]:
    try:
        found = file.stat()
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}; give the path of a readable YAML file") from error
    return found.st_mtime_ns, found.st_size
