"""The current inventory: from a file that is reloaded when it changes, from the signals, or from both."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from gpu_advisor.allocation import inventory_file, observed_inventory
from gpu_advisor.allocation.model import Inventory
from gpu_advisor.evaluation.engine import Evaluation
from gpu_advisor.settings.loader import ConfigError
from gpu_advisor.state.view import View

log = logging.getLogger(__name__)


class InventoryProvider:
    """Returns the current inventory when called. The constructor raises ConfigError for an invalid file; if it becomes
    invalid later, `last_error` says why and the last valid contents stay in use."""

    def __init__(self, view: Callable[[], View], specs: Mapping[str, float], file: Path | None = None) -> None:
        self._view = view
        self._specs = specs
        self._file = file
        self._lock = threading.Lock()
        self.last_error = ""
        self._file_inventory: Inventory | None = None
        self._loaded_stamp: tuple[int, int] | None = None
        self._cached: tuple[Evaluation, bool, Inventory | None, Inventory | None] | None = None
        if file is not None:
            self._loaded_stamp = _file_stamp(file)
            self._file_inventory = inventory_file.read_inventory(file, time.time(), specs)

    def __call__(self) -> Inventory | None:
        """None before the first evaluation, also with a file: until then it is unknown which GPUs are in use.

        Built once per evaluation, not per request.
        """
        view, listed = self._view(), self._file_inventory
        if view.evaluation is None:
            return None
        with self._lock:
            last = self._cached
            if last and last[0] is view.evaluation and last[1] == view.stale and last[2] is listed:
                return last[3]
        observed = observed_inventory.inventory_from_facts(view.evaluation.facts, view.stale, self._specs)
        inventory = observed if listed is None else inventory_file.overlay_signals(listed, observed)
        with self._lock:
            self._cached = (view.evaluation, view.stale, listed, inventory)
        return inventory

    def refresh(self) -> None:
        """Reload the file if it has changed."""
        if self._file is None:
            return
        try:
            stamp = _file_stamp(self._file)
            if stamp == self._loaded_stamp:
                return
            self._file_inventory = inventory_file.read_inventory(self._file, time.time(), self._specs)
            self._loaded_stamp = stamp
            self.last_error = ""
            log.info("reloaded %s", self._file)
        except ConfigError as error:
            if str(error) != self.last_error:
                log.warning("%s; the last valid inventory stays in use", error)
            self.last_error = str(error)


def _file_stamp(file: Path) -> tuple[int, int]:
    try:
        status = file.stat()
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}; give the path of a readable YAML file") from error
    return status.st_mtime_ns, status.st_size
