"""What the allocation API works on."""

from __future__ import annotations

from dataclasses import dataclass

from gpu_advisor.allocation.allocator import Allocator
from gpu_advisor.allocation.machines import Machines
from gpu_advisor.allocation.monitoring import Monitor
from gpu_advisor.settings import AllocationSettings


@dataclass(frozen=True)
class AllocationService:
    """Where GPUs are given out."""

    allocator: Allocator
    machines: Machines
    monitor: Monitor
    settings: AllocationSettings
