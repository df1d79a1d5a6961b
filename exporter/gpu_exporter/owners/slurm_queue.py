"""Pending Slurm jobs that ask for GPUs: demand that utilization cannot show.

Only jobs that would run if there were GPUs count as eligible. Those that are held, wait for another job or a start
time, or have reached a limit would not run on more GPUs either. For the whole cluster, so one machine of it asks, once
a minute. Sources: squeue(1), the job reasons in Slurm's documentation.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from gpu_exporter import metrics
from gpu_exporter.metrics import FamilySamples, MetricFamily, group_by_family
from gpu_exporter.owners.scontrol import find_program

INTERVAL_SECONDS = 60.0
CALL_TIMEOUT_SECONDS = 30.0
SCHEDULER = "slurm"
MAX_REASON_LENGTH = 64

#: Waiting for resources, for jobs that are first, or not yet considered.
ELIGIBLE_REASONS = frozenset({"Resources", "Priority", "None"})

_FIELDS = (
    "JobArrayID", "Partition", "Reason", "NumNodes", "NumTasks", "tres-per-job", "tres-per-node", "tres-per-socket",
    "tres-per-task",
)  # fmt: skip
SQUEUE_COMMAND = ("squeue", "--noheader", "--all", "--states=PENDING", f"--Format={':|,'.join(_FIELDS)}:|")
SINFO_COMMAND = ("sinfo", "--noheader", "--all", "--format=%R")

#: `gres:gpu:h100:2`, `gres/gpu:2`, `gres/gpu=1`; without a number it is one.
_GPUS = re.compile(r"(?:gres[:/])?gpu(?:[:/](?P<type>[a-zA-Z][^:=,]*))?(?:[:=](?P<count>\d+))?")
_SHARES = re.compile(r"(?:gres[:/])?(?:shard|mps)\b.*")
_ARRAY = re.compile(r"\d+_\[(?P<tasks>[\d,:-]+)(?:%(?P<limit>\d+))?\]")

#: Runs a command and returns its output. Raises OSError or QueueError.
Runner = Callable[[Sequence[str]], str]


class QueueError(Exception):
    """squeue or sinfo failed. The message has its own."""


@dataclass(frozen=True, slots=True)
class PendingJob:
    """A pending job that asks for GPUs, or all pending tasks of an array. `gpus` of each; 0 for shares of a GPU.

    `partition` is the first of several. `reason` is without its details, such as the names of nodes.
    """

    partition: str
    reason: str
    tasks: int
    gpus: int

    @property
    def is_eligible(self) -> bool:
        return self.reason in ELIGIBLE_REASONS


def parse_queue(text: str) -> list[PendingJob]:
    """The jobs that ask for GPUs in the output of SQUEUE_COMMAND."""
    return [job for line in text.splitlines() if (job := _parse_line(line))]


def _parse_line(line: str) -> PendingJob | None:
    fields = [field.strip() for field in line.split("|")]
    if len(fields) < len(_FIELDS):
        return None
    job, partition, reason, nodes, tasks, per_job, per_node, per_socket, per_task = fields[: len(_FIELDS)]
    requests = (
        (per_job, 1), (per_node, _first_number(nodes)), (per_socket, _first_number(nodes)),
        (per_task, _first_number(tasks)),
    )  # fmt: skip
    # A job may give the total and the number per node: the total is the larger one, or both are equal.
    gpus = max(_gpus(text) * times for text, times in requests)
    if not gpus and not any(_SHARES.fullmatch(entry) for text, _ in requests for entry in text.split(",")):
        return None
    return PendingJob(partition.partition(",")[0], _plain_reason(reason), _array_tasks(job), gpus)


def _gpus(request: str) -> int:
    """GPUs of one request: `gres/gpu:a:2,gres/gpu:b:1` -> 3. Slurm may list their sum beside the types."""
    matches = [match for entry in request.split(",") if (match := _GPUS.fullmatch(entry))]
    of_types = sum(int(match["count"] or 1) for match in matches if match["type"])
    return max(of_types, sum(int(match["count"] or 1) for match in matches if not match["type"]))


def _plain_reason(reason: str) -> str:
    """`ReqNodeNotAvail,_UnavailableNodes:gpu[1-3]` -> ReqNodeNotAvail: as a label, it has few values."""
    return re.split(r"[,(:]", reason, maxsplit=1)[0].rstrip("_ ")[:MAX_REASON_LENGTH]


def _array_tasks(job: str) -> int:
    """Tasks of an array that may run at once: `6_[1-5%2]` -> 2. 1 for other jobs."""
    match = _ARRAY.fullmatch(job)
    if not match:
        return 1
    count = 0
    for first, last, step in re.findall(r"(\d+)(?:-(\d+)(?::(\d+))?)?", match["tasks"]):
        count += len(range(int(first), int(last or first) + 1, max(1, int(step or 1))))
    return min(count, int(match["limit"])) if match["limit"] else count


def _first_number(text: str) -> int:
    """The least number of `2-4`; 1 if there is none."""
    match = re.match(r"\d+", text)
    return max(1, int(match[0])) if match else 1


class SlurmQueueCollector:
    """Collects the pending jobs. Has the interface of a host collector."""

    def __init__(self, run: Runner | None = None) -> None:
        self._run = run or run_command

    def collect(self) -> list[FamilySamples]:
        """Raises OSError or QueueError. A partition without such jobs has zero of them."""
        partitions = self._run(SINFO_COMMAND).split()
        return group_by_family(list(_rows(parse_queue(self._run(SQUEUE_COMMAND)), partitions)))


def _rows(
    jobs: Sequence[PendingJob], partitions: Sequence[str]
) -> Iterator[tuple[MetricFamily, tuple[str, ...], float]]:
    eligible, gpus, blocked = Counter[str](), Counter[str](), Counter[tuple[str, str]]()
    for job in jobs:
        if job.is_eligible:
            eligible[job.partition] += job.tasks
            gpus[job.partition] += job.tasks * job.gpus
        else:
            blocked[job.partition, job.reason] += job.tasks
    for partition in sorted({*partitions, *eligible}):
        yield metrics.QUEUE_ELIGIBLE_JOBS, (SCHEDULER, partition), float(eligible[partition])
        yield metrics.QUEUE_ELIGIBLE_GPUS, (SCHEDULER, partition), float(gpus[partition])
    for (partition, reason), count in sorted(blocked.items()):
        yield metrics.QUEUE_BLOCKED_JOBS, (SCHEDULER, partition, reason), float(count)


def run_command(command: Sequence[str]) -> str:
    """Run squeue or sinfo. Raises QueueError with its message, FileNotFoundError if it is not on PATH."""
    path = find_program(command[0])
    if path is None:
        raise FileNotFoundError(f"{command[0]} is not on PATH: install Slurm's client commands")
    import subprocess  # only where there is Slurm: it costs half a megabyte

    try:
        done = subprocess.run(
            [path, *command[1:]], stdin=subprocess.DEVNULL, capture_output=True, timeout=CALL_TIMEOUT_SECONDS,
            # Without a limit of the length of array ids; other variables would change what squeue prints.
            env={**_without_defaults(), "SLURM_BITSTR_LEN": "0", "LC_ALL": "C"}, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise QueueError(
            f"{command[0]} did not answer within {CALL_TIMEOUT_SECONDS:g} s: is slurmctld reachable?"
        ) from error
    if done.returncode:
        message = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise QueueError(f"{command[0]}: {message[0] if message else f'exit code {done.returncode}'}")
    return done.stdout.decode("utf-8", "replace")


def _without_defaults() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("SQUEUE_", "SINFO_"))}
