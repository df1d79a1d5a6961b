"""Slurm on this node: its jobs, their GPUs and names, from cgroups, the environment of processes and the controller."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from gpu_exporter.host.kernel_files import read_file
from gpu_exporter.owners.device_ids import DeviceIdResolver
from gpu_exporter.owners.scontrol import ScontrolAnswer, ScontrolClient, ScontrolJob, ScontrolQuery
from gpu_exporter.owners.slurm_allocations import GpuIndices, SlurmAllocations, slurm_allocations
from gpu_exporter.owners.slurm_cgroups import NodeJob, SlurmCgroups
from gpu_exporter.owners.slurm_environment import JobDetails, SlurmEnvironment
from gpu_exporter.owners.slurm_gres import GresConf, parse_gres_conf
from gpu_exporter.owners.users import UserNames
from gpu_exporter.snapshot import DeviceIdentity

#: Where slurm.conf and gres.conf are: of a package, of a configless slurmd, of older Debian packages.
CONFIG_FOLDERS = ("etc/slurm", "run/slurm/conf", "etc/slurm-llnl")
#: How long the controller's answer may still have a job that has ended here.
_ENDED_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class SlurmView:
    """The jobs of this node. `numbers`: SLUID -> number. `states`: state by source, empty on a node without Slurm."""

    allocations: SlurmAllocations
    details: Mapping[str, JobDetails]
    numbers: Mapping[str, str]
    states: Mapping[str, str]


class SlurmNode:
    """Combines the sources on each `update`. Not thread-safe; only the client's `refresh` may run beside it."""

    def __init__(
        self,
        cgroups: SlurmCgroups,
        conf: GresConfFile,
        users: UserNames,
        nodename: str,
        client: ScontrolClient | None = None,
    ) -> None:
        self._cgroups, self._conf, self._users, self._nodename, self._client = cgroups, conf, users, nodename, client
        self._controller_jobs: dict[str, ScontrolJob] = {}
        self._last_answer: ScontrolAnswer | None = None
        self._local: set[str] = set()
        self._ended: dict[str, float] = {}
        self._answers = 0
        self._held: dict[str, frozenset[str]] = {}
        self._freed: dict[str, int] = {}

    def update(
        self,
        identities: Iterable[DeviceIdentity],
        ids: DeviceIdResolver,
        roots: Iterable[tuple[str, ...]],
        environments: Mapping[str, SlurmEnvironment],
        now: float,
    ) -> SlurmView:
        """`roots` and `environments` are of processes on GPUs. `now` is monotonic seconds."""
        self._cgroups.learn(roots)
        jobs = self._cgroups.jobs(now)
        status = self._client.current() if self._client else None
        answer = status.answer if status else None
        numbers = {key: job.number for key, job in jobs.items() if job.number}
        local = set(numbers.values())
        self._remember(answer, local)
        self._note_ended(local, now)
        node = self._cgroups.node_name or self._nodename
        parents = {identity.parent_uuid for identity in identities}
        gpus = tuple(identity for identity in identities if identity.uuid not in parents)
        known = replace(answer, jobs=self._controller_jobs) if answer else None
        indices = GpuIndices(ids, gpus, self._conf.read(node, now))
        allocations = slurm_allocations(jobs, frozenset(self._freed), known, indices)
        self._held = allocations.gpus_by_job()
        self._ask(node, jobs, local | environments.keys(), answer, allocations)
        states = {}
        if self._cgroups.found:
            states["slurm_cgroups"] = "ok"
        if status and (self._cgroups.found or status.state != "absent") and status.state != "not_yet":
            states["scontrol"] = status.state
        return SlurmView(allocations, self._details(jobs, environments, now), numbers, states)

    def _note_ended(self, local: set[str], now: float) -> None:
        """Forget jobs whose cgroups are gone. The controller's next answer may be older than that."""
        for number in self._local - local:
            self._ended[number] = now
            self._controller_jobs.pop(number, None)  # a requeued job gets other GPUs
            self._freed |= dict.fromkeys(self._held.get(number, ()), self._answers)
        self._freed = {uuid: answers for uuid, answers in self._freed.items() if self._answers < answers + 2}
        self._local = local
        self._ended = {
            number: at for number, at in self._ended.items() if number not in local and now - at < _ENDED_SECONDS
        }

    def _remember(self, answer: ScontrolAnswer | None, local: set[str]) -> None:
        """Keep what the controller reported of jobs with cgroups here; of others only its last answer counts."""
        if answer is self._last_answer:
            return
        self._last_answer = answer
        self._answers += 1
        if answer is None:
            self._controller_jobs = {}
            return
        kept = {number: job for number, job in self._controller_jobs.items() if number in local}
        new = {
            number: job for number, job in answer.jobs.items()
            if number not in self._ended and (number in local or job.gpu_indices is not None)
        }  # fmt: skip
        self._controller_jobs = kept | new

    def _ask(
        self,
        node: str,
        jobs: Mapping[str, NodeJob],
        numbers: set[str],
        answer: ScontrolAnswer | None,
        allocations: SlurmAllocations,
    ) -> None:
        """Set what the next query asks for: what is not known, and jobs whose end this node does not see."""
        if not self._client:
            return
        known = self._controller_jobs
        with_gpus = {job.number for job in jobs.values() if job.devices is not None or job.gpu_indices is not None}
        without_cgroup = (numbers | known.keys()) - self._local
        detailed = without_cgroup | {
            number for number in self._local - with_gpus if number not in known or known[number].gpu_indices is None
        }
        used = (answer.used_indices if answer else None) or frozenset()
        unknown_jobs = any("" in owners for owners in allocations.jobs.values())
        self._client.query = ScontrolQuery(
            node,
            frozenset((numbers - known.keys()) | detailed),
            frozenset(detailed),
            used - allocations.explained if unknown_jobs or allocations.unresolved else frozenset(),
        )

    def _details(
        self, jobs: Mapping[str, NodeJob], environments: Mapping[str, SlurmEnvironment], now: float
    ) -> dict[str, JobDetails]:
        """Job -> what is known of it: the controller's word counts more than that of a process."""
        details = {number: _without_user(environment) for number, environment in environments.items()}
        for key, job in jobs.items():
            reported = _without_user(job.environment) if job.environment else JobDetails()
            user = "" if job.uid is None else self._users.name(job.uid, now)
            if job.environment and (not user or user.isdigit()):
                user = job.environment.details.user or user
            details[job.number or key] = replace(reported, user=user)
        for number, controller in self._controller_jobs.items():
            details[number] = _merge(controller.details, details.get(number, JobDetails()))
        return details


