"""Slurm jobs and steps, from the cgroups that slurmd creates.

    v1  slurm/uid_<uid>/job_<id>/step_<id>/task_<n>, with slurm_<node> if several slurmd share a machine
    v2  system.slice/[<node>_]slurmstepd.scope/<job>/step_<id>/user/task_<n>

In v2, <job> is job_<id>; from 26.05 on the job's SLUID, such as s3A9M8KZQ0N500, unless CgroupJobIdPaths=yes is set. A
step is a number, or batch, extern, interactive; of a heterogeneous job, 0+1. All of this may be inside other cgroups.
Sources: Slurm's documentation of cgroups and cgroup.conf, and of its SLUIDs.
"""

from __future__ import annotations

import re

from gpu_exporter.owners.base import Owner, OwnerKind

_JOB = re.compile(r"job_(?P<id>\d{1,19})")
_STEP = re.compile(r"step_(?P<id>[\w.+-]+)")
_ROOT = re.compile(r"slurm(?:_(?P<v1>.+))?|(?:(?P<v2>.+)_)?slurmstepd\.scope")
#: 64 bits in Crockford's base 32: the first digit has the remaining four.
_SLUID = re.compile(r"s[0-9A-F][0-9A-HJKMNP-TV-Z]{12}")


def parse(path: tuple[str, ...]) -> Owner | None:
    """The job and step of a cgroup path. The job is a SLUID if the path does not contain its number."""
    at = _job_index(path)
    if at is None:
        return None
    step = parse_step_folder(path[at + 1]) if at + 1 < len(path) else ""
    return Owner(OwnerKind.SLURM, slurm_job=parse_job_folder(path[at]), slurm_step=step)


def job_root(path: tuple[str, ...]) -> tuple[str, ...] | None:
    """The part of a cgroup path that all jobs of this slurmd share, without uid_<uid>; None if it is not of a job."""
    at = _job_index(path)
    if at is None:
        return None
    return path[: at - 1] if at and path[at - 1].startswith("uid_") else path[:at]


def _job_index(path: tuple[str, ...]) -> int | None:
    for i, name in enumerate(path):
        if not parse_job_folder(name):
            continue
        # Other cgroups may also be named job_1. Inside Slurm's scope, the path does not contain its name.
        if any(map(is_root_folder, path[:i])) or (i + 1 < len(path) and parse_step_folder(path[i + 1])):
            return i
    return None


def parse_job_folder(name: str) -> str:
    """The job's number, or its SLUID; empty if a cgroup of this name is not a job's."""
    if match := _JOB.fullmatch(name):
        return match["id"]
    return name if _SLUID.fullmatch(name) else ""


def parse_step_folder(name: str) -> str:
    """The step's name; empty if a cgroup of this name is not a step's."""
    match = _STEP.fullmatch(name)
    return match["id"] if match else ""


def is_root_folder(name: str) -> bool:
    """Whether slurmd may have created a cgroup of this name for all of its jobs."""
    return bool(_ROOT.fullmatch(name))


def node_name(root: str) -> str:
    """The node's name in the name of slurmd's cgroup; empty if it has none."""
    match = _ROOT.fullmatch(root)
    return (match["v1"] or match["v2"] or "") if match else ""


def is_sluid(job: str) -> bool:
    """Whether this is a SLUID, which stands for a job whose number is not known."""
    return not job.isdigit()
