"""How a request becomes pods: how many, with how many GPUs each, on nodes with which labels. Pure.

Which node it is in the end, and when, Kubernetes decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gpu_advisor.allocation.errors import NoInventoryError, UnsatisfiableRequestError
from gpu_advisor.allocation.gpu_request import GpuRequest
from gpu_advisor.allocation.kubernetes.cluster_nodes import ClusterNode


@dataclass(frozen=True, slots=True)
class NodeSelectorTerm:
    """Nodes whose `label` has one of `products`; with more memory than `above_mib` by `memory_label`, where that is
    asked for."""

    label: str
    products: tuple[str, ...]
    memory_label: str = ""
    above_mib: int | None = None


@dataclass(frozen=True, slots=True)
class PodPlan:
    """`pods` of `gpus_per_pod`. `terms` are alternatives; none: any node. `room` is whether there is room for all at
    this moment; `reasons` says of each node what keeps it out or how many it has free. `gpu_type` is "" where nodes of
    several types suit, and `memory_gb` the least that a pod may meet, None where a node does not tell.
    """

    resource: str
    vendor: str
    pods: int
    gpus_per_pod: int
    terms: tuple[NodeSelectorTerm, ...]
    room: bool
    reasons: tuple[str, ...]
    gpu_type: str = ""
    memory_gb: float | None = None


def fit(request: GpuRequest, nodes: Sequence[ClusterNode]) -> PodPlan:
    """Raises NoInventoryError without any GPU in the cluster, UnsatisfiableRequestError where no node could ever serve it."""
    if not nodes:
        raise NoInventoryError(
            "no node of the cluster offers GPUs: see that the vendor's device plug-in runs on the GPU nodes, and that "
            "its resource name is in the settings"
        )
    rejections = {node: _rejection_reason(request, node) for node in nodes}
    suitable_nodes = [node for node, why in rejections.items() if not why]
    reasons = tuple(
        f"{node.name}: {why or f'{node.free} of {node.allocatable} {node.resource} are free'}"
        for node, why in rejections.items()
    )
    if not suitable_nodes:
        raise UnsatisfiableRequestError(_likely_field(request), "no node of the cluster has what is asked for", reasons)
    # One kind of resource to a Job: that with most room.
    resource = max(
        {node.resource for node in suitable_nodes}, key=lambda name: (_free_gpus(suitable_nodes, name), name)
    )
    suitable_nodes = [node for node in suitable_nodes if node.resource == resource]
    each = _gpus_per_pod(request, suitable_nodes, reasons)
    pods = request.gpu_count // each
    types, sizes = (
        {node.gpu_type for node in suitable_nodes},
        [node.memory_gb for node in suitable_nodes if node.memory_gb is not None],
    )
    return PodPlan(
        resource=resource,
        vendor=suitable_nodes[0].vendor,
        pods=pods,
        gpus_per_pod=each,
        terms=_selector_terms(request, suitable_nodes),
        room=sum(node.free // each for node in suitable_nodes) >= pods,
        reasons=reasons,
        gpu_type=types.pop() if len(types) == 1 else "",
        memory_gb=min(sizes) if len(sizes) == len(suitable_nodes) else None,
    )


def _rejection_reason(request: GpuRequest, node: ClusterNode) -> str:
    """What keeps this node out for good, "" if nothing does. That it is full is no such reason."""
    if node.why_not:
        return node.why_not
    if request.vendor and node.vendor != request.vendor:
        return f"its GPUs are of {node.vendor}"
    if request.gpu_type and node.gpu_type != request.gpu_type:
        return f"its GPUs are {node.gpu_type}" if node.gpu_type else "no label tells its type of GPU"
    if request.memory_gb is not None and node.memory_gb is None:
        return "no label tells the memory of its GPUs"
    if request.memory_gb is not None and node.memory_gb is not None and node.memory_gb < request.memory_gb:
        return f"its GPUs have {node.memory_gb:g} GB"
    return ""


def _likely_field(request: GpuRequest) -> str:
    """The field that is the most likely cause."""
    return "memory_gb" if request.memory_gb is not None and not request.gpu_type else "gpu_type"


def _free_gpus(nodes: Sequence[ClusterNode], resource: str) -> int:
    return sum(node.free for node in nodes if node.resource == resource)


def _gpus_per_pod(request: GpuRequest, suitable_nodes: Sequence[ClusterNode], reasons: tuple[str, ...]) -> int:
    """All on one node where one has so many, else equal parts, as large as the nodes allow."""
    largest = max(node.allocatable for node in suitable_nodes)
    if request.gpu_count <= largest:
        return request.gpu_count
    if not request.distributed_training:
        raise UnsatisfiableRequestError(
            "gpu_count",
            f"{request.gpu_count} GPUs, but no node has more than {largest}: set distributed_training to use several",
            reasons,
        )
    parts = [size for size in range(1, largest + 1) if request.gpu_count % size == 0]
    for size in reversed(parts):
        if sum(node.allocatable // size for node in suitable_nodes) >= request.gpu_count // size:
            return size
    total = sum(node.allocatable for node in suitable_nodes)
    raise UnsatisfiableRequestError(
        "gpu_count", f"{request.gpu_count} GPUs, but such nodes have {total} together", reasons
    )


def _selector_terms(request: GpuRequest, suitable_nodes: Sequence[ClusterNode]) -> tuple[NodeSelectorTerm, ...]:
    """One for each label that products are told by: the alternatives of a node affinity."""
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
