"""Slurm jobs and their steps.

    v1  slurm/uid_<uid>/job_<id>/step_<id>/task_<n>, with slurm_<node> where several slurmd share a machine
    v2  system.slice/[<node>_]slurmstepd.scope/job_<id>/step_<id>/user/task_<n>

A step is a number, or batch, extern, interactive. Sources: Slurm's pages on its cgroup and cgroup/v2 plugins.
"""

from __future__ import annotations

import re

from gpu_exporter.owners.base import Owner, OwnerKind

_JOB = re.compile(r"job_(?P<id>\d+)")
_STEP = re.compile(r"step_(?P<id>[\w.+-]+)")
_ROOT = re.compile(r"slurm(?:_.+)?|(?:.+_)?slurmstepd\.scope")


def parse(path: tuple[str, ...]) -> Owner | None:
    for i, name in enumerate(path):
        job = _JOB.fullmatch(name)
        if not job:
            continue
        step = _STEP.fullmatch(path[i + 1]) if i + 1 < len(path) else None
        # Anybody may call a control group job_1. Seen from inside Slurm's scope, its own name is not in the path.
        if step or any(map(_ROOT.fullmatch, path[:i])):
            return Owner(OwnerKind.SLURM, slurm_job=job["id"], slurm_step=step["id"] if step else "")
    return None
