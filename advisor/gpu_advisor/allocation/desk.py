"""What the allocation API works on."""

from __future__ import annotations

from dataclasses import dataclass

from gpu_advisor.allocation.allocator import Allocator
from gpu_advisor.allocation.inventory_monitor import InventoryMonitor
from gpu_advisor.allocation.inventory_provider import InventoryProvider
from gpu_advisor.settings import AllocationSettings


@dataclass(frozen=True)
class AllocationService:
    """Where GPUs are given out."""

    allocator: Allocator
    machines: InventoryProvider
    monitor: InventoryMonitor
    settings: AllocationSettings
