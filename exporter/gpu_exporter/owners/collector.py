"""Processes on GPUs and what the kubelet gave away -> one row for each owner of each GPU."""

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

#: What `docker ps` shows of an id.
_SHORT_ID_LENGTH = 12


@dataclass(frozen=True, slots=True)
class OwnerSettings:
    """Where the host's files are."""

    procfs: Path = Path("/proc")
    sysfs: Path = Path("/sys")
    rootfs: Path = Path("/")


@dataclass(frozen=True, slots=True)
class _OwnerLabels:
    """The labels of one owner, in the order of the family's after uuid."""

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
    """Publishes the owners of the GPUs that were last read. Run it like a host collector."""

    def __init__(
        self,
        devices: Callable[[], Iterable[DeviceReading]],
        settings: OwnerSettings,
        pods: PodResourcesClient | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`devices` gives the last readings, without waiting; `pods` is refreshed by somebody else."""
        self._devices = devices
        self._settings = settings
        self._pods = pods
        self._clock = clock
        self._processes = ProcessOwners(settings.procfs, UserNames(settings.rootfs))
        self._logs = PodLogIndex(settings.rootfs / "var/log")

    def collect(self) -> list[FamilySamples]:
        """The owner families, and how their sources fare. A source that fails costs what it would have told."""
        devices = [device for device in self._devices() if not device.down]
        states: dict[str, str] = {}
        owners = self._owners(devices, states)
        given = self._allocations(devices, states)
        names = self._names(devices, owners, given, states)
        rows = [row for device in devices for row in _device_rows(device, owners, given, names)]
        rows += given.allocated_rows(devices)
        rows += [(metrics.OWNER_SOURCE_INFO, source, 1.0) for source in sorted(states.items())]
        if given.known:
            rows.append((metrics.OWNER_UNKNOWN_DEVICES, (), float(given.unknown)))
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
        given = _KubeletAllocations()
        if not self._pods:
            return given
        answer = self._pods.current()
        states["pod_resources"] = answer.state
        if answer.allocations is None:
            return given
        given.known = True
        ids = DeviceIdResolver((device.identity for device in devices), self._settings.sysfs)
        unknown: set[str] = set()
        for allocation in answer.allocations:
            container = Container(Pod(allocation.namespace, allocation.pod), allocation.container)
            if uuid := ids.uuid(allocation.device_id):
                given.containers.setdefault(uuid, set()).add(container)
            elif is_gpu_resource(allocation.resource):
                unknown.add(allocation.device_id)
        given.unknown = len(unknown)
        return given

    def _names(
        self, devices: list[DeviceReading], owners: dict[int, Owner], given: _KubeletAllocations, states: dict[str, str]
    ) -> _PodNames:
        used: dict[str, set[str]] = {}
        ids: set[str] = set()
        for device in devices:
            for process in device.processes:
                owner = owners.get(process.pid)
                if owner and owner.pod_uid:
                    used.setdefault(owner.pod_uid, set()).add(device.identity.uuid)
                    ids |= {owner.container_id} - {""}
        containers = set().union(*given.containers.values())
        if used or containers:
            try:
                self._logs.refresh(used.keys(), ids, containers, self._clock())
                states["pod_logs"] = "ok" if self._logs.pods else "absent"
            except PermissionError:
                states["pod_logs"] = "no_permission"
        known = {uid: pod for uid, pod in self._logs.pods.items() if uid in used}
        pods = {uuid: {container.pod for container in there} for uuid, there in given.containers.items()}
        return _PodNames(known | match_by_elimination(used, pods, known), self._logs)


class _KubeletAllocations:
    """What the kubelet has given away: GPU -> containers. `known` is False while it does not tell."""

    def __init__(self) -> None:
        self.known = False
        self.containers: dict[str, set[Container]] = {}
        self.unknown = 0

    def allocated_rows(self, devices: list[DeviceReading]) -> Iterator[tuple[MetricFamily, tuple[str, ...], float]]:
        if not self.known:
            return
        # Who was given a slice was given a part of the whole.
        allocated_uuids = self.containers.keys() | {
            device.identity.parent_uuid for device in devices if device.identity.uuid in self.containers
        }
        for device in devices:
            uuid = device.identity.uuid
            if uuid in allocated_uuids:
                yield metrics.GPU_ALLOCATED, (uuid,), 1.0
            elif not self.unknown:  # else it may be this one that was given away under a name we do not know
                yield metrics.GPU_ALLOCATED, (uuid,), 0.0


class _PodNames:
    """The names of pods and containers, by what control groups tell of them."""

    def __init__(self, pods: dict[str, Pod], logs: PodLogIndex) -> None:
        self._pods = pods
        self._logs = logs

    def row(self, owner: Owner, given: set[Container]) -> _OwnerLabels:
        container = self._logs.containers.get(owner.container_id)
        pod = container.pod if container else self._pods.get(owner.pod_uid)
        name = container.name if container else ""
        if pod and not name:
            # A pod has the GPU in one container, nearly always: then that is the one whose process it is.
            names = {other.name for other in given if other.pod == pod}
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
        """A container without a process, with the ids that it will have once it has one: the row then stays."""
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
    device: DeviceReading, owners: dict[int, Owner], given: _KubeletAllocations, names: _PodNames
) -> Iterator[tuple[MetricFamily, tuple[str, ...], float]]:
    uuid = device.identity.uuid
    containers = given.containers.get(uuid, set())
    memory: dict[_OwnerLabels, float | None] = {}
    for process in device.processes:
        if owner := owners.get(process.pid):
            row = _owner_labels(owner, containers, names)
            before = memory.get(row, 0.0)
            memory[row] = None if before is None or process.used_bytes is None else before + process.used_bytes
    active_containers = {Container(Pod(row.namespace, row.pod), row.container) for row in memory}
    for container in sorted(containers):
        # A process that is known by its pod only may be of any container there.
        if not active_containers & {container, Container(container.pod, "")}:
            memory[names.labels_of_allocation(container)] = None
    for row, used in memory.items():
        yield metrics.OWNER_INFO, row.labels(uuid), 1.0
        if used is not None:
            yield metrics.OWNER_MEMORY, row.labels(uuid), used


def _owner_labels(owner: Owner, given: set[Container], names: _PodNames) -> _OwnerLabels:
    """What is published of an owner: of each kind what stays the same while it lives, and no more.

    A session's scope has a number that is new each time, so a user is named without; so are the units that Slurm and
    the runtimes make.
    """
    if owner.kind is OwnerKind.KUBERNETES:
        return names.row(owner, given)
    container = owner.container_id
    return _OwnerLabels(
        owner.kind.value,
        container=container[:_SHORT_ID_LENGTH] if len(container) == 64 else container,
        unit=owner.unit if owner.kind is OwnerKind.SYSTEMD else "",
        user=owner.user,
        job=owner.slurm_job,
        container_id=container,
    )
