"""What Slurm's controller knows of this node: which GPUs are allocated, and to which jobs. One process, once a minute.

The controller serves the whole cluster, so a node asks for itself and for the jobs that it sees, and nodes ask at
different times. Only a GPU that is allocated to a job without any cgroup here (salloc without a step) makes the node
ask for all jobs, once.

`scontrol` reads commands from standard input. `show node` costs the controller one record; `show job` with details also
loads all nodes, so it is for jobs whose GPUs are not known otherwise.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from gpu_exporter.owners.slurm_environment import MAX_LABEL_LENGTH, JobDetails, number_within
from gpu_exporter.owners.slurm_gres import expand_hostlist, parse_gres

#: The controller retries for MessageTimeout, 10 s by default.
CALL_TIMEOUT_SECONDS = 20.0
#: Retry interval where there is no scontrol, or no such node.
ABSENT_RETRY_SECONDS = 600.0
#: How many intervals the last good answer is used.
MAX_STALE_INTERVALS = 3
#: Listing all jobs again for the same GPUs waits this long.
LIST_ALL_SECONDS = 600.0
#: The jobs of a large cluster have some tens of megabytes.
MAX_OUTPUT_BYTES = 64 << 20

#: States in which a job has its GPUs (squeue(1)).
_ALLOCATED_STATES = ("RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING", "STOPPED", "SIGNALING", "STAGE_OUT")
_RECORD = re.compile(r"^(?=(?:JobId|NodeName)=)", re.MULTILINE)
#: Printed before each answer, also without a terminal.
_PROMPT = re.compile(r"^(?:scontrol: ?)+", re.MULTILINE)
_JOB_GRES = re.compile(r"^\s+Nodes=(?P<nodes>\S+) CPU_IDs=\S* Mem=\S* GRES=(?P<gres>\S*)", re.MULTILINE)


class ScontrolError(Exception):
    """scontrol failed. The message has its own."""


@dataclass(frozen=True, slots=True)
class ScontrolJob:
    """A job that the controller knows. `gpu_indices`: of its GPUs on this node, None if not given; `holds`: whether its
    state is one in which it has them."""

    number: str
    sluid: str
    holds: bool
    details: JobDetails
    gpu_indices: frozenset[int] | None


@dataclass(frozen=True, slots=True)
class ScontrolAnswer:
    """`used_indices`: GPUs of this node that are allocated to jobs, None if not known."""

    used_indices: frozenset[int] | None
    jobs: Mapping[str, ScontrolJob]


@dataclass(frozen=True, slots=True)
class ScontrolStatus:
    """`state` is ok, stale, absent, not_yet or failed; `answer` None if there is none that may be used."""

    state: str
    answer: ScontrolAnswer | None = None


@dataclass(frozen=True, slots=True)
class ScontrolQuery:
    """What to ask for: this node, jobs, those of them whose GPUs are needed, and all jobs because of unknown GPUs."""

    node: str
    jobs: frozenset[str] = frozenset()
    detailed: frozenset[str] = frozenset()
    unexplained: frozenset[int] = frozenset()


def script(query: ScontrolQuery, all_jobs: bool) -> str:
    """The commands for scontrol. Details cannot be switched off again, so they come last."""
    lines = [f"show job {number}" for number in sorted(query.jobs - query.detailed)]
    lines += ["details", f"show node {query.node}"]
    lines += ["show job"] if all_jobs else [f"show job {number}" for number in sorted(query.detailed)]
    return "\n".join(lines) + "\nquit\n"


def parse_answer(text: str, node: str) -> ScontrolAnswer:
    """Parse what scontrol printed. Raises ScontrolError if this node is not in it."""
    used: frozenset[int] | None = None
    jobs: dict[str, ScontrolJob] = {}
    forged: set[str] = set()
    found = False
    for record in _RECORD.split(_PROMPT.sub("", text)):
        if record.startswith("NodeName="):
            found = True
            gres = re.search(r"^\s+GresUsed=(\S*)", record, re.MULTILINE)
            used = parse_gres(gres[1]) if gres else None
        elif record.startswith("JobId="):
            job = _parse_job(record, node)
            known = jobs.get(job.number, job)  # the number of an array's last task shows all of its tasks
            jobs[job.number] = job if known.gpu_indices is None else known
            if not _agree(job, known):
                forged.add(job.number)
    if not found:
        raise ScontrolError(f"no node {node!r}: set --node.name to the node's name in Slurm, if it differs")
    return ScontrolAnswer(used, {number: job for number, job in jobs.items() if number not in forged})


def _agree(one: ScontrolJob, other: ScontrolJob) -> bool:
    """Whether two records are of one job. If not, one is text in another job's name, which may have several lines."""
    indices = {job.gpu_indices for job in (one, other)} - {None}
    return one.details == other.details and len(indices) <= 1


