"""The owners of each GPU: from gpu-exporter's own series, else from the pod labels of another exporter. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from gpu_advisor.evaluation.owners import GpuOwner, is_known
from gpu_advisor.observation.identity import gpu_key
from gpu_advisor.observation.pod_labels import Workload, workload
from gpu_advisor.promql.expressions import Labels, Matcher, Selector, Vector, any_of_values
from gpu_advisor.sources.exporters.detection import (
    CanonicalRows,
    JobKey,
    TargetKey,
    canonical_targets,
    row_job,
    row_target,
)
from gpu_advisor.sources.exporters.identity_rows import Row
from gpu_advisor.sources.exporters.mapping import ExporterMapping

#: Labels of an owner in gpu_owner_info, in the order of GpuOwner's fields.
_LABELS = (
    "owner_namespace", "owner_pod", "owner_container", "training_job", "owner_unit", "owner_user", "owner_kind",
    "owner_account", "owner_partition", "owner_array_task",
)  # fmt: skip

#: More pods than this are read by their namespaces: a pod's name may have 63 characters, and an engine limit a query to
#: 16 KiB.
MAX_PODS_BY_NAME = 100

POD_STARTS, CONTAINER_STARTS = "pod_starts", "container_starts"

#: The share of the window's samples that show an owner throughout.
WHOLE_WINDOW_RATIO = 0.9


def owners_from_info(
    rows: Vector, starts: Vector, whole: Collection[Labels], shared: Collection[str]
) -> dict[str, tuple[GpuOwner, ...]]:
    """From gpu_owner_info and gpu_owner_start_time_seconds, which have the same labels, by GPU key.

    `whole` are the rows that were there throughout the idle window. The containers or steps of one owner are one owner,
    as old as the oldest of them.
    """
    found: dict[str, dict[GpuOwner, GpuOwner]] = {}
    for labels in rows:
        each = dict(labels)
        owner = owner_of_row(each)
        if owner is not None:
            dated = replace(owner, started=starts.get(labels), observed_whole_window=labels in whole)
            same = found.setdefault(gpu_key(each, shared), {})
            same[owner] = _older(same.get(owner, dated), dated)
    return {uuid: tuple(sorted(owners.values(), key=str)) for uuid, owners in found.items()}


def owner_of_row(row: Mapping[str, str]) -> GpuOwner | None:
    """The owner that a row of gpu_owner_info names; None if it names none, or no GPU.

    Of a pod without a name, as gpu-exporter has it without the kubelet's pod-resources socket, the uid is known.
    """
    namespace, pod, container, job, unit, user, kind, account, partition, task = (row.get(each, "") for each in _LABELS)
    owner = GpuOwner(
        namespace, pod, container, job, unit, user, kind, account=account, partition=partition, array_task=task,
        pod_uid="" if pod else row.get("owner_pod_uid", ""),
    )  # fmt: skip
    return owner if "uuid" in row and is_known(owner) else None


def _older(one: GpuOwner, other: GpuOwner) -> GpuOwner:
    """One owner of two rows: it began with its first process, and was there if either was."""
    starts = [each.started for each in (one, other) if each.started is not None]
    whole = one.observed_whole_window or other.observed_whole_window
    return replace(one, started=min(starts, default=None), observed_whole_window=whole)


def owners_from_pods(
    mapping: ExporterMapping,
    canonical: CanonicalRows,
    present: Sequence[Labels],
    counts: Vector,
    targets: Vector,
    expected: Mapping[JobKey, float],
    shared: Collection[str],
) -> dict[str, tuple[GpuOwner, ...]]:
    """From the pod labels of the present series of one mapping.

    `counts` are the samples of each series in the idle window, `expected` those of a whole window by job, `targets` is
    `up`: a pod label that a target itself has names the exporter's pod. Where a target also had series of the GPU
    without a pod, its pod came within the window, also one of the same name as the pod before: a StatefulSet's is
    restarted in seconds.
    """
    own_pods = {
        key: (dict(labels).get("pod", ""),)
        for labels in targets
        for key in canonical_targets({labels: 1.0}, canonical.cluster_label)
    }

    def pods_by_row(series: Iterable[Labels]) -> Iterator[tuple[Row, dict[Workload | None, list[Labels]]]]:
        """The series of each row by the pod that they name."""
        for row, every in canonical.group(mapping, series):
            own, of_pods = own_pods.get(row_target(row), ()), dict[Workload | None, list[Labels]]()
            for labels in every:
                of_pods.setdefault(workload(dict(labels), own), []).append(labels)
            yield row, of_pods

    seen: dict[tuple[str, Workload | None], float] = {}
    free: set[tuple[str, TargetKey]] = set()
    for row, of_pods in pods_by_row(counts):
        uuid, whole = gpu_key(row, shared), expected.get(row_job(row), math.inf)
        for pod, every in of_pods.items():
            seen[uuid, pod] = seen.get((uuid, pod), 0.0) + sum(counts[labels] for labels in every) / whole
        if None in of_pods:
            free.add((uuid, row_target(row)))
    found: dict[str, dict[GpuOwner, None]] = {}
    for row, of_pods in pods_by_row(present):
        if row.get("uuid"):
            uuid = gpu_key(row, shared)
            was_free = (uuid, row_target(row)) in free
            for pod in of_pods.keys() - {None}:
                assert pod is not None
                whole_window = not was_free and seen.get((uuid, pod), 0.0) >= WHOLE_WINDOW_RATIO
                namespace, name, container, _ = pod
                owner = GpuOwner(namespace, name, container, kind="kubernetes", observed_whole_window=whole_window)
                found.setdefault(uuid, {})[owner] = None
    return {uuid: tuple(sorted(owners, key=str)) for uuid, owners in found.items()}


def pod_start_selectors(owners: Iterable[GpuOwner]) -> dict[str, Selector]:
    """kube-state-metrics' start times of the pods whose start is unknown, and of their containers, by name."""
    undated = [owner for owner in owners if owner.pod and owner.started is None]
    if not undated:
        return {}
    of_pods = match_pods(undated)
    return {
        POD_STARTS: Selector("kube_pod_start_time", matchers=(of_pods,)),
        CONTAINER_STARTS: Selector("kube_pod_container_state_started", matchers=(of_pods,)),
    }


