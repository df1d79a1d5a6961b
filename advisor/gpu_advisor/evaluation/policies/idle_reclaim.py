"""Idle reclaim: release GPUs on which nothing ran for the whole idle window, down to the pool's minimum."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace
from math import ceil

from gpu_advisor.evaluation.actions import Action, notes
from gpu_advisor.evaluation.diagnosis.idle import (
    IDLE_DIAGNOSIS,
    IDLE_MEMORY_ALLOCATED,
    Idleness,
    idleness,
)
from gpu_advisor.evaluation.diagnosis.idle_owner import IdleVerdict, judge_idle_gpus
from gpu_advisor.evaluation.facts import Facts, Gpu
from gpu_advisor.evaluation.lost import without_lost
from gpu_advisor.evaluation.missing import explain_missing, explain_unknown_interval
from gpu_advisor.evaluation.owners import SLURM, GpuOwner
from gpu_advisor.evaluation.policies import scale_pool
from gpu_advisor.evaluation.policies.findings import MAX_LISTED_GPUS
from gpu_advisor.evaluation.policies.gpu_commands import list_processes
from gpu_advisor.evaluation.policies.idle_gpus import IDLE_STATES, running_job_notes
from gpu_advisor.evaluation.policies.owner_actions import owner_actions
from gpu_advisor.evaluation.pools import Pool
from gpu_advisor.evaluation.recommendation import (
    Abstention,
    Alternative,
    Confidence,
    Evidence,
    Projection,
    Reason,
    Recommendation,
    Scope,
    Waste,
)
from gpu_advisor.evaluation.signals import IDLE_COVERAGE, IDLE_SAMPLES, IDLE_UTILIZATION, MEMORY_USED
from gpu_advisor.rendering.durations import duration
from gpu_advisor.settings import Settings

KIND = "idle_reclaim"

#: Nodes whose processes one command each lists.
MAX_LISTED_NODES = 8

#: Reasons why idle GPUs are left to their owners that are stated one by one: with many owners, nearly each differs.
MAX_REASONS = 4

#: Owners named in a summary.
MAX_SHOWN_OWNERS = 2


def recommend(facts: Facts, settings: Settings, pool: Pool, /) -> Iterator[Recommendation | Abstention]:
    pool = replace(pool, gpus=without_lost(facts, pool.gpus))  # the minimum is of GPUs that work
    if pool.settings.kind == "serving":
        return  # sized by demand, idle replicas included
    states = [(gpu, idleness(facts, gpu)) for gpu in pool.gpus]
    unobserved = [gpu for gpu, state in states if state is None]
    if unobserved:
        yield from _abstain(facts, pool.scope, unobserved, len(pool.gpus))
    verdicts = judge_idle_gpus(facts, (gpu for gpu, state in states if state in IDLE_STATES))
    idle = [gpu for gpu, found in verdicts.items() if found.verdict == "reclaim"]
    yield from _phases(pool.scope, {gpu: found for gpu, found in verdicts.items() if found.verdict == "phase"})
    borderline = tuple(gpu.uuid for gpu, state in states if state is Idleness.BORDERLINE)
    if borderline:
        message = f"{len(borderline)} of {len(pool.gpus)} GPUs: almost nothing ran. Idle or not? Check their workload"
        yield Abstention(Reason.CONFLICTING, KIND, pool.scope, message, borderline, (KIND,), resolves=True)
    gang = pool.settings.gpus_per_replica
    keep = ceil(max(settings.gpu_limits(pool.settings).min, len(pool.gpus) - len(idle)) / gang) * gang
    if keep < len(pool.gpus):
        yield _recommendation(facts, settings, pool, idle, keep)
    elif idle:
        yield _kept(settings, pool, idle)


def _kept(settings: Settings, pool: Pool, idle: list[Gpu]) -> Abstention:
    """Idle GPUs that the settings keep are reported, too."""
    gang = pool.settings.gpus_per_replica
    whole = f" in whole groups of {gang} (gpus_per_replica)" if gang > 1 else ""
    count = f"{len(idle)} of {len(pool.gpus)} GPUs {'is' if len(idle) == 1 else 'are'} idle and kept"
    message = f"{count}: the pool keeps at least {settings.gpu_limits(pool.settings).min} (gpu.min){whole}"
    uuids = tuple(gpu.uuid for gpu in idle)
    return Abstention(Reason.CONFLICTING, KIND, pool.scope, message, uuids, (KIND,), resolves=True)


def _phases(scope: Scope, phases: Mapping[Gpu, IdleVerdict]) -> Iterator[Abstention]:
    """Why idle GPUs are left to their owners. What is observed, and what follows from missing data, apart."""
    for observed in (True, False):
        by_reason: dict[str, list[Gpu]] = {}
        for gpu, found in phases.items():
            if found.observed == observed:
                by_reason.setdefault(found.why, []).append(gpu)
        for why, gpus in _stated_reasons(by_reason):
            count = len(gpus)
            left = "1 idle GPU is left to its owner" if count == 1 else f"{count} idle GPUs are left to their owners"
            message, uuids = f"{left}: {why}", tuple(gpu.uuid for gpu in gpus)
            yield Abstention(Reason.CONFLICTING, KIND, scope, message, uuids, (KIND,), resolves=observed)


def _stated_reasons(by_reason: Mapping[str, list[Gpu]]) -> Iterator[tuple[str, list[Gpu]]]:
    """The commonest reasons, and all others in one."""
    ordered = sorted(by_reason.items(), key=lambda item: (-len(item[1]), item[0]))
    alone = ordered if len(ordered) <= MAX_REASONS else ordered[: MAX_REASONS - 1]
    yield from alone
    others = ordered[len(alone) :]
    if others:
        shown = "; ".join(why for why, _ in others[:MAX_REASONS])
        more = f"; and {len(others) - MAX_REASONS} more reasons" if len(others) > MAX_REASONS else ""
        yield shown + more, [gpu for _, gpus in others for gpu in gpus]


def _abstain(facts: Facts, scope: Scope, unobserved: list[Gpu], of: int) -> Iterator[Abstention]:
    """One abstention per reason: a GPU without any data must not hide one that stopped reporting just now, nor one that
    is down another that is down for another cause."""
    by_reason: dict[tuple[Reason, str, str, bool], list[Gpu]] = {}
    for gpu in unobserved:
        reason, _ = _explain_unobserved(facts, scope, gpu)
        cause = (reason, facts.down_reasons.get(gpu.uuid, ""), gpu.exporter, bool(gpu.mig_profile))
        by_reason.setdefault(cause, []).append(gpu)
    for (reason, *_), gpus in by_reason.items():
        count = f"{len(gpus)} of {of} GPUs"
        _, why = _explain_unobserved(facts, scope, gpus[0], count if len(gpus) > 1 else "")
        message = why if count in why else f"{count}: {why}"
        yield Abstention(reason, KIND, scope, message, tuple(gpu.uuid for gpu in gpus))


def _explain_unobserved(facts: Facts, scope: Scope, gpu: Gpu, several: str = "") -> tuple[Reason, str]:
    if gpu.up and facts.value(IDLE_UTILIZATION, gpu.uuid) is not None:
        coverage, window = facts.value(IDLE_COVERAGE, gpu.uuid), facts.evaluation.idle_window_seconds
        if coverage is None:
            return Reason.INSUFFICIENT_HISTORY, explain_unknown_interval(facts)
        return Reason.INSUFFICIENT_HISTORY, f"{coverage * window:.0f} of {window} s observed: wait"
    missing = explain_missing(facts, IDLE_UTILIZATION, scope, gpu, several)
    return missing.reason, missing.message


def _recommendation(facts: Facts, settings: Settings, pool: Pool, idle: list[Gpu], keep: int) -> Recommendation:
    capacity, released = len(pool.gpus), len(pool.gpus) - keep
    holding = [gpu for gpu in idle if idleness(facts, gpu) is Idleness.HOLDING_MEMORY]
    diagnosis = IDLE_MEMORY_ALLOCATED if holding else IDLE_DIAGNOSIS
    window = duration(facts.evaluation.idle_window_seconds)
    some = "" if len(holding) == len(idle) else f" on {len(holding)} of them"
    allocated = f", memory allocated{some}" if holding else ""
    number = "all" if len(idle) == capacity and capacity > 1 else f"{len(idle)}"
    owners = _owners(facts, idle)
    keeps = keep - (capacity - len(idle))
    rejected = [Alternative("wait longer", f"nothing ran for {window}, the whole idle window")]
    if keeps:
        minimum, gang = settings.gpu_limits(pool.settings).min, pool.settings.gpus_per_replica
        whole = f", in whole groups of {gang} (gpus_per_replica)" if gang > 1 else ""
        rejected.append(Alternative(f"release all {len(idle)}", f"the pool keeps at least {minimum} (gpu.min){whole}"))
    return Recommendation(
        kind=KIND,
        direction="down",
        scope=pool.scope,
        severity="warning",
        summary=(
            f"Release {released} of {capacity} GPUs of {pool.scope}: {number} idle for {window}{allocated}{owners}"
        ),
        current=capacity,
        recommended=keep,
        unit="GPUs",
        diagnosis=diagnosis.name,
        explanation=diagnosis.explanation,
        confidence=_confidence(facts, idle),
        projection=_projection(facts, pool, keep),
        evidence=tuple(_evidence(facts, idle)),
        rejected=tuple(rejected),
        actions=(
            *running_job_notes(facts, idle),
            *owner_actions(facts, idle),
            *_waiting_work(facts, pool),
            *_unowned_actions(facts, idle, holding),
        ),
        gpus=tuple(gpu.uuid for gpu in idle),
        nodes=tuple(sorted({gpu.node for gpu in idle})),
        waste=(Waste(),),
        saves=tuple(releasable_shares(facts, idle, released)),
    )


def _waiting_work(facts: Facts, pool: Pool) -> Iterator[Action]:
    waiting = scale_pool.waiting_gangs(facts, pool) if pool.settings.kind == "training" else None
    if isinstance(waiting, float) and waiting > 0:
        yield from notes(f"work for {waiting:.3g} gangs waits in {pool.scope}: leave the GPUs in the pool, for it")


def releasable_shares(facts: Facts, idle: Sequence[Gpu], released: int) -> Iterator[Waste]:
    """What releasing so many of the idle GPUs saves: their price where whole nodes, pods or Slurm jobs go with them; of
    others, at most their price."""
    whole: set[str] = set()
    for unit in _units(facts, idle):
        if len(whole) + len(unit - whole) <= released:
            whole |= unit
    rest = tuple(sorted({gpu.uuid for gpu in idle} - whole))
    if whole:
        yield Waste(tuple(sorted(whole)))
    if rest:
        yield Waste(rest, 0.0, (released - len(whole)) / len(rest))


def _units(facts: Facts, idle: Sequence[Gpu]) -> list[frozenset[str]]:
    """The idle GPUs of each node, pod and Slurm job that is wholly idle, the largest first."""
    among = {gpu.uuid for gpu in idle}
    nodes = {node for node in {gpu.node for gpu in idle} if _is_all_idle(facts, node, among)}
    owners = _wholly_idle_owners(facts, among)
    units: dict[str | GpuOwner, set[str]] = {}
    for gpu in idle:
        if gpu.node in nodes:
            units.setdefault(gpu.node, set()).add(gpu.uuid)
        if (owner := _single_owner(facts, gpu.uuid)) in owners and owner is not None:
            units.setdefault(owner, set()).add(gpu.uuid)
    return sorted(map(frozenset, units.values()), key=lambda unit: (-len(unit), sorted(unit)))


def _is_all_idle(facts: Facts, node: str, idle: Set[str]) -> bool:
    """Whether all GPUs of a node that work are idle: of a board in MIG mode, its slices."""
    gpus = without_lost(facts, facts.gpus_of_node(node))
    boards = {gpu.parent for gpu in gpus if gpu.parent}
    return all(gpu.uuid in idle for gpu in gpus if gpu.uuid not in boards)


def _single_owner(facts: Facts, uuid: str) -> GpuOwner | None:
    """The pod or job that has a GPU alone, whichever of its containers use it."""
    owners = {owner.workload for owner in facts.owners.get(uuid, ())}
    return owners.pop() if len(owners) == 1 else None


def _wholly_idle_owners(facts: Facts, idle: Set[str]) -> frozenset[GpuOwner]:
    """The pods and Slurm jobs, which a scheduler runs, of whose GPUs none is busy or shared."""
    held: dict[GpuOwner, set[str]] = {}
    for uuid, owners in facts.owners.items():
        for owner in owners:
            is_job = owner.kind == SLURM and bool(owner.job)
            if is_job or owner.pod_uid or (owner.pod and not _is_bound_to_node(owner)):
                held.setdefault(owner.workload, set()).add(uuid)
    return frozenset(
        owner
        for owner, uuids in held.items()
        if all(uuid in idle and _single_owner(facts, uuid) is not None for uuid in uuids)
    )


def _is_bound_to_node(owner: GpuOwner) -> bool:
    """Whether the pod comes back as long as the node is there: static pods are controlled by it."""
    return owner.controller is not None and owner.controller.kind in ("DaemonSet", "Node")


def _evidence(facts: Facts, idle: list[Gpu]) -> Iterator[Evidence]:
    uuids = tuple(gpu.uuid for gpu in idle)
    threshold = facts.evaluation.idle_utilization / 100
    groups = [uuids, *((uuid,) for uuid in uuids[:MAX_LISTED_GPUS] if len(uuids) > 1)]
    for group in groups:
        coverage = min(facts.value(IDLE_COVERAGE, uuid) or 0.0 for uuid in group)
        samples = [facts.value(IDLE_SAMPLES, uuid) for uuid in group]
        count = int(min(found for found in samples if found is not None)) if any(samples) else None
        yield facts.evidence(IDLE_UTILIZATION, group, threshold, count, coverage)
    yield facts.evidence(IDLE_COVERAGE, uuids, facts.evaluation.min_coverage_ratio)
    if facts.supports(MEMORY_USED):
        yield facts.evidence(MEMORY_USED, uuids)


def _confidence(facts: Facts, idle: list[Gpu]) -> Confidence:
    """High if the whole window has data; a GPU may have been busy in the rest."""
    worst = min(facts.value(IDLE_COVERAGE, gpu.uuid) or 0.0 for gpu in idle)
    return "high" if worst >= 0.98 else "medium"


def _projection(facts: Facts, pool: Pool, keep: int) -> Projection:
    busy = [facts.value(IDLE_UTILIZATION, gpu.uuid) for gpu in pool.gpus]
    known = [value for value in busy if value is not None]
    utilization = min(1.0, sum(known) / keep) if keep and len(known) == len(busy) else None
    return Projection(utilization_ratio=utilization)


def _without_owner(facts: Facts, gpus: list[Gpu]) -> list[Gpu]:
    return [gpu for gpu in gpus if not facts.owners.get(gpu.uuid)]


def _unowned_actions(facts: Facts, idle: list[Gpu], holding: list[Gpu]) -> Iterator[Action]:
    unowned = _without_owner(facts, idle)
    if not unowned:
        return
    asked = _without_owner(facts, holding) or unowned
    nodes = sorted({gpu.node for gpu in asked})
    listed = set(nodes[:MAX_LISTED_NODES])
    commands = list(list_processes(facts, [gpu for gpu in asked if gpu.node in listed], "which processes?"))
    yield from commands
    if commands and (rest := nodes[MAX_LISTED_NODES:]):
        count = sum(gpu.node not in listed for gpu in asked)
        names = rest[0] if len(rest) == 1 else f"{len(rest)} more nodes, {rest[0]} to {rest[-1]}"
        yield from notes(f"and {count} on {names}")
    yield from notes(
        "ask their users, then stop their processes, or delete the pods that requested the GPUs",
        "GPUs without an owner: keep new work off the nodes first (kubectl cordon, or drain them in Slurm), look again "
        "whether any came, then remove them or stop the instances",
    )


def _owners(facts: Facts, idle: list[Gpu]) -> str:
    """Whose they are: the first few owners, those with most GPUs first."""
    counts = Counter(str(owner) for gpu in idle for owner in facts.owners.get(gpu.uuid, ()))
    if not counts:
        return ""
    shown = ", ".join(name for name, _ in counts.most_common(MAX_SHOWN_OWNERS))
    more = f" and {len(counts) - MAX_SHOWN_OWNERS} others" if len(counts) > MAX_SHOWN_OWNERS else ""
    return f"; of {shown}{more}"
