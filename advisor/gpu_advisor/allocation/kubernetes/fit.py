"""How a request becomes pods: how many, with how many GPUs each, on nodes with which labels. Pure.

Which node it is in the end, and when, Kubernetes decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gpu_advisor.allocation.errors import ImpossibleError, NoInventoryError
from gpu_advisor.allocation.kubernetes.inventory import ClusterNode
from gpu_advisor.allocation.requests import GpuRequest


@dataclass(frozen=True, slots=True)
class Term:
    """Nodes whose `label` has one of `products`; with more memory than `above_mib` by `memory_label`, where that is
    asked for."""

    label: str
    products: tuple[str, ...]
    memory_label: str = ""
    above_mib: int | None = None


@dataclass(frozen=True, slots=True)
class Fit:
    """`pods` of `gpus_per_pod`. `terms` are alternatives; none: any node. `room` is whether there is room for all at
    this moment; `reasons` says of each node what keeps it out or how many it has free. `gpu_type` is "" where nodes of
    several types suit, and `memory_gb` the least that a pod may meet, None where a node does not tell.
    """

    resource: str
    vendor: str
    pods: int
    gpus_per_pod: int
    terms: tuple[Term, ...]
    room: bool
    reasons: tuple[str, ...]
    gpu_type: str = ""
    memory_gb: float | None = None


def fit(request: GpuRequest, nodes: Sequence[ClusterNode]) -> Fit:
    """Raises NoInventoryError without any GPU in the cluster, ImpossibleError where no node could ever serve it."""
    if not nodes:
        raise NoInventoryError(
            "no node of the cluster offers GPUs: see that the vendor's device plug-in runs on the GPU nodes, and that "
            "its resource name is in the settings"
        )
    refused = {node: _refused(request, node) for node in nodes}
    suited = [node for node, why in refused.items() if not why]
    reasons = tuple(
        f"{node.name}: {why or f'{node.free} of {node.allocatable} {node.resource} are free'}"
        for node, why in refused.items()
    )
    if not suited:
        raise ImpossibleError(_decisive(request), "no node of the cluster has what is asked for", reasons)
    # One kind of resource to a Job: that with most room.
    resource = max({node.resource for node in suited}, key=lambda name: (_free(suited, name), name))
    suited = [node for node in suited if node.resource == resource]
    each = _gpus_per_pod(request, suited, reasons)
    pods = request.gpu_count // each
    types, sizes = {node.gpu_type for node in suited}, [node.memory_gb for node in suited if node.memory_gb is not None]
    return Fit(
        resource=resource,
        vendor=suited[0].vendor,
        pods=pods,
        gpus_per_pod=each,
        terms=_terms(request, suited),
        room=sum(node.free // each for node in suited) >= pods,
        reasons=reasons,
        gpu_type=types.pop() if len(types) == 1 else "",
        memory_gb=min(sizes) if len(sizes) == len(suited) else None,
    )


def _refused(request: GpuRequest, node: ClusterNode) -> str:
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


def _decisive(request: GpuRequest) -> str:
    """The field that is the most likely cause."""
    return "memory_gb" if request.memory_gb is not None and not request.gpu_type else "gpu_type"


def _free(nodes: Sequence[ClusterNode], resource: str) -> int:
    return sum(node.free for node in nodes if node.resource == resource)


def _gpus_per_pod(request: GpuRequest, suited: Sequence[ClusterNode], reasons: tuple[str, ...]) -> int:
    """All on one node where one has so many, else equal parts, as large as the nodes allow."""
    largest = max(node.allocatable for node in suited)
    if request.gpu_count <= largest:
        return request.gpu_count
    if not request.distributed_training:
        raise ImpossibleError(
            "gpu_count",
            f"{request.gpu_count} GPUs, but no node has more than {largest}: set distributed_training to use several",
            reasons,
        )
    parts = [size for size in range(1, largest + 1) if request.gpu_count % size == 0]
    for size in reversed(parts):
        if sum(node.allocatable // size for node in suited) >= request.gpu_count // size:
            return size
    total = sum(node.allocatable for node in suited)
    raise ImpossibleError("gpu_count", f"{request.gpu_count} GPUs, but such nodes have {total} together", reasons)


def _terms(request: GpuRequest, suited: Sequence[ClusterNode]) -> tuple[Term, ...]:
    """One for each label that products are told by: the alternatives of a node affinity."""
    if not request.gpu_type and request.memory_gb is None:
        return ()
    found = []
    for label in sorted({node.product_label for node in suited if node.product_label}):
        told = [node for node in suited if node.product_label == label]
        memory_labels = {node.memory_label for node in told}
        sizes = [node.memory_mib for node in told if node.memory_mib is not None]
        same_label = request.memory_gb is not None and len(memory_labels) == 1 and len(sizes) == len(told)
        found.append(
            Term(
                label,
                tuple(sorted({node.product for node in told})),
                memory_labels.pop() if same_label else "",
                min(sizes) - 1 if same_label else None,
            )
        )
    return tuple(found)
