"""Whose a process is, from its files in /proc; remembered while it lives."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from gpu_exporter.host.kernel_files import read_file
from gpu_exporter.owners import parse_owner
from gpu_exporter.owners.base import Owner, OwnerKind
from gpu_exporter.owners.users import UserNames

#: A process can be moved to another control group (pam_slurm_adopt, systemd-run): it is read again after this time.
KEEP_SECONDS = 60.0
#: What the kernel calls the first namespace of processes (PROC_PID_INIT_INO in include/linux/proc_ns.h).
_INITIAL_PID_NAMESPACE = "pid:[4026531836]"
#: Fields of /proc/<pid>/stat after the command's name, which may hold anything: the state is the first (proc(5)).
_START_TIME_INDEX = 19


class NotHostPidNamespace(Exception):
    """The pids that a driver names are the host's, and what /proc shows here are others: none may be looked up."""


@dataclass(frozen=True, slots=True)
class _CachedOwner:
    started: bytes
    owner: Owner
    read_at: float


class ProcessOwners:
    """Looks up the owners of processes by pid."""

    def __init__(self, procfs: Path, users: UserNames) -> None:
        self._procfs = str(procfs)
        self._users = users
        self._cache: dict[int, _CachedOwner] = {}

    def owners(self, pids: Iterable[int], now: float) -> dict[int, Owner]:
        """The owners of those of these processes that live. `now` is monotonic seconds.

        What was known of others is forgotten. Raises NotHostPidNamespace; PermissionError if /proc hides the
        processes of others from us.
        """
        if not self._is_host_pid_namespace():
            raise NotHostPidNamespace(
                f"{self._procfs} is that of a container: run the exporter in the host's pid namespace"
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
            raise PermissionError(f"{self._procfs} is mounted with hidepid: run the exporter as root, or in its group")
        return {pid: known.owner for pid, known in self._cache.items()}

    def _lookup(self, pid: int, known: _CachedOwner | None, now: float) -> _CachedOwner | None:
        try:
            started = self._start_time(pid)
            if known and known.started == started and now - known.read_at < KEEP_SECONDS:
                return known
            owner = parse_owner(read_file(f"{self._procfs}/{pid}/cgroup").decode("utf-8", "replace"))
            uid = _parse_uid(read_file(f"{self._procfs}/{pid}/status"))
            if self._start_time(pid) != started:
                return None  # another process has taken the pid while we read
        except (OSError, ValueError):
            return None  # it has ended
        # A uid inside a pod is of the container's image and says nothing about the host's users.
        if owner.kind is not OwnerKind.KUBERNETES:
            owner = replace(owner, user=self._users.name(uid, now))
        return _CachedOwner(started, owner, now)

    def _start_time(self, pid: int) -> bytes:
        """Ticks since boot: what tells a process from a later one with the same pid."""
        fields = read_file(f"{self._procfs}/{pid}/stat").rpartition(b")")[2].split()
        if len(fields) <= _START_TIME_INDEX:
            raise ValueError(f"{self._procfs}/{pid}/stat is cut short")
        return fields[_START_TIME_INDEX]

    def _is_host_pid_namespace(self) -> bool:
        """Whether this /proc is of the namespace in which drivers count.

        Our own entry there tells: either we are in the first namespace, or the entry has one more pid than that,
        which a /proc that was mounted from outside shows.
        """
        try:
            if os.readlink(f"{self._procfs}/self/ns/pid") == _INITIAL_PID_NAMESPACE:
                return True
            status = read_file(f"{self._procfs}/self/status")
        except OSError:
            return True  # a kernel without namespaces
        numbers = next((line.split()[1:] for line in status.split(b"\n") if line.startswith(b"NSpid:")), [])
        return len(numbers) > 1


def _parse_uid(status: bytes) -> int:
    """The real uid in /proc/<pid>/status; the owner of the folder would be root for a process that hides its memory."""
    for line in status.split(b"\n"):
        if line.startswith(b"Uid:"):
            return int(line.split()[1])
    raise ValueError("no Uid in the status of the process")
