"""Idle lease: GPUs that somebody leased from the advisor and does not use. Reported to the lessee, never reclaimed."""

from __future__ import annotations

from collections.abc import Iterator

from gpu_advisor.evaluation.actions import notes, run_command
from gpu_advisor.evaluation.diagnosis.idle_owner import judge_idle_gpu
from gpu_advisor.evaluation.facts import Facts, Gpu
from gpu_advisor.evaluation.owners import Lease
from gpu_advisor.evaluation.policies.idle_gpus import idle_gpus, running_job_notes
from gpu_advisor.evaluation.policies.owner_actions import ask_owners, utc_time
from gpu_advisor.evaluation.pools import Pool
from gpu_advisor.evaluation.recommendation import Alternative, Recommendation, Scope, Waste
from gpu_advisor.evaluation.signals import IDLE_COVERAGE, IDLE_UTILIZATION
from gpu_advisor.rendering.durations import duration
from gpu_advisor.settings import Settings

KIND = "idle_lease"


def recommend(facts: Facts, _settings: Settings, pool: Pool, /) -> Iterator[Recommendation]:
    """One recommendation for each lease with idle GPUs: from the pool of the first of them."""
    if not facts.leases:
        return
    here = frozenset(pool.uuids)
    held = {facts.leases[uuid] for uuid in here if uuid in facts.leases}
    if not held:
        return
    leases: dict[Lease, list[Gpu]] = {}
    for gpu in idle_gpus(facts, (each for each in facts.gpus if facts.leases.get(each.uuid) in held)):
        if judge_idle_gpu(facts, gpu).verdict == "lessee":
            leases.setdefault(facts.leases[gpu.uuid], []).append(gpu)
    for lease, gpus in sorted(leases.items()):
        if gpus[0].uuid in here:
            yield _recommendation(facts, lease, gpus)


def _recommendation(facts: Facts, lease: Lease, gpus: list[Gpu]) -> Recommendation:
    uuids = tuple(gpu.uuid for gpu in gpus)
    window = duration(facts.evaluation.idle_window_seconds)
    held = sum(1 for each in facts.leases.values() if each.id == lease.id)
    return Recommendation(
        kind=KIND,
        direction="change",
        scope=Scope("job", f"lease {lease.id}", lease=lease.id),
        severity="info",
        summary=f"{len(gpus)} of {held} GPUs of lease {lease.id} idle for {window}: does the lessee need them?",
        current=held,
        recommended=held - len(gpus),
        unit="GPUs of the lease",
        diagnosis=KIND,
        explanation=f"Leased since {utc_time(lease.made)}, until {utc_time(lease.expires)} if it is not renewed. "
        "Nothing runs on them, and nobody else gets them.",
        confidence="high",
        evidence=(facts.evidence(IDLE_UTILIZATION, uuids), facts.evidence(IDLE_COVERAGE, uuids)),
        rejected=(Alternative("release them", "only the lessee knows whether its job is about to use them"),),
        actions=(
            *ask_owners(facts, gpus),
            *running_job_notes(facts, gpus),
            run_command("gpu-advisor", "allocate", "--release", lease.id, note="once the lessee agrees"),
            *notes("without a renewal the lease ends by itself: do not renew what is not used"),
        ),
        gpus=uuids,
        nodes=tuple(sorted({gpu.node for gpu in gpus})),
        waste=(Waste(),),
    )
