"""Builders of the allocation tests: inventories as tables, allocators and services."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gpu_advisor.allocation.allocation_service import AllocationService
from gpu_advisor.allocation.allocator import Allocator, LeaseLimits
from gpu_advisor.allocation.inventory_monitor import InventoryMonitor
from gpu_advisor.allocation.inventory_provider import InventoryProvider
from gpu_advisor.allocation.lease_manager import LeaseManager
from gpu_advisor.allocation.lease_store import LeaseStore
from gpu_advisor.allocation.model import Inventory, InventoryGpu, InventoryNode
from gpu_advisor.settings import AllocationSettings
from gpu_advisor.state.view import View

AT = 1_800_000_000.0

MACHINE_LIST = """
nodes:
  - {name: big, address: 10.0.0.1, gpus: [{type: A100-80GB, count: 8}]}
  - {name: second, gpus: [{type: A100-80GB, count: 8}]}
  - {name: small, gpus: [{type: T4, count: 4}, {type: V100-16GB, count: 2}]}
"""


def node(name: str, gpu_type: str, memory_gb: float | None, count: int, busy: int = 0) -> InventoryNode:
    """A node of equal GPUs, of which the first `busy` are in use."""
    return InventoryNode(
        name,
        tuple(
            InventoryGpu(
                i,
                f"{name}/{i}",
                gpu_type,
                memory_gb,
                free=i >= busy,
                unavailable_reason="used by x" if i < busy else "",
            )
            for i in range(count)
        ),
    )


def inventory(*nodes: InventoryNode) -> Inventory:
    return Inventory(nodes, AT)


def allocator(path: Path, machines: Inventory | None, clock: Callable[[], float] | None = None) -> Allocator:
    return Allocator(LeaseManager(LeaseStore(path), clock), lambda: machines, LeaseLimits())


def allocation_service(folder: Path, view: Callable[[], View], listed: str = MACHINE_LIST) -> AllocationService:
    """An allocation service over a file of machines. Close its allocator."""
    file = folder / "machines.yml"
    file.write_text(listed)
    settings = AllocationSettings()
    machines = InventoryProvider(view, settings.gpu_memory_specs, file)
    leases = Allocator(LeaseManager(LeaseStore(folder / "leases.db")), machines)
    return AllocationService(leases, machines, InventoryMonitor(leases, machines, 30, 0.1), settings)
