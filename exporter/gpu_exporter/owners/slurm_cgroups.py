"""The Slurm jobs of this node, with or without a process on a GPU, from the cgroups that slurmd created for them.

Which GPUs a job has: with cgroup v1 its device cgroup lists them; v2 has a BPF program instead, which cannot be read,
so the environment of the job's processes says it, if we may read that.

A job's cgroups are read when they appear or change, and once a minute: a job costs one listing of its folder otherwise.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gpu_exporter.host.kernel_files import read_file
from gpu_exporter.owners.slurm import is_root_folder, is_sluid, node_name, parse_job_folder, parse_step_folder
from gpu_exporter.owners.slurm_environment import SlurmEnvironment, gpus_of_step, parse_environment
from gpu_exporter.owners.slurm_gres import parse_device_list
from gpu_exporter.owners.users import parse_uid

#: How often an unchanged job is read again: its processes may have been restarted.
REREAD_SECONDS = 60.0
#: How long a job may take from its cgroup to its first process.
STARTING_SECONDS = 30.0
#: How often slurmd's cgroups are searched for; in between, those of known jobs are enough.
SEARCH_SECONDS = 60.0
#: slurmd's own depth is 2 (system.slice/slurmstepd.scope); CgroupSlice may be a nested slice.
_MAX_SEARCH_DEPTH = 4
#: Slices of others, with many folders and without Slurm.
_OTHER_SLICES = re.compile(r"kubepods.*|user\.slice|machine\.slice")
#: The title of a slurmstepd, such as `slurmstepd: [8.batch]`.
_STEPD_TITLE = re.compile(rb"slurmstepd: \[(?P<job>\d{1,19})(?:\.(?P<step>[\w.+-]+))?(?: stepmgr)?\]")
#: A job with more steps than this is read incompletely: their GPUs are also those of the batch script.
_MAX_STEPS = 64


@dataclass(frozen=True, slots=True)
class NodeJob:
    """A job with cgroups on this node. `number` is empty if only its SLUID is known.

    `devices`: (major, minor) of the devices that it may use; `gpu_indices`: global indices of its GPUs. None if not
    known this way. `uid`: of its user, None if not known.
    """

    key: str
    number: str
    uid: int | None
    devices: frozenset[tuple[int, int]] | None
    gpu_indices: frozenset[int] | None
    environment: SlurmEnvironment | None


@dataclass(frozen=True, slots=True)
class _CachedJob:
    state: object
    since: float
    read_at: float
    job: NodeJob

    def is_current(self, state: object, now: float) -> bool:
        if state != self.state or now - self.read_at >= REREAD_SECONDS:
            return False
        known = self.job.devices is not None or self.job.environment is not None
        return known or now - self.since >= STARTING_SECONDS


class SlurmCgroups:
    """Lists the jobs of this node. Not thread-safe."""

    def __init__(self, procfs: Path, sysfs: Path, nodename: str = "") -> None:
        """`nodename`: only its slurmd counts, if several share this machine and one of them has this name."""
        self._procfs, self._nodename = str(procfs), nodename
        mount = sysfs / "fs/cgroup"
        #: v2 alone, v2 beside v1, and the only hierarchy of v1 that says something of GPUs.
        self._mounts = (str(mount), str(mount / "unified"), str(mount / "devices"))
        self._learned: set[tuple[str, ...]] = set()
        self._roots: list[str] = []
        self._searched_at: float | None = None
        self._cache: dict[str, _CachedJob] = {}

    @property
    def found(self) -> bool:
        """Whether a slurmd runs, or ran, on this node."""
        return bool(self._roots)

    @property
    def node_name(self) -> str:
        """The node's name in Slurm, from the names of slurmd's cgroups; empty if none has it, or several differ."""
        names = {name for root in self._roots if (name := node_name(os.path.basename(root)))}
        return names.pop() if len(names) == 1 else ""

    def learn(self, roots: Iterable[tuple[str, ...]]) -> None:
        """Add cgroup paths of slurmd, as processes show them: it may run in a container, at any depth."""
        new = set(roots) - self._learned
        if new and len(self._learned) < 64:
            self._learned |= new
            self._searched_at = None

    def jobs(self, now: float) -> dict[str, NodeJob]:
        """The present jobs, by the name of their cgroup: the number, or the SLUID. `now` is monotonic seconds."""
        if self._searched_at is None or now - self._searched_at >= SEARCH_SECONDS:
            self._roots, self._searched_at = self._search(), now
        before, self._cache = self._cache, {}
        for root in self._roots:
            for key, folder, uid in _job_folders(root):
                if key not in self._cache:
                    self._cache[key] = self._read(key, folder, uid, before.get(key), now)
        return {key: cached.job for key, cached in self._cache.items()}

    def _search(self) -> list[str]:
        found: dict[str, None] = {}
        for mount in self._mounts:
            for path in self._learned:
                found[os.path.join(mount, *path)] = None
            for folder in _find_roots(mount, _MAX_SEARCH_DEPTH):
                found[folder] = None
        present = [folder for folder in found if os.path.isdir(folder)]
        names = {folder: node_name(os.path.basename(folder)) for folder in present}
        if self._nodename in names.values():
            return [folder for folder in present if names[folder] in ("", self._nodename)]
        return present

    def _read(self, key: str, folder: str, uid: int | None, known: _CachedJob | None, now: float) -> _CachedJob:
        steps = {name: path for path in _folders(folder) if (name := parse_step_folder(os.path.basename(path)))}
        # A requeued job has a cgroup of the same name, and another inode.
        state = (_inode(folder), tuple(steps))
        if known and known.is_current(state, now):
            return known
        number = "" if is_sluid(key) else key
        environment: SlurmEnvironment | None = None
        indices: frozenset[int] | None = None
        # The batch script knows all of the job's GPUs.
        for step, path in sorted(steps.items(), key=lambda item: (item[0] != "batch", item[0]))[:_MAX_STEPS]:
            number = number or self._number_from_stepd(path)
            read = self._read_environment(path)
            if read is None:
                continue
            found, owner = read
            if found.job != number and key not in (found.job, found.sluid):
                continue  # not this job's: the process changed its environment
            number, environment = number or found.job, environment or found
            uid = owner if uid is None else uid
            gpus = gpus_of_step(found, step)
            if gpus is not None:
                indices = (indices or frozenset()) | gpus
            if step == "batch":
                break
        devices = _read_device_list(folder)
        since = known.since if known and known.state == state else now
        return _CachedJob(state, since, now, NodeJob(key, number, uid, devices, indices, environment))

    def _number_from_stepd(self, step: str) -> str:
        """The job's number in the title of the step's slurmstepd, which everybody may read."""
        for pid in _pids(os.path.join(step, "slurm")):
            title = stepd_title(self._procfs, pid)
            if title:
                return title[0]
        return ""

    def _read_environment(self, step: str) -> tuple[SlurmEnvironment, int] | None:
        """Of the step's first readable process, with its uid."""
        for pid in _step_pids(step):
            try:
                environment = parse_environment(read_file(f"{self._procfs}/{pid}/environ"))
                uid = parse_uid(read_file(f"{self._procfs}/{pid}/status"))
            except (OSError, ValueError):
                continue
            if environment:
                return environment, uid
        return None


