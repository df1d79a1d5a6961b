"""Slurm jobs and steps.

    v1  slurm/uid_<uid>/job_<id>/step_<id>/task_<n>, with slurm_<node> if several slurmd share a machine
    v2  system.slice/[<node>_]slurmstepd.scope/job_<id>/step_<id>/user/task_<n>

A step is a number, or batch, extern, interactive. Sources: Slurm's documentation of its cgroup and cgroup/v2 plugins.
"""

from __future__ import annotations

import re

from gpu_exporter.owners.base import Owner, OwnerKind

_JOB = re.compile(r"job_(?P<id>\d+)")
_STEP = re.compile(r"step_(?P<id>[\w.+-]+)")
_ROOT = re.compile(r"slurm(?:_.+)?|(?:.+_)?slurmstepd\.scope")


def parse(path: tuple[str, ...]) -> Owner | None:
    """The job and step of a cgroup path."""
    for i, name in enumerate(path):
        job = _JOB.fullmatch(name)
        if not job:
            continue
        step = _STEP.fullmatch(path[i + 1]) if i + 1 < len(path) else None
        # Other cgroups may also be named job_1. Inside Slurm's scope, the path does not contain its name.
        if step or any(map(_ROOT.fullmatch, path[:i])):
            return Owner(OwnerKind.SLURM, slurm_job=job["id"], slurm_step=step["id"] if step else "")
    return None
