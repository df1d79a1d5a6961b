"""GPUs on a Slurm cluster: inventory, the sbatch line for a request, and submission.

Slurm schedules: a request becomes a job in its queue, which reserves nothing else. There are no leases here.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpu_advisor.allocation.errors import (
    AllocationError,
    InvalidRequestError,
    TokenConflictError,
    UnknownAllocationError,
)
from gpu_advisor.allocation.gpu_request import GpuRequest
from gpu_advisor.allocation.slurm.cluster_nodes import SlurmCluster, parse_cluster
from gpu_advisor.allocation.slurm.job_plan import JobPlan
from gpu_advisor.allocation.slurm.sbatch import (
    SQUEUE_FORMAT,
    JobOptions,
    JobState,
    content_hash,
    job_arguments,
    parse_jobs,
    sbatch_options,
)

CALL_TIMEOUT_SECONDS = 60.0

#: Runs a command and returns its output. Raises SlurmError.
Runner = Callable[[Sequence[str]], str]


class SlurmError(AllocationError):
    """A command of Slurm failed. The message has its own, and says how to fix it."""


class JobNotManagedError(SlurmError):
    """The job was not submitted by gpu-advisor, so it is not changed."""


def run_command(command: Sequence[str]) -> str:
    """Run one of Slurm's commands. Raises SlurmError with its message."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL,
            timeout=CALL_TIMEOUT_SECONDS, check=False,
            env={**os.environ, "LC_ALL": "C.UTF-8", "SLURM_TIME_FORMAT": "standard"},
        )  # fmt: skip
    except FileNotFoundError as error:
        raise SlurmError(f"{command[0]} is not installed: run this on a login node of the Slurm cluster") from error
    except subprocess.TimeoutExpired as error:
        raise SlurmError(
            f"{command[0]} did not respond within {CALL_TIMEOUT_SECONDS:g} s: is slurmctld reachable?"
        ) from error
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise SlurmError(f"{command[0]}: {lines[-1] if lines else f'exit code {done.returncode}'}")
    return done.stdout


@dataclass(frozen=True, slots=True)
class SubmittedJob:
    """`created` is False if an earlier call with the token had submitted it."""

    id: str
    created: bool


@dataclass(frozen=True, slots=True)
class SlurmBackend:
    """The cluster that Slurm's commands reach. Methods raise SlurmError."""

    run: Runner = run_command

    def cluster(self) -> SlurmCluster:
        """All nodes with GPUs, and the partitions."""
        show = ("scontrol", "--oneliner", "--details", "show")
        return parse_cluster(self.run((*show, "nodes")), self.run((*show, "partitions")))

    def command_line(
        self, plan: JobPlan, request: GpuRequest, options: JobOptions, command: Sequence[str] = ()
    ) -> list[str]:
        """The sbatch line. Without a command, the batch script is still to be added."""
        return ["sbatch", *sbatch_options(plan, request, options, command), *_arguments(plan, command)]

    def submit(self, plan: JobPlan, request: GpuRequest, options: JobOptions, command: Sequence[str]) -> SubmittedJob:
        """Submit the job. Idempotent by token, while the job is in the queue: the same token returns the same job, and
        raises TokenConflictError with another command or request."""
        if not command:
            raise InvalidRequestError("command", "missing: give what the job runs after --, as in -- python train.py")
        if any(character in options.token for character in "|,\n"):
            raise InvalidRequestError("token", f"{options.token!r}: must not contain commas, pipes or line breaks")
        if options.token and (known := next((job for job in self.jobs() if job.token == options.token), None)):
            if known.content_hash != content_hash(request, command):
                raise TokenConflictError(
                    f"job {known.id} was submitted with this token, but with another command or request: use a new "
                    "token for a new job"
                )
            return SubmittedJob(known.id, created=False)
        sbatch, *rest = self.command_line(plan, request, options, command)
        return SubmittedJob(self.run((sbatch, "--parsable", *rest)).strip().partition(";")[0], created=True)

    def jobs(self) -> list[JobState]:
        """The user's jobs that were submitted here, and are still in the queue."""
        return parse_jobs(self.run(("squeue", "--me", "--noheader", f"--format={SQUEUE_FORMAT}")))

    def cancel(self, job: str) -> None:
        """Cancel a job. Raises JobNotManagedError if it was not submitted here, UnknownAllocationError if it ended."""
        if job not in {each.id for each in self.jobs()}:
            if not job.isdigit():
                raise UnknownAllocationError(f"{job!r} is no job id")
            known = self.run(("squeue", "--me", "--noheader", "--format=%A")).split()
            if job in known:
                raise JobNotManagedError(f"job {job} was not submitted by gpu-advisor: cancel it with scancel {job}")
            raise UnknownAllocationError(f"no job {job} of yours is in the queue")
        self.run(("scancel", job))


def shell_line(command: Sequence[str]) -> str:
    """The command as a line for a shell."""
    return shlex.join(command)


def _arguments(plan: JobPlan, command: Sequence[str]) -> list[str]:
    return job_arguments(plan, command, bool(command) and _is_script(Path(command[0])))


def _is_script(path: Path) -> bool:
    """Whether sbatch takes this file as a batch script: it starts with #!."""
    try:
        with path.open("rb") as file:
            return file.read(2) == b"#!"
    except OSError:
        return False
