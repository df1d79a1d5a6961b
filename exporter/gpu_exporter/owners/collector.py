"""GPU processes, and allocations of the kubelet and Slurm -> one row per owner of each GPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass, replace
from pathlib import Path

from gpu_exporter import metrics
from gpu_exporter.metrics import FamilySamples, MetricFamily, group_by_family
from gpu_exporter.owners.base import Owner, OwnerKind
from gpu_exporter.owners.device_ids import DeviceIdResolver, is_gpu_resource, nvidia_minors
from gpu_exporter.owners.pod_cgroups import PodCgroups
from gpu_exporter.owners.pod_names import Container, Pod, PodLogIndex, match_by_elimination
from gpu_exporter.owners.pod_resources import PodResourcesClient
from gpu_exporter.owners.processes import NotHostPidNamespace, ProcessOwners
from gpu_exporter.owners.scontrol import ScontrolClient
from gpu_exporter.owners.slurm_cgroups import SlurmCgroups
from gpu_exporter.owners.slurm_environment import JobDetails
from gpu_exporter.owners.slurm_node import GresConfFile, SlurmNode, SlurmView, config_folders
from gpu_exporter.owners.users import UserNames
from gpu_exporter.snapshot import DeviceIdentity, DeviceReading

#: Length of the ids in `docker ps`.
_SHORT_ID_LENGTH = 12


@dataclass(frozen=True, slots=True)
class OwnerSettings:
    """Mount points of the host's file systems, the node's name, and Slurm's configuration folder (empty to search)."""

    procfs: Path = Path("/proc")
    sysfs: Path = Path("/sys")
    rootfs: Path = Path("/")
    nodename: str = ""
    slurm_config: str = ""


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
    job_name: str = ""
    account: str = ""
    partition: str = ""
    array_task: str = ""
    step: str = ""

    def labels(self, uuid: str) -> tuple[str, ...]:
        return (
            uuid, self.kind, self.namespace, self.pod, self.container, self.unit, self.user, self.job,
            self.pod_uid, self.container_id, self.job_name, self.account, self.partition, self.array_task, self.step,
        )  # fmt: skip


class OwnerCollector:
    """Collects the owners of the GPUs in the latest readings. Has the interface of a host collector."""

    def __init__(
        self,
        devices: Callable[[], Iterable[DeviceReading]],
        settings: OwnerSettings,
        pods: PodResourcesClient | None = None,
        clock: Callable[[], float] = time.monotonic,
        scontrol: ScontrolClient | None = None,
    ) -> None:
        """`devices` returns the latest readings, without waiting. Other tasks refresh `pods` and `scontrol`."""
        self._devices = devices
        self._settings = settings
        self._pods = pods
        self._clock = clock
        users = UserNames(settings.rootfs)
        self._processes = ProcessOwners(settings.procfs, users)
        self._slurm = SlurmNode(
            SlurmCgroups(settings.procfs, settings.sysfs, settings.nodename),
            GresConfFile(config_folders(settings.slurm_config, settings.rootfs)),
            users,
            settings.nodename,
            scontrol,
        )
        self._minors: tuple[tuple[DeviceIdentity, ...], dict[str, str]] | None = None
        self._logs = PodLogIndex(settings.rootfs / "var/log")
        self._pod_cgroups = PodCgroups(settings.sysfs)

    def collect(self) -> list[FamilySamples]:
        """The owner families and the states of their sources. A failed source only costs its own information."""
        devices = [device for device in self._devices() if not device.down]
        states: dict[str, str] = {}
        owners = self._owners(devices, states)
        ids = self._device_ids(devices)
        slurm = self._slurm.update(
            [device.identity for device in devices],
            ids,
            self._processes.slurm_roots(),
            self._processes.slurm_environments(),
            self._clock(),
        )
        states.update(slurm.states)
        allocations = self._allocations(ids, states)
        names = self._names(devices, owners, allocations, states)
        view = _OwnerView(owners, self._processes.start_times(), allocations, names, slurm)
        rows = [row for device in devices for row in _device_rows(device, view)]
        rows += view.allocated_rows(devices)
        rows += [(metrics.OWNER_SOURCE_INFO, source, 1.0) for source in sorted(states.items())]
        if view.knows_allocations:
            rows.append((metrics.OWNER_UNKNOWN_DEVICES, (), float(allocations.unknown + slurm.allocations.unresolved)))
        return group_by_family(rows)

    def _device_ids(self, devices: list[DeviceReading]) -> DeviceIdResolver:
        identities = tuple(device.identity for device in devices)
        if self._minors is None or self._minors[0] != identities:
            self._minors = (identities, nvidia_minors(self._settings.procfs))
        return DeviceIdResolver(identities, self._settings.sysfs, self._settings.procfs, self._minors[1])

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

    def _allocations(self, ids: DeviceIdResolver, states: dict[str, str]) -> _KubeletAllocations:
        allocations = _KubeletAllocations()
        if not self._pods:
            return allocations
        status = self._pods.current()
        states["pod_resources"] = status.state
        if status.allocations is None:
            return allocations
        allocations.known = True
        unknown: set[str] = set()
        for allocation in status.allocations:
            container = Container(Pod(allocation.namespace, allocation.pod), allocation.container)
            names = (allocation.device_id, *allocation.aliases)
            if uuid := next(filter(None, map(ids.resolve, names)), ""):
                allocations.containers.setdefault(uuid, set()).add(container)
            elif is_gpu_resource(allocation.resource):
                unknown.add(names[-1])
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
            running = self._pod_cgroups.uids(self._clock()) if containers else None
            try:
                self._logs.refresh(used.keys() | (running or set()), ids, containers, self._clock())
                states["pod_logs"] = "ok" if self._logs.pods else "absent"
            except PermissionError:
                states["pod_logs"] = "no_permission"
            allocations.remove(self._logs.ended(running))
        known = {uid: pod for uid, pod in self._logs.pods.items() if uid in used}
        pods = {uuid: {each.pod for each in containers_} for uuid, containers_ in allocations.containers.items()}
        return _PodNames(known | match_by_elimination(used, pods, known), self._logs)


