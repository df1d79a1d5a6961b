"""The pods of a request: how many, with how many GPUs each, on nodes with which labels. Pure.

Kubernetes decides on which node and when they run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gpu_advisor.allocation.errors import NoInventoryError, UnsatisfiableRequestError
from gpu_advisor.allocation.gpu_request import GpuRequest
from gpu_advisor.allocation.kubernetes.cluster_nodes import ClusterNode


@dataclass(frozen=True, slots=True)
class NodeSelectorTerm:
    """Nodes whose `label` is one of `products`, and whose `memory_label` is above `above_mib`, if set."""

    label: str
    products: tuple[str, ...]
    memory_label: str = ""
    above_mib: int | None = None


@dataclass(frozen=True, slots=True)
class PodPlan:
    """`pods` with `gpus_per_pod` each. `terms` are ORed; empty: any node. `fits_now`: whether enough GPUs are free now.
    `reasons`: for each node, why it is excluded or how many GPUs are free. `gpu_type` is "" if nodes of several types
    match; `memory_gb` is the minimum of the matching nodes, None if one is unknown.
    """

    resource: str
    vendor: str
    pods: int
    gpus_per_pod: int
    terms: tuple[NodeSelectorTerm, ...]
    fits_now: bool
    reasons: tuple[str, ...]
    gpu_type: str = ""
    memory_gb: float | None = None


def build_pod_plan(request: GpuRequest, nodes: Sequence[ClusterNode]) -> PodPlan:
    """Raises NoInventoryError if the cluster has no GPUs, UnsatisfiableRequestError if no node can serve it."""
    if not nodes:
        raise NoInventoryError(
            "no node of the cluster offers GPUs: check that the vendor's device plug-in runs on the GPU nodes, and "
            "that its resource name is in the settings"
        )
    rejections = {node: _rejection_reason(request, node) for node in nodes}
    suitable_nodes = [node for node, why in rejections.items() if not why]
    reasons = tuple(
        f"{node.name}: {why or f'{node.free} of {node.allocatable} {node.resource} are free'}"
        for node, why in rejections.items()
    )
    if not suitable_nodes:
        raise UnsatisfiableRequestError(_likely_field(request), "no node of the cluster matches the request", reasons)
    # A Job uses one resource name: the one with the most free GPUs.
    resource = max(
        {node.resource for node in suitable_nodes}, key=lambda name: (_free_gpus(suitable_nodes, name), name)
    )
    suitable_nodes = [node for node in suitable_nodes if node.resource == resource]
    gpus_per_pod = _gpus_per_pod(request, suitable_nodes, reasons)
    pods = request.gpu_count // gpus_per_pod
    types = {node.gpu_type for node in suitable_nodes}
    sizes = [node.memory_gb for node in suitable_nodes if node.memory_gb is not None]
    return PodPlan(
        resource=resource,
        vendor=suitable_nodes[0].vendor,
        pods=pods,
        gpus_per_pod=gpus_per_pod,
        terms=_selector_terms(request, suitable_nodes),
        fits_now=sum(node.free // gpus_per_pod for node in suitable_nodes) >= pods,
        reasons=reasons,
        gpu_type=types.pop() if len(types) == 1 else "",
        memory_gb=min(sizes) if len(sizes) == len(suitable_nodes) else None,
    )


def _rejection_reason(request: GpuRequest, node: ClusterNode) -> str:
    """Why this node can never serve the request; "" if it can, also if it has no free GPU now."""
    if node.unavailable_reason:
        return node.unavailable_reason
    if request.vendor and node.vendor != request.vendor:
        return f"its GPUs are by {node.vendor}"
    if request.gpu_type and node.gpu_type != request.gpu_type:
        return f"its GPUs are {node.gpu_type}" if node.gpu_type else "no label has its GPU type"
    if request.memory_gb is not None and node.memory_gb is None:
        return "no label has the memory of its GPUs"
    if request.memory_gb is not None and node.memory_gb is not None and node.memory_gb < request.memory_gb:
        return f"its GPUs have {node.memory_gb:g} GB"
    return ""


def _likely_field(request: GpuRequest) -> str:
    """The field that most likely makes the request unsatisfiable."""
    return "memory_gb" if request.memory_gb is not None and not request.gpu_type else "gpu_type"


def _free_gpus(nodes: Sequence[ClusterNode], resource: str) -> int:
    return sum(node.free for node in nodes if node.resource == resource)


def _gpus_per_pod(request: GpuRequest, suitable_nodes: Sequence[ClusterNode], reasons: tuple[str, ...]) -> int:
    """All GPUs in one pod if a node has enough, else the largest equal parts that the nodes allow."""
    largest = max(node.allocatable for node in suitable_nodes)
    if request.gpu_count <= largest:
        return request.gpu_count
    if not request.distributed_training:
        raise UnsatisfiableRequestError(
            "gpu_count",
            f"{request.gpu_count} GPUs, but the largest node has {largest}: set distributed_training to use several",
            reasons,
        )
    parts = [size for size in range(1, largest + 1) if request.gpu_count % size == 0]
    for size in reversed(parts):
        if sum(node.allocatable // size for node in suitable_nodes) >= request.gpu_count // size:
            return size
    total = sum(node.allocatable for node in suitable_nodes)
    raise UnsatisfiableRequestError(
        "gpu_count", f"{request.gpu_count} GPUs, but matching nodes have {total} in total", reasons
    )


def _selector_terms(request: GpuRequest, suitable_nodes: Sequence[ClusterNode]) -> tuple[NodeSelectorTerm, ...]:
    """One term per product label, ORed in a node affinity."""
    if not request.gpu_type and request.memory_gb is None:
        return ()
    found = []
    for label in sorted({node.product_label for node in suitable_nodes if node.product_label}):
        labelled_nodes = [node for node in suitable_nodes if node.product_label == label]
        memory_labels = {node.memory_label for node in labelled_nodes}
        sizes = [node.memory_mib for node in labelled_nodes if node.memory_mib is not None]
        same_label = request.memory_gb is not None and len(memory_labels) == 1 and len(sizes) == len(labelled_nodes)
        found.append(
            NodeSelectorTerm(
                label,
                tuple(sorted({node.product for node in labelled_nodes})),
                memory_labels.pop() if same_label else "",
                min(sizes) - 1 if same_label else None,
            )
        )
    return tuple(found)
