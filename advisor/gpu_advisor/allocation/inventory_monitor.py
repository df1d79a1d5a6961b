"""The inventory monitor: takes snapshots at an interval, and records changes above a threshold."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from gpu_advisor.allocation.allocator import Allocator
from gpu_advisor.allocation.errors import AllocationError
from gpu_advisor.allocation.inventory_provider import InventoryProvider
from gpu_advisor.allocation.model import Inventory, InventoryGpu

log = logging.getLogger(__name__)
MAX_CHANGES = 500
ChangeKind = Literal["present", "utilization", "memory", "in_use", "leased"]


@dataclass(frozen=True, slots=True)
class InventoryChange:
    """A difference to the previous snapshot. Values are ratios, or 1 and 0 for true and false; None: unknown."""

    at: float
    node_name: str
    uuid: str
    what: ChangeKind
    before: float | None
    after: float | None


@dataclass(frozen=True, slots=True)
class InventorySnapshot:
    """Inventory and leases (GPU uuid -> allocation id) at one time."""

    inventory: Inventory
    lease_by_gpu: dict[str, str]
    at: float


def compare_snapshots(
    before: InventorySnapshot, after: InventorySnapshot, threshold: float
) -> Iterator[InventoryChange]:
    """Differences between two snapshots: ratios by at least `threshold` (0..1), other values if they differ. Pure."""
    former, now = _gpus_by_uuid(before.inventory), _gpus_by_uuid(after.inventory)
    for uuid in sorted(former.keys() | now.keys()):
        node_name, gpu = now.get(uuid) or former[uuid]
        if (uuid in former) != (uuid in now):
            yield InventoryChange(after.at, node_name, uuid, "present", float(uuid in former), float(uuid in now))
            continue
        old = former[uuid][1]
        compared: tuple[tuple[ChangeKind, float | None, float | None], ...] = (
            ("utilization", old.utilization_ratio, gpu.utilization_ratio),
            ("memory", old.memory_used_ratio, gpu.memory_used_ratio),
            ("in_use", float(not old.free), float(not gpu.free)),
            ("leased", float(uuid in before.lease_by_gpu), float(uuid in after.lease_by_gpu)),
        )
        for what, was, is_ in compared:
            if (was is None) != (is_ is None) or (was is not None and is_ is not None and abs(is_ - was) >= threshold):
                yield InventoryChange(after.at, node_name, uuid, what, was, is_)


def _gpus_by_uuid(inventory: Inventory) -> dict[str, tuple[str, InventoryGpu]]:
    return {gpu.uuid: (node.name, gpu) for node in inventory.nodes for gpu in node.gpus}


class InventoryMonitor:
    """Takes a snapshot every `interval_seconds` until stopped, and expires leases even without requests."""

    def __init__(
        self, allocator: Allocator, inventory: InventoryProvider, interval_seconds: float, threshold: float
    ) -> None:
        self.interval_seconds = interval_seconds
        self.threshold = threshold
        self.last_snapshot: InventorySnapshot | None = None
        self._changes: deque[InventoryChange] = deque(maxlen=MAX_CHANGES)
        self._allocator = allocator
        self._inventory = inventory
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="allocation-monitor", daemon=True)

    @property
    def changes(self) -> tuple[InventoryChange, ...]:
        """Newest first."""
        return tuple(reversed(self._changes))

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def take_snapshot(self) -> InventorySnapshot | None:
        """Take a snapshot and record the changes; None while no node is known."""
        self._inventory.refresh()
        inventory = self._inventory()
        if inventory is None:
            return None
        snapshot = InventorySnapshot(
            inventory, dict(self._allocator.snapshot().lease_by_gpu), self._allocator.leases.clock()
        )
        if self.last_snapshot is not None:
            for change in compare_snapshots(self.last_snapshot, snapshot, self.threshold):
                self._changes.append(change)
                log.debug("%s", change)
        self.last_snapshot = snapshot
        return snapshot

    def _loop(self) -> None:
        while not self._stop.wait(self.interval_seconds if self.last_snapshot else min(1.0, self.interval_seconds)):
            try:
                self._allocator.leases.execute(lambda _table, _now: None)  # expires leases
                self.take_snapshot()
            except AllocationError as error:
                log.warning("%s", error)
            except Exception:
                log.exception("inventory snapshot failed; retrying at the next interval")