def match_pods(owners: Iterable[GpuOwner]) -> Matcher:
    """A matcher of at least the pods of these owners: by name, or of many by namespace, so that queries stay short."""
    found = list(owners)
    pods = sorted({owner.pod for owner in found})
    if len(pods) <= MAX_PODS_BY_NAME:
        return any_of_values("pod", tuple(pods))
    return any_of_values("namespace", tuple(sorted({owner.namespace for owner in found})))


def date_owners(
    owners: Mapping[str, tuple[GpuOwner, ...]], results: Mapping[str, Vector], cluster_label: str = ""
) -> dict[str, tuple[GpuOwner, ...]]:
    """The owners with the start times that kube-state-metrics has: a restarted container starts again.

    Of pods of one name, the latest start: none of them has been idle for longer.
    """
    pods, containers = dict[tuple[str, ...], float](), dict[tuple[str, ...], float]()
    for name, found in ((POD_STARTS, pods), (CONTAINER_STARTS, containers)):
        for labels, value in results.get(name, {}).items():
            each = dict(labels)
            for key in pod_keys(each, cluster_label):
                key = (*key, each.get("container", "")) if found is containers else key
                found[key] = max(value, found.get(key, value))

    def dated(owner: GpuOwner) -> GpuOwner:
        key = pod_key(owner)
        started = pods.get(key) if owner.pod and owner.started is None else None
        if started is None:
            return owner
        return replace(owner, started=max(started, containers.get((*key, owner.container), started)))

    return {uuid: tuple(map(dated, every)) for uuid, every in owners.items()}


def pod_key(owner: GpuOwner) -> tuple[str, ...]:
    """What its rows of kube-state-metrics are found by: of several clusters, those of its own."""
    return owner.cluster, owner.namespace, owner.pod


def pod_keys(row: Mapping[str, str], cluster_label: str, name: str = "pod") -> Iterator[tuple[str, ...]]:
    """The keys of a row of kube-state-metrics: in its cluster, and in a fleet of one cluster."""
    thing = row.get("namespace", ""), row.get(name, "")
    yield "", *thing
    if cluster := row.get(cluster_label, ""):
        yield cluster, *thing
