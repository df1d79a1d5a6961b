"""What changes on the machines: a look at an interval, and a note of every change that is large enough."""

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
from gpu_advisor.allocation.model import Gpu, Inventory

log = logging.getLogger(__name__)
MAX_CHANGES = 500
ChangeKind = Literal["present", "utilization", "memory", "in_use", "leased"]


@dataclass(frozen=True, slots=True)
class Change:
    """What was otherwise at the last look. Values are ratios, or 1 and 0 for yes and no; None: not known."""

    at: float
    node_name: str
    uuid: str
    what: ChangeKind
    before: float | None
    after: float | None


@dataclass(frozen=True, slots=True)
class InventorySnapshot:
    """The machines and who held which GPU (uuid -> allocation's id) at one moment."""

    inventory: Inventory
    held: dict[str, str]
    at: float


def changes(before: InventorySnapshot, after: InventorySnapshot, threshold: float) -> Iterator[Change]:
    """What differs between two looks: ratios by at least `threshold` (0..1), all else at all. Pure."""
    former, now = _gpus_by_uuid(before.inventory), _gpus_by_uuid(after.inventory)
    for uuid in sorted(former.keys() | now.keys()):
        node_name, gpu = now.get(uuid) or former[uuid]
        if (uuid in former) != (uuid in now):
            yield Change(after.at, node_name, uuid, "present", float(uuid in former), float(uuid in now))
            continue
        old = former[uuid][1]
        compared: tuple[tuple[ChangeKind, float | None, float | None], ...] = (
            ("utilization", old.utilization_ratio, gpu.utilization_ratio),
            ("memory", old.memory_used_ratio, gpu.memory_used_ratio),
            ("in_use", float(not old.free), float(not gpu.free)),
            ("leased", float(uuid in before.held), float(uuid in after.held)),
        )
        for what, was, is_ in compared:
            if (was is None) != (is_ is None) or (was is not None and is_ is not None and abs(is_ - was) >= threshold):
                yield Change(after.at, node_name, uuid, what, was, is_)


def _gpus_by_uuid(inventory: Inventory) -> dict[str, tuple[str, Gpu]]:
    return {gpu.uuid: (node.name, gpu) for node in inventory.nodes for gpu in node.gpus}


class InventoryMonitor:
    """Looks every `interval_seconds` until stopped; also has leases that are over written off, with nobody asking."""

    def __init__(
        self, allocator: Allocator, machines: InventoryProvider, interval_seconds: float, threshold: float
    ) -> None:
        self.interval_seconds = interval_seconds
        self.threshold = threshold
        self.last: InventorySnapshot | None = None
        self._changes: deque[Change] = deque(maxlen=MAX_CHANGES)
        self._allocator = allocator
        self._machines = machines
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="allocation-monitor", daemon=True)

    @property
    def changes(self) -> tuple[Change, ...]:
        """The newest first."""
        return tuple(reversed(self._changes))

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def look(self) -> InventorySnapshot | None:
        """Look now; None while no machine is known."""
        self._machines.refresh()
        inventory = self._machines()
        if inventory is None:
            return None
        look = InventorySnapshot(inventory, dict(self._allocator.snapshot().held), self._allocator.leases.clock())
        if self.last is not None:
            for change in changes(self.last, look, self.threshold):
                self._changes.append(change)
                log.debug("%s", change)
        self.last = look
        return look

    def _loop(self) -> None:
        while not self._stop.wait(min(1.0, self.interval_seconds) if self.last is None else self.interval_seconds):
            try:
                self._allocator.leases.decide(lambda _book, _now: None)  # expires what is over
                self.look()
            except AllocationError as error:
                log.warning("%s", error)
            except Exception:
                log.exception("the look at the machines failed; the next one tries again")
