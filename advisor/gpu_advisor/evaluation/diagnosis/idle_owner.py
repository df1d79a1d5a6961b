"""Whether an idle GPU is idle for its owner: not a phase of work, not a new owner, not a pause as there were before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from gpu_advisor.evaluation.activity import find_pauses
from gpu_advisor.evaluation.facts import Facts, Gpu
from gpu_advisor.evaluation.owners import GpuOwner
from gpu_advisor.evaluation.signals import JOB_STEP_TIME, NODE_CPU, NODE_IO_PRESSURE, NODE_NETWORK_RECEIVE, UTILIZATION
from gpu_advisor.rendering.durations import duration

#: `reclaim` it, `report` its job as hung, ask the `lessee`, or leave it: it belongs to a `phase` of its owner's work.
Verdict = Literal["reclaim", "report", "lessee", "phase"]

#: A pause must be this many times the longest one before; twice that where several owners share the GPU.
PAUSE_FACTOR, SHARED_FACTOR = 1.25, 2.0

#: After activity ended a pause as long as the idle window, no GPU is reclaimed for this time (seconds).
HOLD_OFF_SECONDS = 2 * 3600

#: A host this busy works for the owner of its only GPUs in question: it reads and prepares data.
HOST_LIMITS = ((NODE_CPU, 0.4, "CPU"), (NODE_IO_PRESSURE, 0.2, "I/O"), (NODE_NETWORK_RECEIVE, 0.3, "network"))

#: From this utilization on, a GPU of the same node explains what the host does.
BUSY_NEIGHBOUR_RATIO = 0.1


@dataclass(frozen=True, slots=True)
class IdleVerdict:
    """What to do about an idle GPU, and why. `observed` is False where that follows from missing data."""

    verdict: Verdict
    why: str = ""
    idle_since: float | None = None
    observed: bool = True


def judge_idle_gpus(facts: Facts, gpus: Iterable[Gpu]) -> dict[Gpu, IdleVerdict]:
    """For idle GPUs together: of a job that makes no step, all GPUs are its own, also where only one rank reports."""
    found = {gpu: judge_idle_gpu(facts, gpu) for gpu in gpus}
    hung = {
        owner.workload: each
        for gpu, each in found.items()
        if each.verdict == "report"
        for owner in facts.owners.get(gpu.uuid, ())
    }
    return {gpu: _with_its_job(facts, gpu, each, hung) for gpu, each in found.items()} if hung else found


def _with_its_job(facts: Facts, gpu: Gpu, verdict: IdleVerdict, hung: Mapping[GpuOwner, IdleVerdict]) -> IdleVerdict:
    if verdict.verdict != "reclaim" or facts.value(JOB_STEP_TIME, gpu.uuid):
        return verdict
    owners = facts.owners.get(gpu.uuid, ())
    job = next((hung[owner.workload] for owner in owners if owner.workload in hung), None)
    return verdict if job is None else IdleVerdict("report", job.why, verdict.idle_since)


def judge_idle_gpu(facts: Facts, gpu: Gpu) -> IdleVerdict:
    """For a GPU whose idle window has enough data and shows no work."""
    owners = facts.owners.get(gpu.uuid, ())
    window = facts.evaluation.idle_window_seconds
    young = [owner for owner in owners if owner.is_older_than(facts.at - window) is False]
    if young:
        return IdleVerdict("phase", f"{_youngest(young)} came {_ago(facts, _youngest(young).started)}")
    ending = [owner for owner in owners if owner.deletion_due is not None and facts.at - owner.deletion_due < window]
    if ending:
        return IdleVerdict("phase", f"{ending[0]} is being deleted")
    undated = [owner for owner in owners if owner.is_older_than(facts.at - window) is None]
    if undated:
        return IdleVerdict(
            "phase",
            f"it is unknown how long {undated[0]} has had it: scrape kube-state-metrics (kube_pod_start_time), or use "
            "gpu-exporter for owners",
            observed=False,
        )
    busy_host = _busy_host(facts, gpu) if owners else ""
    if busy_host:
        return IdleVerdict("phase", f"the host works for {owners[0]}: {busy_host}")
    lease = facts.leases.get(gpu.uuid)
    if lease is not None and lease.made > facts.at - window:
        return IdleVerdict("phase", f"lease {lease.id} was made {_ago(facts, lease.made)}")
    pause = _judge_pause(facts, gpu, owners)
    if pause.verdict == "reclaim" and lease is not None:
        return IdleVerdict("lessee", f"lease {lease.id} holds it", pause.idle_since)
    if pause.verdict == "reclaim" and owners and facts.value(JOB_STEP_TIME, gpu.uuid) == 0:
        return IdleVerdict("report", f"{owners[0]} makes no training step", pause.idle_since)
    return pause


def _judge_pause(facts: Facts, gpu: Gpu, owners: tuple[GpuOwner, ...]) -> IdleVerdict:
    if facts.activity is None:
        return IdleVerdict("reclaim")  # only the window is known, as in a replay
    evaluation = facts.evaluation
    window, idle_ratio = evaluation.idle_window_seconds, evaluation.idle_utilization / 100
    since = max((owner.started for owner in owners if owner.started is not None), default=None)
    found = find_pauses(
        facts.activity.get(gpu.uuid, ()), facts.activity_step_seconds, facts.at, since, idle_ratio, window
    )
    if found is None:
        return IdleVerdict("phase", "its activity could not be read", observed=False)
    begun = facts.at - found.current
    if found.any_activity and found.current < window:
        return IdleVerdict("phase", f"something ran {_rounded(found.current)} ago")
    if found.ended_idle is not None and facts.at - found.ended_idle < HOLD_OFF_SECONDS:
        return IdleVerdict("phase", f"it worked again {_rounded(facts.at - found.ended_idle)} ago after a pause")
    shared = len(owners) > 1
    needed = (SHARED_FACTOR if shared else PAUSE_FACTOR) * (found.longest_before or 0.0)
    if shared:
        needed = max(needed, SHARED_FACTOR * window)
    if found.any_activity and found.current <= needed + (facts.activity_step_seconds if found.longest_before else 0):
        return IdleVerdict("phase", f"it paused for up to {_rounded(found.longest_before or window)} before", begun)
    return IdleVerdict("reclaim", "", begun)


def _busy_host(facts: Facts, gpu: Gpu) -> str:
    neighbours = (other for other in facts.gpus_of_node(gpu.node) if other.uuid != gpu.uuid)
    if any((facts.value(UTILIZATION, other.uuid) or 0.0) >= BUSY_NEIGHBOUR_RATIO for other in neighbours):
        return ""
    for signal, limit, name in HOST_LIMITS:
        value = facts.value(signal, gpu.node)
        if value is not None and value >= limit:
            return f"{name} {value:.0%}"
    return ""


def _youngest(owners: list[GpuOwner]) -> GpuOwner:
    return max(owners, key=lambda owner: owner.started or 0.0)


def _ago(facts: Facts, started: float | None) -> str:
    return "a moment ago" if started is None else f"{_rounded(facts.at - started)} ago"


def _rounded(seconds: float) -> str:
    return duration(max(60.0, seconds), decimals=0)