class _KubeletAllocations:
    """GPU uuid -> containers that the kubelet allocated it to. `known`: whether the kubelet has reported."""

    def __init__(self) -> None:
        self.known = False
        self.containers: dict[str, set[Container]] = {}
        self.unknown = 0

    def remove(self, pods: Set[Pod]) -> None:
        """Remove the allocations of these pods."""
        if pods:
            left = {
                uuid: {container for container in containers if container.pod not in pods}
                for uuid, containers in self.containers.items()
            }
            self.containers = {uuid: containers for uuid, containers in left.items() if containers}


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


@dataclass(frozen=True, slots=True)
class _OwnerView:
    """All that is known of the owners at one time."""

    owners: dict[int, Owner]
    start_times: dict[int, float]
    kubelet: _KubeletAllocations
    names: _PodNames
    slurm: SlurmView

    @property
    def knows_allocations(self) -> bool:
        return self.kubelet.known or bool(self.slurm.allocations.jobs) or self.slurm.allocations.is_complete

    def allocated_rows(self, devices: list[DeviceReading]) -> Iterator[tuple[MetricFamily, tuple[str, ...], float]]:
        """Whether each GPU is allocated. It is free only if each scheduler of this node has reported all of them."""
        slurm = self.slurm.allocations
        allocated = self.kubelet.containers.keys() | slurm.jobs.keys()
        # The allocation of a MIG instance is also one of its parent.
        allocated |= {device.identity.parent_uuid for device in devices if device.identity.uuid in allocated}
        complete = (self.kubelet.known or slurm.is_complete) and not self.kubelet.unknown  # it may be any GPU
        if self.slurm.states:
            complete = complete and slurm.is_complete
        for device in devices:
            uuid = device.identity.uuid
            if uuid in allocated:
                yield metrics.GPU_ALLOCATED, (uuid,), 1.0
            elif complete:
                yield metrics.GPU_ALLOCATED, (uuid,), 0.0

    def labels(self, owner: Owner, containers: set[Container]) -> _OwnerLabels:
        """The labels of an owner: only those that stay the same during its lifetime.

        Session scopes have a new number each time, so users have no unit label; neither have the units of Slurm and of
        container runtimes.
        """
        if owner.kind is OwnerKind.KUBERNETES:
            return self.names.row(owner, containers)
        container = owner.container_id
        labels = _OwnerLabels(
            owner.kind.value,
            container=container[:_SHORT_ID_LENGTH] if len(container) == 64 else container,
            unit=owner.unit if owner.kind is OwnerKind.SYSTEMD else "",
            user=owner.user,
            job=self.slurm.numbers.get(owner.slurm_job, owner.slurm_job),
            container_id=container,
            step=owner.slurm_step,
        )
        return self._with_details(labels) if owner.kind is OwnerKind.SLURM else labels

    def labels_of_job(self, job: str) -> _OwnerLabels:
        """Labels of a job without a process on the GPU; an empty job is unknown."""
        return self._with_details(_OwnerLabels(OwnerKind.SLURM.value, job=job))

    def _with_details(self, labels: _OwnerLabels) -> _OwnerLabels:
        details = self.slurm.details.get(labels.job, JobDetails())
        return replace(
            labels,
            user=details.user or labels.user,
            job_name=details.name,
            account=details.account,
            partition=details.partition,
            array_task=details.array_task,
        )


def _device_rows(device: DeviceReading, view: _OwnerView) -> Iterator[tuple[MetricFamily, tuple[str, ...], float]]:
    uuid = device.identity.uuid
    containers = view.kubelet.containers.get(uuid, set())
    memory: dict[_OwnerLabels, float | None] = {}
    starts: dict[_OwnerLabels, float] = {}
    for process in device.processes:
        if owner := view.owners.get(process.pid):
            row = view.labels(owner, containers)
            if (started := view.start_times.get(process.pid)) is not None:
                starts[row] = min(started, starts.get(row, started))
            before = memory.get(row, 0.0)
            memory[row] = None if before is None or process.used_bytes is None else before + process.used_bytes
    active_containers = {Container(Pod(row.namespace, row.pod), row.container) for row in memory}
    for container in sorted(containers):
        # A process of which only the pod is known may be in any of its containers.
        if not active_containers & {container, Container(container.pod, "")}:
            memory[view.names.labels_of_allocation(container)] = None
    active_jobs = {row.job for row in memory if row.kind == OwnerKind.SLURM.value}
    for job in sorted(view.slurm.allocations.jobs.get(uuid, set()) - active_jobs):
        if job or not active_jobs:  # an unknown job is probably the one whose process is here
            memory[view.labels_of_job(job)] = None
    for row, used in memory.items():
        yield metrics.OWNER_INFO, row.labels(uuid), 1.0
        if row in starts:
            yield metrics.OWNER_START, row.labels(uuid), starts[row]
        if used is not None:
            yield metrics.OWNER_MEMORY, row.labels(uuid), used