def stepd_title(procfs: str, pid: int) -> tuple[str, str] | None:
    """Job and step of a slurmstepd, None if this process is none."""
    try:
        match = _STEPD_TITLE.match(read_file(f"{procfs}/{pid}/cmdline"))
    except OSError:
        return None
    return (match["job"].decode(), (match["step"] or b"").decode()) if match else None


def _find_roots(folder: str, depth: int) -> Iterator[str]:
    for path in _folders(folder):
        name = os.path.basename(path)
        if is_root_folder(name):
            yield path
        elif depth > 1 and name.endswith(".slice") and not _OTHER_SLICES.fullmatch(name):
            yield from _find_roots(path, depth - 1)


def _job_folders(root: str) -> Iterator[tuple[str, str, int | None]]:
    """(job, folder, uid) of each job below slurmd's cgroup."""
    for path in _folders(root):
        name = os.path.basename(path)
        if job := parse_job_folder(name):
            yield job, path, None
        elif name.startswith("uid_") and name[4:].isdigit():
            for inner in _folders(path):
                if job := parse_job_folder(os.path.basename(inner)):
                    yield job, inner, int(name[4:])


def _step_pids(step: str) -> list[int]:
    """Processes of the user in a step, the first of its first task first."""
    inner = [path for path in _folders(step) if not path.endswith("/slurm")]
    tasks = [task for path in inner for task in _folders(path)]
    return [pid for folder in (*tasks, *inner, step) for pid in _pids(folder)]


def _pids(folder: str) -> list[int]:
    try:
        return sorted(int(pid) for pid in read_file(os.path.join(folder, "cgroup.procs")).split())
    except (OSError, ValueError):
        return []


def _folders(folder: str) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []


def _inode(folder: str) -> int:
    try:
        return os.stat(folder).st_ino
    except OSError:
        return 0


def _read_device_list(folder: str) -> frozenset[tuple[int, int]] | None:
    try:
        return parse_device_list(read_file(os.path.join(folder, "devices.list")).decode("ascii", "replace"))
    except OSError:
        return None
