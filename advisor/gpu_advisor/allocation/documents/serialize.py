"""Inventory and allocations as the documents of the API."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timezone

from gpu_advisor.allocation.allocator import ValidationResult
from gpu_advisor.allocation.documents import schema
from gpu_advisor.allocation.gpu_request import GpuRequest
from gpu_advisor.allocation.inventory_monitor import InventoryChange, InventoryMonitor
from gpu_advisor.allocation.model import Allocation, GpuKind, Inventory, InventoryGpu, NodeAllocation, NodeGpuGroup

#: Vendor -> its resource name in Kubernetes.
ResourceNameOf = Callable[[str], str]
LeaseByGpu = Mapping[str, str]


def format_rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def inventory_header(inventory: Inventory, simulated: bool) -> schema.InventoryHeader:
    return {
        "total_nodes": len(inventory.nodes),
        "timestamp": format_rfc3339(inventory.at),
        "stale": inventory.stale,
        "simulated": simulated,
    }


def status(
    inventory: Inventory, lease_by_gpu: LeaseByGpu, simulated: bool, resource: ResourceNameOf
) -> schema.GpuStatus:
    rows: list[schema.AvailableNode] = [
        {
            "node_name": row["node_name"],
            "gpu_type": row["gpu_type"],
            "available_gpus": row["available_gpus"],
            "memory_per_gpu": row["memory_per_gpu"],
            "utilization": row["utilization"],
        }
        for row in nodes(inventory, lease_by_gpu, resource)
        if row["available_gpus"]
    ]
    return {**inventory_header(inventory, simulated), "utilization": utilization(inventory), "available_nodes": rows}


def utilization(inventory: Inventory) -> schema.Utilization:
    """Means over the GPUs that report; null if none does."""
    gpus = [gpu for node in inventory.nodes for gpu in node.gpus]
    return {
        "gpu_utilization": _mean(gpu.utilization_ratio for gpu in gpus),
        "gpu_memory_usage": _mean(gpu.memory_used_ratio for gpu in gpus),
    }


def nodes(
    inventory: Inventory,
    lease_by_gpu: LeaseByGpu,
    resource: ResourceNameOf,
    fits: Callable[[GpuKind], bool] = lambda _: True,
) -> list[schema.NodeGpus]:
    """One row per node, type and size."""
    return [_row(group, inventory, lease_by_gpu, resource) for group in inventory.groups if fits(group.kind)]


def _row(
    group: NodeGpuGroup, inventory: Inventory, lease_by_gpu: LeaseByGpu, resource: ResourceNameOf
) -> schema.NodeGpus:
    states = [_state(gpu, inventory, lease_by_gpu) for gpu in group.gpus]
    return {
        "node_name": group.node.name,
        "gpu_type": group.kind.gpu_type,
        "available_gpus": sum(each["available"] for each in states),
        "memory_per_gpu": group.kind.memory_gb,
        "utilization": _mean(gpu.utilization_ratio for gpu in group.gpus),
        "total_gpus": len(group.gpus),
        "vendor": group.kind.vendor,
        "resource_name": resource(group.kind.vendor),
        "gpus": states,
    }


def _state(gpu: InventoryGpu, inventory: Inventory, lease_by_gpu: LeaseByGpu) -> schema.GpuState:
    lease = lease_by_gpu.get(gpu.uuid)
    why_not = f"leased to {lease}" if lease else gpu.unavailable_reason
    if not why_not and inventory.stale:
        why_not = "not known to be free: the data source does not respond"
    return {
        "index": gpu.index,
        "uuid": gpu.uuid,
        "available": gpu.free and not why_not,
        "why_not": why_not,
        "allocation_id": lease,
        "utilization": gpu.utilization_ratio,
        "memory_usage": gpu.memory_used_ratio,
    }


def allocation_document(allocation: Allocation, now: float, resource: ResourceNameOf) -> schema.AllocationDocument:
    return {
        "id": allocation.id,
        "client_token": allocation.client_token,
        "nodes": shares(allocation.shares),
        "gpu_count": allocation.gpu_count,
        "gpu_type": allocation.gpu_type,
        "vendor": allocation.vendor,
        "resource_name": "" if allocation.on_cpu else resource(allocation.vendor),
        "memory_per_gpu": allocation.memory_per_gpu,
        "on_cpu": allocation.on_cpu,
        "made": format_rfc3339(allocation.made),
        "expires": format_rfc3339(allocation.expires),
        "expires_in_seconds": round(max(0.0, allocation.expires - now), 3),
        "request": request(allocation.request),
        "reasons": list(allocation.reasons),
    }


def allocate_answer(allocation: Allocation, now: float, resource: ResourceNameOf) -> schema.AllocateAnswer:
    return {
        **allocation_document(allocation, now, resource),
        "success": True,
        "node_name": next(iter(allocation.node_names), ""),
        "gpu_config": request(allocation.request),
    }


def shares(of: Iterable[NodeAllocation]) -> list[schema.ShareOfNode]:
    return [
        {
            "node_name": each.node_name,
            "gpu_indices": list(each.indices),
            "gpu_uuids": list(each.uuids),
            "address": each.address,
        }
        for each in of
    ]


def request(of: GpuRequest) -> schema.RequestFields:
    return {
        "gpu_count": of.gpu_count,
        "gpu_type": of.gpu_type,
        "vendor": of.vendor,
        "memory_gb": of.memory_gb,
        "distributed_training": of.distributed_training,
        "mixed_precision": of.mixed_precision,
        "gpu_memory_fraction": of.gpu_memory_fraction,
        "cpu_fallback": of.cpu_fallback,
    }


def validation_document(of: GpuRequest, result: ValidationResult) -> schema.ValidationDocument:
    return {
        "valid": result.valid,
        "available_now": result.available_now,
        "message": result.message,
        "field": result.field,
        "request": request(of),
        "nodes": shares(result.placement.shares if result.placement else ()),
        "reasons": list(result.reasons),
    }


def monitoring(
    inventory: Inventory,
    lease_by_gpu: LeaseByGpu,
    allocations: int,
    monitor: InventoryMonitor,
    simulated: bool,
    resource: ResourceNameOf,
) -> schema.GpuMonitoring:
    rows = nodes(inventory, lease_by_gpu, resource)
    return {
        **inventory_header(inventory, simulated),
        "update_interval_seconds": monitor.interval_seconds,
        "change_threshold": monitor.threshold,
        "utilization": utilization(inventory),
        "total_gpus": sum(row["total_gpus"] for row in rows),
        "available_gpus": sum(row["available_gpus"] for row in rows),
        "leased_gpus": len(lease_by_gpu),
        "allocations": allocations,
        "nodes": rows,
        "changes": [_change(each) for each in monitor.changes],
    }


def _change(of: InventoryChange) -> schema.Change:
    return {
        "at": format_rfc3339(of.at),
        "node_name": of.node_name,
        "uuid": of.uuid,
        "what": of.what,
        "before": of.before,
        "after": of.after,
    }


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(sum(known) / len(known), 4) if known else None