def _parse_job(record: str, node: str) -> ScontrolJob:
    # The name is the rest of the first line: it may contain spaces and equals signs.
    first, _, rest = record.partition("\n")
    head, _, name = first.partition("JobName=")
    values = dict(re.findall(r"(\w+)=(\S*)", head))
    for key, value in re.findall(r"(?:^|\s)(SLUID|UserId|Account|JobState|Partition)=(\S*)", rest):
        values.setdefault(key, value)
    task = number_within(values.get("ArrayJobId", ""), values.get("ArrayTaskId", ""), "_")
    component = number_within(values.get("HetJobId", ""), values.get("HetJobOffset", ""), "+")
    return ScontrolJob(
        values["JobId"],
        values.get("SLUID", ""),
        values.get("JobState", "").startswith(_ALLOCATED_STATES),
        JobDetails(
            name=name.strip()[:MAX_LABEL_LENGTH],
            user=values.get("UserId", "").partition("(")[0][:MAX_LABEL_LENGTH],
            account=_known(values.get("Account", "")),
            partition=_known(values.get("Partition", "")),
            array_task=task or component,
        ),
        _job_indices(rest, node),
    )


def _job_indices(text: str, node: str) -> frozenset[int] | None:
    for match in _JOB_GRES.finditer(text):
        if node in expand_hostlist(match["nodes"]):
            return parse_gres(match["gres"])
    return None


def _known(text: str) -> str:
    return "" if text in ("(null)", "N/A") else text[:MAX_LABEL_LENGTH]


#: Runs scontrol with this input and returns what it printed. Raises FileNotFoundError, ScontrolError.
Runner = Callable[[str], str]


@dataclass
class ScontrolClient:
    """Asks on `refresh`, in a thread of its own; keeps the last answer. Another thread sets `query`."""

    query: ScontrolQuery
    interval_seconds: float
    run: Runner
    clock: Callable[[], float] = time.monotonic
    _state: str = "not_yet"
    _answer: ScontrolAnswer | None = None
    _answered_at: float = 0.0
    _listed: tuple[frozenset[int], float] | None = None
    _called: bool = False
    _taken: bool = False
    """Whether `current` has returned the last answer: it may be the only one that lists all jobs."""

    def refresh(self) -> float | None:
        """Ask once. May return seconds to wait instead of the interval. Raises ScontrolError.

        The first call does not ask: all nodes of a cluster may start their exporters at once.
        """
        if not self._called:
            self._called = True
            return None
        query = self.query
        lists_all = self._is_listing_due(query, self.clock())
        try:
            answer = parse_answer(self.run(script(query, lists_all)), query.node)
        except FileNotFoundError:
            self._state, self._answer = "absent", None
            return ABSENT_RETRY_SECONDS
        except ScontrolError:
            self._state = "failed"
            raise
        if not lists_all:
            answer = replace(answer, jobs={number: job for number, job in answer.jobs.items() if number in query.jobs})
        if self._answer and not self._taken:
            answer = replace(answer, jobs={**self._answer.jobs, **answer.jobs})
        self._answer, self._answered_at, self._state, self._taken = answer, self.clock(), "ok", False
        return None

    def current(self) -> ScontrolStatus:
        """The last answer, without waiting."""
        answer, state, self._taken = self._answer, self._state, True
        if answer is None:
            return ScontrolStatus(state)
        if self.clock() - self._answered_at > MAX_STALE_INTERVALS * self.interval_seconds + CALL_TIMEOUT_SECONDS:
            return ScontrolStatus("failed" if state == "ok" else state)
        return ScontrolStatus("ok" if state == "ok" else "stale", answer)

    def _is_listing_due(self, query: ScontrolQuery, now: float) -> bool:
        if not query.unexplained:
            return False
        if self._listed and self._listed[0] == query.unexplained and now - self._listed[1] < LIST_ALL_SECONDS:
            return False
        self._listed = (query.unexplained, now)
        return True


def find_program(name: str) -> str | None:
    """The path of a program that can be run: a path, or a name on PATH."""
    folders = [""] if "/" in name else os.get_exec_path()  # shutil.which would cost a megabyte
    paths = (os.path.join(folder, name) for folder in folders)
    return next((path for path in paths if os.path.isfile(path) and os.access(path, os.X_OK)), None)


def scontrol_runner(command: str, config: Path | None) -> Runner:
    """Runs `command`, a name on PATH or a path; `config` is slurm.conf, None for Slurm's own default."""

    def run(commands: str) -> str:
        path = find_program(command)
        if path is None:
            raise FileNotFoundError(command)
        import subprocess  # half a megabyte that nodes without Slurm do not need

        environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
        environment["LC_ALL"] = "C"
        if config is not None:
            environment["SLURM_CONF"] = str(config)
        elif "SLURM_CONF" in os.environ:
            environment["SLURM_CONF"] = os.environ["SLURM_CONF"]
        try:
            done = subprocess.run(
                [path], input=commands.encode(), capture_output=True, env=environment, timeout=CALL_TIMEOUT_SECONDS,
                check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise ScontrolError(
                f"{path} did not answer within {CALL_TIMEOUT_SECONDS:g} s: is slurmctld reachable?"
            ) from error
        except OSError as error:
            raise ScontrolError(f"{path}: {error.strerror}") from error
        text = done.stdout[:MAX_OUTPUT_BYTES].decode("utf-8", "replace")
        if "NodeName=" not in text:
            message = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise ScontrolError(f"{path}: {message[0] if message else text.strip()[:200] or 'no answer'}")
        return text

    return run
