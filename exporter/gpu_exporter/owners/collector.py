"""GPU processes and kubelet allocations -> one row per owner of each GPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gpu_exporter import metrics
from gpu_exporter.metrics import FamilySamples, MetricFamily, group_by_family
from gpu_exporter.owners.base import Owner, OwnerKind
from gpu_exporter.owners.device_ids import DeviceIdResolver, is_gpu_resource
from gpu_exporter.owners.pod_names import Container, Pod, PodLogIndex, match_by_elimination
from gpu_exporter.owners.pod_resources import PodResourcesClient
from gpu_exporter.owners.processes import NotHostPidNamespace, ProcessOwners
from gpu_exporter.owners.users import UserNames
from gpu_exporter.snapshot import DeviceReading

#: Length of the ids in `docker ps`.
_SHORT_ID_LENGTH = 12


@dataclass(frozen=True, slots=True)
class OwnerSettings:
    """Mount points of the host's file systems."""

    procfs: Path = Path("/proc")
    sysfs: Path = Path("/sys")
    rootfs: Path = Path("/")


@dataclass(frozen=True, slots=True)
class _OwnerLabels:
    """The labels of one owner, in the order of the family's labels after uuid."""

    kind: str
    namespace: str = ""
    pod: str = ""
    container: str = ""
    unit: str = ""
    user: str = ""
    job: str = ""
    pod_uid: str = ""
    container_id: str = ""

    def labels(self, uuid: str) -> tuple[str, ...]:
        return (
            uuid, self.kind, self.namespace, self.pod, self.container, self.unit, self.user, self.job,
            self.pod_uid, self.container_id,
        )  # fmt: skip


