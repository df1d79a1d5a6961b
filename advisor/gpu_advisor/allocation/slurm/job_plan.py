"""A request as a Slurm job: how many nodes with how many GPUs each, and what selects these nodes. Pure.

Slurm decides on which node and when the job runs.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

from gpu_advisor.allocation.errors import InvalidRequestError, NoInventoryError, UnsatisfiableRequestError
from gpu_advisor.allocation.gpu_request import GpuRequest
from gpu_advisor.allocation.slurm.cluster_nodes import SlurmCluster, SlurmGpus


@dataclass(frozen=True, slots=True)
class JobPlan:
    """`nodes` with `gpus_per_node` each. `gres_type`: empty for any. `features` are ORed in --constraint; `excluded`
    nodes have the same GRES type, but other GPUs. `partitions`: empty for the default. `time_limit_seconds`: None for
    the partition's. `fits_now`: whether enough GPUs are free. `reasons`: for each node, why it is excluded or how many
    GPUs are free.
    """

    nodes: int
    gpus_per_node: int
    gres_type: str
    features: tuple[str, ...]
    excluded: tuple[str, ...]
    partitions: tuple[str, ...]
    time_limit_seconds: float | None
    fits_now: bool
    reasons: tuple[str, ...]


def build_job_plan(
    request: GpuRequest, cluster: SlurmCluster, partition: str = "", time_limit_seconds: float | None = None
) -> JobPlan:
    """`partition`: restricts the request to it.

    Raises NoInventoryError if the cluster has no GPUs, InvalidRequestError, and UnsatisfiableRequestError if no node
    can serve the request.
    """
    if not cluster.gpus:
        raise NoInventoryError("no node of the cluster has GPUs: check GresTypes and Gres in slurm.conf")
    known = {each.name for each in cluster.partitions}
    if partition and not set(partition.split(",")) <= known:
        raise InvalidRequestError("partition", f"{partition!r} is not known; known are {', '.join(sorted(known))}")
    if request.cpu_fallback:
        raise InvalidRequestError("cpu_fallback", "Slurm queues a job until GPUs are free: remove cpu_fallback")
    usable = _usable_partitions(cluster, partition, time_limit_seconds)
    rejections = {gpus: _rejection_reason(request, gpus, usable) for gpus in cluster.gpus}
    reasons = tuple(
        f"{gpus.node}: {why or f'{gpus.free} of {gpus.count} {_gres(gpus)} are free'}"
        for gpus, why in rejections.items()
    )
    suitable = [gpus for gpus, why in rejections.items() if not why]
    if not suitable:
        field = "memory_gb" if request.memory_gb is not None and not request.gpu_type else "gpu_type"
        raise UnsatisfiableRequestError(field, "no node of the cluster matches the request", reasons)
    chosen, gpus_per_node = _choose(request, suitable, reasons)
    nodes = request.gpu_count // gpus_per_node
    features, excluded = _selection(chosen, cluster.gpus, request)
    return JobPlan(
        nodes=nodes,
        gpus_per_node=gpus_per_node,
        gres_type=chosen[0].gres_type if _is_typed(request, chosen, cluster.gpus) else "",
        features=features,
        excluded=excluded,
        partitions=_partitions(cluster, chosen, partition, usable, nodes, gpus_per_node),
        time_limit_seconds=time_limit_seconds,
        fits_now=sum(gpus.free >= gpus_per_node for gpus in chosen) >= nodes,
        reasons=reasons,
    )


def _usable_partitions(cluster: SlurmCluster, partition: str, seconds: float | None) -> frozenset[str]:
    """Partitions that a job of this length may use."""
    wanted = set(partition.split(",")) if partition else {each.name for each in cluster.partitions}
    named = [each for each in cluster.partitions if each.name in wanted]
    open_ = [each for each in named if each.is_up]
    fitting = [each for each in open_ if seconds is None or each.max_seconds is None or seconds <= each.max_seconds]
    if open_ and not fitting:
        longest = max(each.max_seconds or 0.0 for each in open_)
        raise InvalidRequestError("lease_seconds", f"{seconds:g}: the longest job may take {longest:g} seconds")
    return frozenset(each.name for each in fitting)


def _rejection_reason(request: GpuRequest, gpus: SlurmGpus, partitions: frozenset[str]) -> str:
    """Why these GPUs can never serve the request; "" if they can, also if none is free now."""
    if gpus.unavailable_reason:
        return gpus.unavailable_reason
    if not gpus.partitions & partitions:
        return "it is in no partition that the job may use"
    if request.vendor and gpus.vendor and gpus.vendor != request.vendor:
        return f"its GPUs are by {gpus.vendor}"
    if request.gpu_type and gpus.gpu_type != request.gpu_type:
        return f"its GPUs are {gpus.gpu_type}" if gpus.gpu_type else "neither its GRES nor a feature has its GPU type"
    if not request.gpu_type and gpus.gpu_type.endswith("MIG"):
        return "its GPUs are MIG instances: request their type"
    if request.memory_gb is None:
        return ""
    if gpus.memory_gb is None:
        return "neither its GRES nor a feature has the memory of its GPUs"
    return f"its GPUs have {gpus.memory_gb:g} GB" if gpus.memory_gb < request.memory_gb else ""


def _choose(
    request: GpuRequest, suitable: Sequence[SlurmGpus], reasons: tuple[str, ...]
) -> tuple[list[SlurmGpus], int]:
    """The GPUs that the job may get, all of one kind if they are on several nodes, and how many on each node."""
    largest = max(gpus.count for gpus in suitable)
    if request.gpu_count <= largest:
        if _is_any(request) and len({gpus.node for gpus in suitable}) == len(suitable):
            return list(suitable), request.gpu_count  # whatever the node: it has GPUs of one type
        by_type = _grouped(suitable, lambda gpus: gpus.gres_type)  # --gres has one
        able = [each for each in by_type if max(gpus.count for gpus in each) >= request.gpu_count]
        return _best(able, request.gpu_count), request.gpu_count
    if not request.distributed_training:
        raise UnsatisfiableRequestError(
            "gpu_count",
            f"{request.gpu_count} GPUs, but the largest node has {largest}: set distributed_training to use several",
            reasons,
        )
    by_kind = _grouped(suitable, lambda gpus: (gpus.gres_type, gpus.gpu_type, gpus.memory_gb))
    for size in range(largest, 0, -1):
        if request.gpu_count % size:
            continue
        nodes = request.gpu_count // size
        able = [each for each in by_kind if sum(gpus.count >= size for gpus in each) >= nodes]
        if able:
            return _best(able, size), size
    total = max(sum(gpus.count for gpus in each) for each in by_kind)
    raise UnsatisfiableRequestError(
        "gpu_count",
        f"{request.gpu_count} GPUs of one kind in equal parts: the most of one kind are {total}",
        reasons,
    )


def _grouped(suitable: Sequence[SlurmGpus], key: Callable[[SlurmGpus], Hashable]) -> list[list[SlurmGpus]]:
    groups: dict[Hashable, list[SlurmGpus]] = {}
    for gpus in suitable:
        groups.setdefault(key(gpus), []).append(gpus)
    return list(groups.values())


def _best(groups: Iterable[list[SlurmGpus]], per_node: int) -> list[SlurmGpus]:
    """The group with a node that is free, of these the one with the smallest cards, as leases choose; else the
    smallest."""

    def key(group: list[SlurmGpus]) -> tuple[bool, float, int, str]:
        free = sum(gpus.free >= per_node for gpus in group)
        smallest = min(float("inf") if gpus.memory_gb is None else gpus.memory_gb for gpus in group)
        return (not free, smallest, -free, group[0].gres_type)

    return min(groups, key=key)


def _is_any(request: GpuRequest) -> bool:
    return not request.gpu_type and not request.vendor and request.memory_gb is None


def _is_typed(request: GpuRequest, chosen: Sequence[SlurmGpus], everything: Sequence[SlurmGpus]) -> bool:
    """Whether --gres needs the type: if the request asks for it, or other GPUs must not be taken."""
    types = {gpus.gres_type for gpus in chosen}
    if len(types) > 1 or not chosen[0].gres_type:
        return False
    return not _is_any(request) or {gpus.gres_type for gpus in everything if not gpus.unavailable_reason} > types


def _selection(
    chosen: Sequence[SlurmGpus], everything: Sequence[SlurmGpus], request: GpuRequest
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Features for --constraint, or else nodes for --exclude, so that only nodes with the chosen GPUs are left.

    Neither is needed if the GRES type selects them.
    """
    typed = _is_typed(request, chosen, everything)
    nodes = {gpus.node for gpus in chosen}
    others = {
        gpus.node for gpus in everything
        if gpus.node not in nodes and not gpus.unavailable_reason
        and (not typed or gpus.gres_type == chosen[0].gres_type)
    }  # fmt: skip
    if not others:
        return (), ()
    foreign = {feature for gpus in everything if gpus.node in others for feature in gpus.features}
    usable = [frozenset(gpus.features - foreign) for gpus in chosen]
    if all(usable):
        common = frozenset.intersection(*usable)
        return ((min(common),) if common else tuple(sorted({min(each) for each in usable}))), ()
    return (), tuple(sorted(others))


def _partitions(
    cluster: SlurmCluster,
    chosen: Sequence[SlurmGpus],
    partition: str,
    usable: frozenset[str],
    nodes: int,
    gpus_per_node: int,
) -> tuple[str, ...]:
    """What --partition needs: nothing if the default partition has enough of the chosen nodes."""
    if partition:
        return tuple(partition.split(","))

    def serves(name: str) -> bool:
        return sum(gpus.count >= gpus_per_node and name in gpus.partitions for gpus in chosen) >= nodes

    if cluster.default_partition in usable and serves(cluster.default_partition):
        return ()
    able = tuple(sorted(filter(serves, usable)))
    if not able:
        raise UnsatisfiableRequestError(
            "gpu_count", f"{nodes} nodes with {gpus_per_node} GPUs each: no partition has as many of one kind"
        )
    return able


def _gres(gpus: SlurmGpus) -> str:
    return f"gpu:{gpus.gres_type}" if gpus.gres_type else "gpu"
