"""A job plan as the options of sbatch, and the state of a job from squeue. Pure. Sources: sbatch(1), squeue(1)."""

from __future__ import annotations

import hashlib
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from gpu_advisor.allocation.gpu_request import GpuRequest
from gpu_advisor.allocation.slurm.job_plan import JobPlan

#: Marks our jobs in the comment: `gpu-advisor:TOKEN:HASH`.
COMMENT_PREFIX = "gpu-advisor"
#: squeue's fields of JobState, in order.
SQUEUE_FORMAT = "%A|%T|%r|%D|%N|%b|%L|%S|%k|%j"
MAX_JOB_NAME_LENGTH = 64


@dataclass(frozen=True, slots=True)
class JobOptions:
    """What a request does not say. Empty: Slurm's default."""

    name: str = ""
    account: str = ""
    token: str = ""


@dataclass(frozen=True, slots=True)
class JobState:
    """A job as squeue shows it; fields that do not apply are empty. `state`: PENDING, RUNNING, ...; `reason`: why it
    waits."""

    id: str
    state: str
    reason: str
    nodes: int
    node_list: str
    gres: str
    time_left: str
    starts: str
    token: str
    content_hash: str
    name: str


def sbatch_options(plan: JobPlan, request: GpuRequest, options: JobOptions, command: Sequence[str]) -> list[str]:
    """The options of sbatch for a plan. `command`: what the job runs."""
    gres = ":".join(filter(None, ("gpu", plan.gres_type, str(plan.gpus_per_node))))
    found = [f"--gres={gres}", f"--nodes={plan.nodes}"]
    if plan.nodes > 1:
        found.append("--ntasks-per-node=1")  # one launcher per node, such as torchrun
    if plan.features:
        found.append(f"--constraint={'|'.join(plan.features)}")
    if plan.excluded:
        found.append(f"--exclude={','.join(plan.excluded)}")
    if plan.partitions:
        found.append(f"--partition={','.join(plan.partitions)}")
    if plan.time_limit_seconds is not None:
        found.append(f"--time={format_time_limit(plan.time_limit_seconds)}")
    if options.name:
        found.append(f"--job-name={options.name[:MAX_JOB_NAME_LENGTH]}")
    if options.account:
        found.append(f"--account={options.account}")
    found.append(f"--comment={COMMENT_PREFIX}:{options.token}:{content_hash(request, command)}")
    return found


def job_arguments(plan: JobPlan, command: Sequence[str], is_script: bool) -> list[str]:
    """The rest of the sbatch line: a batch script and its arguments, or the command, on each node of the job."""
    if not command:
        return []
    if is_script:
        return list(command)
    return [f"--wrap={'srun ' if plan.nodes > 1 else ''}{shlex.join(command)}"]


def format_time_limit(seconds: float) -> str:
    """Slurm's D-HH:MM:SS, rounded up to whole minutes, as Slurm counts."""
    minutes = max(1, math.ceil(seconds / 60))
    days, rest = divmod(minutes, 24 * 60)
    return f"{days}-{rest // 60:02}:{rest % 60:02}:00" if days else f"{rest // 60:02}:{rest % 60:02}:00"


def content_hash(request: GpuRequest, command: Sequence[str]) -> str:
    """Distinguishes requests with the same token."""
    return hashlib.sha256(repr((request, tuple(command))).encode()).hexdigest()[:12]


def parse_jobs(text: str) -> list[JobState]:
    """Our jobs in the output of squeue with SQUEUE_FORMAT."""
    found = []
    for line in text.splitlines():
        fields = line.split("|", 9)
        if len(fields) < 10 or not fields[8].startswith(f"{COMMENT_PREFIX}:"):
            continue
        id_, state, reason, nodes, node_list, gres, left, starts, comment, name = fields
        _, _, rest = comment.partition(":")
        token, _, hash_ = rest.rpartition(":")
        waits = state == "PENDING"
        found.append(
            JobState(
                id_, state, reason if waits and reason != "None" else "", int(nodes) if nodes.isdigit() else 0,
                "" if waits else node_list, gres.removeprefix("gres:").removeprefix("gres/"),
                "" if waits else left, starts if starts != "N/A" else "", token, hash_, name,
            )
        )  # fmt: skip
    return found