class OwnerCollector:
    """Collects the owners of the GPUs in the latest readings. Has the interface of a host collector."""

    def __init__(
        self,
        devices: Callable[[], Iterable[DeviceReading]],
        settings: OwnerSettings,
        pods: PodResourcesClient | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`devices` returns the latest readings, without waiting; `pods` is refreshed by another task."""
        self._devices = devices
        self._settings = settings
        self._pods = pods
        self._clock = clock
        self._processes = ProcessOwners(settings.procfs, UserNames(settings.rootfs))
        self._logs = PodLogIndex(settings.rootfs / "var/log")

    def collect(self) -> list[FamilySamples]:
        """The owner families and the states of their sources. A failed source only costs its own information."""
        devices = [device for device in self._devices() if not device.down]
        states: dict[str, str] = {}
        owners = self._owners(devices, states)
        allocations = self._allocations(devices, states)
        names = self._names(devices, owners, allocations, states)
        rows = [row for device in devices for row in _device_rows(device, owners, allocations, names)]
        rows += allocations.allocated_rows(devices)
        rows += [(metrics.OWNER_SOURCE_INFO, source, 1.0) for source in sorted(states.items())]
        if allocations.known:
            rows.append((metrics.OWNER_UNKNOWN_DEVICES, (), float(allocations.unknown)))
        return group_by_family(rows)

    def _owners(self, devices: list[DeviceReading], states: dict[str, str]) -> dict[int, Owner]:
        pids = [process.pid for device in devices for process in device.processes]
        states["processes"] = "ok"
        try:
            return self._processes.owners(pids, self._clock())
        except NotHostPidNamespace:
            states["processes"] = "no_host_pids"
        except PermissionError:
            states["processes"] = "no_permission"
        return {}

    def _allocations(self, devices: list[DeviceReading], states: dict[str, str]) -> _KubeletAllocations:
        allocations = _KubeletAllocations()
        if not self._pods:
            return allocations
        status = self._pods.current()
        states["pod_resources"] = status.state
        if status.allocations is None:
            return allocations
        allocations.known = True
        ids = DeviceIdResolver((device.identity for device in devices), self._settings.sysfs)
        unknown: set[str] = set()
        for allocation in status.allocations:
            container = Container(Pod(allocation.namespace, allocation.pod), allocation.container)
            if uuid := ids.resolve(allocation.device_id):
                allocations.containers.setdefault(uuid, set()).add(container)
            elif is_gpu_resource(allocation.resource):
                unknown.add(allocation.device_id)
        allocations.unknown = len(unknown)
        return allocations

    def _names(
        self,
        devices: list[DeviceReading],
        owners: dict[int, Owner],
        allocations: _KubeletAllocations,
        states: dict[str, str],
    ) -> _PodNames:
        used: dict[str, set[str]] = {}
        ids: set[str] = set()
        for device in devices:
            for process in device.processes:
                owner = owners.get(process.pid)
                if owner and owner.pod_uid:
                    used.setdefault(owner.pod_uid, set()).add(device.identity.uuid)
                    ids |= {owner.container_id} - {""}
        containers = set().union(*allocations.containers.values())
        if used or containers:
            try:
                self._logs.refresh(used.keys(), ids, containers, self._clock())
                states["pod_logs"] = "ok" if self._logs.pods else "absent"
            except PermissionError:
                states["pod_logs"] = "no_permission"
        known = {uid: pod for uid, pod in self._logs.pods.items() if uid in used}
        pods = {uuid: {each.pod for each in containers_} for uuid, containers_ in allocations.containers.items()}
        return _PodNames(known | match_by_elimination(used, pods, known), self._logs)


class _KubeletAllocations:
    """GPU uuid -> containers that the kubelet allocated it to. `known`: whether the kubelet has reported."""

    def __init__(self) -> None:
        self.known = False
        self.containers: dict[str, set[Container]] = {}
        self.unknown = 0

    def allocated_rows(self, devices: list[DeviceReading]) -> Iterator[tuple[MetricFamily, tuple[str, ...], float]]:
        if not self.known:
            return
        # The allocation of a MIG instance is also one of its parent.
        allocated_uuids = self.containers.keys() | {
            device.identity.parent_uuid for device in devices if device.identity.uuid in self.containers
        }
        for device in devices:
            uuid = device.identity.uuid
            if uuid in allocated_uuids:
                yield metrics.GPU_ALLOCATED, (uuid,), 1.0
            elif not self.unknown:  # an unknown device may be this GPU
                yield metrics.GPU_ALLOCATED, (uuid,), 0.0


class _PodNames:
    """Names of pods and containers, by the uids and ids in cgroup paths."""

    def __init__(self, pods: dict[str, Pod], logs: PodLogIndex) -> None:
        self._pods = pods
        self._logs = logs

    def row(self, owner: Owner, containers: set[Container]) -> _OwnerLabels:
        container = self._logs.containers.get(owner.container_id)
        pod = container.pod if container else self._pods.get(owner.pod_uid)
        name = container.name if container else ""
        if pod and not name:
            # If only one container of the pod has the GPU, as is usual, the process is in that container.
            names = {other.name for other in containers if other.pod == pod}
            name = names.pop() if len(names) == 1 else ""
        return _OwnerLabels(
            owner.kind.value,
            namespace=pod.namespace if pod else "",
            pod=pod.name if pod else "",
            container=name,
            job=owner.slurm_job,
            pod_uid=owner.pod_uid,
            container_id=owner.container_id,
        )

    def labels_of_allocation(self, container: Container) -> _OwnerLabels:
        """Labels of a container without a GPU process, with its ids: the series continues once it has one."""
        uids = {uid for uid, pod in self._logs.pods.items() if pod == container.pod}
        ids = {id_ for id_, other in self._logs.containers.items() if other == container}
        return _OwnerLabels(
            OwnerKind.KUBERNETES.value,
            namespace=container.pod.namespace,
            pod=container.pod.name,
            container=container.name,
            pod_uid=uids.pop() if len(uids) == 1 else "",
            container_id=ids.pop() if len(ids) == 1 else "",
        )


def _device_rows(
    device: DeviceReading, owners: dict[int, Owner], allocations: _KubeletAllocations, names: _PodNames
) -> Iterator[tuple[MetricFamily, tuple[str, ...], float]]:
    uuid = device.identity.uuid
    containers = allocations.containers.get(uuid, set())
    memory: dict[_OwnerLabels, float | None] = {}
    for process in device.processes:
        if owner := owners.get(process.pid):
            row = _owner_labels(owner, containers, names)
            before = memory.get(row, 0.0)
            memory[row] = None if before is None or process.used_bytes is None else before + process.used_bytes
    active_containers = {Container(Pod(row.namespace, row.pod), row.container) for row in memory}
    for container in sorted(containers):
        # A process of which only the pod is known may be in any of its containers.
        if not active_containers & {container, Container(container.pod, "")}:
            memory[names.labels_of_allocation(container)] = None
    for row, used in memory.items():
        yield metrics.OWNER_INFO, row.labels(uuid), 1.0
        if used is not None:
            yield metrics.OWNER_MEMORY, row.labels(uuid), used


def _owner_labels(owner: Owner, containers: set[Container], names: _PodNames) -> _OwnerLabels:
    """The labels of an owner: only those that stay the same during its lifetime.

    Session scopes have a new number each time, so users have no unit label; neither have the units of Slurm and of
    container runtimes.
    """
    if owner.kind is OwnerKind.KUBERNETES:
        return names.row(owner, containers)
    container = owner.container_id
    return _OwnerLabels(
        owner.kind.value,
        container=container[:_SHORT_ID_LENGTH] if len(container) == 64 else container,
        unit=owner.unit if owner.kind is OwnerKind.SYSTEMD else "",
        user=owner.user,
        job=owner.slurm_job,
        container_id=container,
    )