@dataclass
class GresConfFile:
    """gres.conf of this node, read again when it changes, from the first of the folders that has one."""

    folders: tuple[Path, ...]
    _read_at: float | None = None
    _version: object = None
    _conf: GresConf | None = None

    #: How often it is looked for.
    INTERVAL_SECONDS = 60.0

    def read(self, node: str, now: float) -> GresConf | None:
        """The GPU records of this node; None if there is no readable gres.conf."""
        if self._read_at is not None and now - self._read_at < self.INTERVAL_SECONDS:
            return self._conf
        self._read_at = now
        for folder in self.folders:
            path = folder / "gres.conf"
            try:
                stat = os.stat(path)
                version = (path, stat.st_ino, stat.st_mtime_ns, node)
                if version != self._version:
                    self._conf = parse_gres_conf(read_file(str(path)).decode("utf-8", "replace"), node)
                    self._version = version
            except OSError:
                continue
            return self._conf
        self._conf = self._version = None
        return None


def config_folders(setting: str, rootfs: Path) -> tuple[Path, ...]:
    """Folders that may have gres.conf: the one in the settings, or Slurm's usual ones."""
    if setting:
        return (Path(setting),)
    return tuple(rootfs / folder for folder in CONFIG_FOLDERS)


def _without_user(environment: SlurmEnvironment) -> JobDetails:
    return replace(environment.details, user="")


def _merge(first: JobDetails, second: JobDetails) -> JobDetails:
    return JobDetails(*(getattr(first, f.name) or getattr(second, f.name) for f in fields(JobDetails)))
