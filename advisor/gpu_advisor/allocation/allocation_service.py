"""The parts behind the allocation API."""

from __future__ import annotations

from dataclasses import dataclass

from gpu_advisor.allocation.allocator import Allocator
from gpu_advisor.allocation.inventory_monitor import InventoryMonitor
from gpu_advisor.allocation.inventory_provider import InventoryProvider
from gpu_advisor.settings import AllocationSettings


@dataclass(frozen=True)
class AllocationService:
    """Allocator, inventory and monitor of a running advisor."""

    allocator: Allocator
    inventory: InventoryProvider
    monitor: InventoryMonitor
    settings: AllocationSettings
