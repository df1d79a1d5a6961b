"""Machines as tables, and desks that give out their GPUs: what the tests of allocation are written with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gpu_advisor.allocation.allocator import Allocator, Terms
from gpu_advisor.allocation.desk import AllocationService
from gpu_advisor.allocation.leases import Leases
from gpu_advisor.allocation.machines import Machines
from gpu_advisor.allocation.model import Gpu, Inventory, Node
from gpu_advisor.allocation.monitoring import Monitor
from gpu_advisor.allocation.store import LeaseStore
from gpu_advisor.settings import AllocationSettings
from gpu_advisor.state.view import View

AT = 1_800_000_000.0

MACHINE_LIST = """
nodes:
  - {name: big, address: 10.0.0.1, gpus: [{type: A100-80GB, count: 8}]}
  - {name: second, gpus: [{type: A100-80GB, count: 8}]}
  - {name: small, gpus: [{type: T4, count: 4}, {type: V100-16GB, count: 2}]}
"""


def node(name: str, gpu_type: str, memory_gb: float | None, count: int, busy: int = 0) -> Node:
    """A node of equal GPUs, of which the first `busy` are in use."""
    return Node(
        name,
        tuple(
            Gpu(i, f"{name}/{i}", gpu_type, memory_gb, free=i >= busy, why_not="used by x" if i < busy else "")
            for i in range(count)
        ),
    )


def inventory(*nodes: Node) -> Inventory:
    return Inventory(nodes, AT)


def allocator(path: Path, machines: Inventory | None, clock: Callable[[], float] | None = None) -> Allocator:
    return Allocator(Leases(LeaseStore(path), clock), lambda: machines, Terms())


def desk(folder: Path, view: Callable[[], View], listed: str = MACHINE_LIST) -> AllocationService:
    """A desk over a file of machines. Its allocator is to be closed."""
    file = folder / "machines.yml"
    file.write_text(listed)
    settings = AllocationSettings()
    machines = Machines(view, settings.gpu_memory_specs, file)
    given = Allocator(Leases(LeaseStore(folder / "leases.db")), machines)
    return AllocationService(given, machines, Monitor(given, machines, 30, 0.1), settings)
