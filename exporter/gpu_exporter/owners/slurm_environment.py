"""What the environment of a process says about its Slurm job. Pure.

slurmd sets these variables when it starts a batch script or step; sbatch(1) and srun(1) document them, and
https://slurm.schedmd.com/heterogeneous_jobs.html those of heterogeneous jobs. A process can change its own, so nothing
here decides which job a process belongs to where cgroups do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gpu_exporter.owners.slurm_gres import parse_indices

#: A job's name may be longer than is useful in a label.
MAX_LABEL_LENGTH = 128

#: Ids of the steps that have no number (slurm.h); since 26.05 they are in the environment.
_NAMED_STEPS = {-4: "extern", -5: "batch", -6: "interactive"}


@dataclass(frozen=True, slots=True)
class JobDetails:
    """A job beside its number. Unknown fields are empty.

    `array_task` is as squeue shows it: array and task, 6_1, or heterogeneous job and component, 6+0.
    """

    name: str = ""
    user: str = ""
    account: str = ""
    partition: str = ""
    array_task: str = ""


@dataclass(frozen=True, slots=True)
class SlurmEnvironment:
    """The variables of one process. Unknown ones are empty or None.

    `job_gpus` are global indices of the job's GPUs on the node of its batch script, `step_gpus` of the step's GPUs on
    this node. Steps on other nodes inherit `job_gpus` from the batch script: there they are wrong.
    """

    job: str
    sluid: str
    step: str
    uid: str
    details: JobDetails
    job_gpus: frozenset[int] | None
    step_gpus: frozenset[int] | None


def parse_environment(environ: bytes) -> SlurmEnvironment | None:
    """Parse /proc/<pid>/environ; None if the process belongs to no Slurm job."""
    if b"SLURM_JOB" not in environ:
        return None
    variables: dict[str, str] = {}
    for entry in environ.split(b"\0"):
        if entry.startswith(b"SLURM_"):
            name, _, value = entry.partition(b"=")
            variables.setdefault(name.decode("utf-8", "replace"), value.decode("utf-8", "replace"))
    get = variables.get
    job = get("SLURM_JOB_ID") or get("SLURM_JOBID", "")
    if not _is_number(job):
        return None
    array, task = get("SLURM_ARRAY_JOB_ID", ""), get("SLURM_ARRAY_TASK_ID", "")
    return SlurmEnvironment(
        job,
        get("SLURM_JOB_SLUID", ""),
        _step_name(get("SLURM_STEP_ID") or get("SLURM_STEPID", "")),
        get("SLURM_JOB_UID", ""),
        JobDetails(
            name=get("SLURM_JOB_NAME", "")[:MAX_LABEL_LENGTH],
            user=get("SLURM_JOB_USER", "")[:MAX_LABEL_LENGTH],
            account=get("SLURM_JOB_ACCOUNT", "")[:MAX_LABEL_LENGTH],
            partition=get("SLURM_JOB_PARTITION", "")[:MAX_LABEL_LENGTH],
            array_task=number_within(array, task, "_") or number_within(*_component(variables, job), "+"),
        ),
        parse_indices(get("SLURM_JOB_GPUS", "")),
        parse_indices(get("SLURM_STEP_GPUS", "")),
    )


def number_within(whole: str, part: str, sign: str) -> str:
    """The number of a task of an array, or of a component of a heterogeneous job; empty if it is neither."""
    return f"{whole}{sign}{part}" if _is_number(whole) and _is_number(part) else ""


def _component(variables: Mapping[str, str], job: str) -> tuple[str, str]:
    """The heterogeneous job and the component that is this job; empty if it is none."""
    prefix = "SLURM_JOB_ID_HET_GROUP_"
    own = (name.removeprefix(prefix) for name, value in variables.items() if name.startswith(prefix) and value == job)
    return variables.get(f"{prefix}0", ""), next(own, "")


def gpus_of_step(environment: SlurmEnvironment, step: str) -> frozenset[int] | None:
    """Global indices of GPUs on this node that a process in this step proves to be the job's; None if it does not say.

    A batch script lists all of the job's GPUs on its node, a step those of the step, of which there may be more.
    """
    if step == "batch":
        return environment.job_gpus or frozenset()
    if environment.step_gpus is not None:
        return environment.step_gpus
    return environment.job_gpus if step in ("interactive", "extern") else None


def _step_name(text: str) -> str:
    if not text.removeprefix("-").isdigit() or len(text) > 11:
        return ""
    number = int(text)
    number -= 1 << 32 if number >= 1 << 31 else 0
    return _NAMED_STEPS.get(number, "") if number < 0 else str(number)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 19
