"""Owners of processes, from /proc; cached while the process runs."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from gpu_exporter.host.kernel_files import read_file
from gpu_exporter.owners import cgroup_paths, parse_owner
from gpu_exporter.owners.base import Owner, OwnerKind
from gpu_exporter.owners.slurm import is_sluid, job_root
from gpu_exporter.owners.slurm_cgroups import stepd_title
from gpu_exporter.owners.slurm_environment import SlurmEnvironment, parse_environment
from gpu_exporter.owners.users import UserNames, parse_uid

#: Cache time: a process can be moved to another cgroup (pam_slurm_adopt, systemd-run).
OWNER_CACHE_SECONDS = 60.0
#: The initial pid namespace (PROC_PID_INIT_INO in include/linux/proc_ns.h).
_INITIAL_PID_NAMESPACE = "pid:[4026531836]"
#: Parents between a process and the slurmstepd that started it.
_MAX_ANCESTORS = 32
#: Index among the fields of /proc/<pid>/stat after the command name, which may contain anything (proc(5)).
_START_TIME_INDEX = 19


class NotHostPidNamespace(Exception):
    """/proc is not of the host's pid namespace: the pids that drivers report cannot be looked up there."""


@dataclass(frozen=True, slots=True)
class _CachedOwner:
    started: bytes
    owner: Owner
    read_at: float
    environment: SlurmEnvironment | None = None
    slurm_root: tuple[str, ...] | None = None


