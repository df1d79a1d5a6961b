"""What counts as a change between two looks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gpu_advisor.allocation.gpu_request import GpuRequest
from gpu_advisor.allocation.inventory_monitor import InventorySnapshot, compare_snapshots
from gpu_advisor.allocation.model import Inventory
from gpu_advisor.evaluation.engine import decide
from gpu_advisor.settings import Settings
from gpu_advisor.state.view import SourceStatus, View

from tests.unit.advisor.builders import facts
from tests.unit.allocation.builders import AT, allocation_service, inventory, node


def look(at: float = AT, held: dict[str, str] | None = None, **of_gpu: Any) -> InventorySnapshot:
    """One node with one GPU of these values."""
    one = node("a", "T4", 16, 1)
    gpu = replace(one.gpus[0], **{"utilization_ratio": 0.5, "memory_used_ratio": 0.5, **of_gpu})
    return InventorySnapshot(inventory(replace(one, gpus=(gpu,))), held or {}, at)


CASES = {
    "nothing": (look(), []),
    "less than the threshold": (look(utilization_ratio=0.59), []),
    "utilization": (look(utilization_ratio=0.7), [("utilization", 0.5, 0.7)]),
    "memory, downwards": (look(memory_used_ratio=0.1), [("memory", 0.5, 0.1)]),
    "unknown from now on": (look(memory_used_ratio=None), [("memory", 0.5, None)]),
    "in use": (look(free=False), [("in_use", 0.0, 1.0)]),
    "leased": (look(held={"a/0": "x"}), [("leased", 0.0, 1.0)]),
    "gone": (InventorySnapshot(Inventory((), AT), {}, AT), [("present", 1.0, 0.0)]),
}


@pytest.mark.parametrize("name", CASES)
def test_changes(name: str) -> None:
    after, reported = CASES[name]
    assert [(each.what, each.before, each.after) for each in compare_snapshots(look(), after, 0.1)] == reported


def test_a_monitor_sees_leases_come(tmp_path: Path) -> None:
    view = View("c", SourceStatus("fake", "memory", True), decide(facts([]), Settings()))
    gpus = allocation_service(tmp_path, lambda: view)
    gpus.monitor.take_snapshot()
    gpus.allocator.allocate(GpuRequest(2, "T4"))
    gpus.monitor.take_snapshot()
    assert [(each.what, each.node_name) for each in gpus.monitor.changes] == [("leased", "small")] * 2
    gpus.allocator.close()