class ProcessOwners:
    """Looks up the owners of processes by pid."""

    def __init__(self, procfs: Path, users: UserNames) -> None:
        self._procfs = str(procfs)
        self._users = users
        self._cache: dict[int, _CachedOwner] = {}

    def owners(self, pids: Iterable[int], now: float) -> dict[int, Owner]:
        """The owners of the running ones of these processes. `now` is monotonic seconds.

        Drops other processes from the cache. Raises NotHostPidNamespace; PermissionError if /proc hides the processes
        of other users.
        """
        if not self._is_host_pid_namespace():
            raise NotHostPidNamespace(
                f"{self._procfs} is of a container's pid namespace: run the exporter in the host's"
            )
        before, self._cache = self._cache, {}
        any_missing = False
        for pid in pids:
            if pid not in self._cache:
                known = self._lookup(pid, before.get(pid), now)
                if known:
                    self._cache[pid] = known
                any_missing |= not known
        if any_missing and not os.path.exists(f"{self._procfs}/1"):
            raise PermissionError(
                f"{self._procfs} is mounted with hidepid: run the exporter as root, or in the mount's gid"
            )
        return {pid: known.owner for pid, known in self._cache.items()}

    def start_times(self) -> dict[int, float]:
        """When the processes started (Unix time), of those that `owners` returned last; empty without a boot time."""
        boot = self._boot_time()
        if boot is None:
            return {}
        hertz = os.sysconf("SC_CLK_TCK")
        return {pid: boot + int(known.started) / hertz for pid, known in self._cache.items()}

    def _boot_time(self) -> float | None:
        """Read again for each collection: the clock may have been set."""
        try:
            lines = read_file(f"{self._procfs}/stat").split(b"\n")
            return next((float(line.split()[1]) for line in lines if line.startswith(b"btime ")), None)
        except (OSError, ValueError, IndexError):
            return None

    def slurm_environments(self) -> dict[str, SlurmEnvironment]:
        """Job -> the environment of one of its processes, of those that `owners` returned last."""
        cached = self._cache.values()
        return {known.owner.slurm_job: known.environment for known in cached if known.environment}

    def slurm_roots(self) -> set[tuple[str, ...]]:
        """Cgroup paths of slurmd, of those that `owners` returned last."""
        return {known.slurm_root for known in self._cache.values() if known.slurm_root is not None}

    def _lookup(self, pid: int, known: _CachedOwner | None, now: float) -> _CachedOwner | None:
        try:
            started = self._start_time(pid)
            if known and known.started == started and now - known.read_at < OWNER_CACHE_SECONDS:
                return known
            cgroup = read_file(f"{self._procfs}/{pid}/cgroup").decode("utf-8", "replace")
            uid = parse_uid(read_file(f"{self._procfs}/{pid}/status"))
            owner, environment = self._with_slurm(parse_owner(cgroup), pid, uid)
            if self._start_time(pid) != started:
                return None  # the pid was reused meanwhile
        except (OSError, ValueError):
            return None  # the process has exited
        # A uid inside a pod comes from the image and is unrelated to the host's users.
        if owner.kind is not OwnerKind.KUBERNETES:
            owner = replace(owner, user=self._users.name(uid, now))
        root = None
        if owner.kind is OwnerKind.SLURM:
            root = next((root for path in cgroup_paths(cgroup) if (root := job_root(path)) is not None), None)
        return _CachedOwner(started, owner, now, environment, root)

    def _with_slurm(self, owner: Owner, pid: int, uid: int) -> tuple[Owner, SlurmEnvironment | None]:
        """The owner with its Slurm job, and the process' environment if it is of this job.

        Slurm may run without cgroups, and the cgroup may have the SLUID only. Then the slurmstepd that started the
        process decides, if it is still an ancestor, else the environment.
        """
        if owner.kind not in (OwnerKind.SLURM, OwnerKind.SYSTEMD, OwnerKind.USER):
            return owner, None
        environment, is_readable = self._read_environment(pid)
        if owner.kind is OwnerKind.SLURM:
            if environment is None or owner.slurm_job not in (environment.job, environment.sluid):
                environment = None
            elif is_sluid(owner.slurm_job):
                owner = replace(owner, slurm_job=environment.job)
            return owner, environment
        if environment is None and is_readable:
            return owner, None
        step = self._ancestor_step(pid)
        if step is None and environment is not None and environment.uid in ("", str(uid)):
            step = (environment.job, environment.step)
        if step is None:
            return owner, None
        owner = replace(owner, kind=OwnerKind.SLURM, slurm_job=step[0], slurm_step=step[1])
        return owner, environment if environment and environment.job == step[0] else None

    def _read_environment(self, pid: int) -> tuple[SlurmEnvironment | None, bool]:
        """The Slurm variables, None if there are none, and whether they could be read."""
        try:
            return parse_environment(read_file(f"{self._procfs}/{pid}/environ")), True
        except OSError:
            return None, False

    def _ancestor_step(self, pid: int) -> tuple[str, str] | None:
        """Job and step of the slurmstepd that started the process. Only root's counts: titles can be changed."""
        for _ in range(_MAX_ANCESTORS):
            try:
                stat = read_file(f"{self._procfs}/{pid}/stat")
                pid = int(stat.rpartition(b")")[2].split()[1])
                if pid <= 1:
                    return None
                if b"(slurmstepd)" not in read_file(f"{self._procfs}/{pid}/stat"):
                    continue
                if parse_uid(read_file(f"{self._procfs}/{pid}/status")) == 0 and (
                    title := stepd_title(self._procfs, pid)
                ):
                    return title
            except (OSError, ValueError, IndexError):
                return None
        return None

    def _start_time(self, pid: int) -> bytes:
        """Start time in ticks since boot: distinguishes processes that reuse a pid."""
        fields = read_file(f"{self._procfs}/{pid}/stat").rpartition(b")")[2].split()
        if len(fields) <= _START_TIME_INDEX:
            raise ValueError(f"{self._procfs}/{pid}/stat is truncated")
        return fields[_START_TIME_INDEX]

    def _is_host_pid_namespace(self) -> bool:
        """Whether /proc is of the initial pid namespace, whose pids drivers report.

        Either we are in that namespace, or our entry in /proc has several pids, as in a /proc mounted from the host.
        """
        try:
            if os.readlink(f"{self._procfs}/self/ns/pid") == _INITIAL_PID_NAMESPACE:
                return True
            status = read_file(f"{self._procfs}/self/status")
        except OSError:
            return True  # a kernel without namespaces
        numbers = next((line.split()[1:] for line in status.split(b"\n") if line.startswith(b"NSpid:")), [])
        return len(numbers) > 1
