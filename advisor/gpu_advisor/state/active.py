"""Active recommendations and snoozes between evaluations. Pure.

A recommendation resolves when the data shows that its cause is over. While data is missing it stays active and is
marked stale. Advice on how a job works stays active for a while longer (`lingering`): a job that trains and
evaluates in turns shows its cause in turns, and would begin and end with each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from gpu_advisor.evaluation.engine import Evaluation
from gpu_advisor.evaluation.facts import Facts
from gpu_advisor.evaluation.recommendation import Abstention, Reason, Recommendation, Scope
from gpu_advisor.evaluation.signals import JOB_BATCH_SIZE

#: Abstentions because data is missing, as opposed to data that is there and inconclusive.
MISSING_DATA_REASONS = frozenset({Reason.NO_DATA, Reason.STALE, Reason.INSUFFICIENT_HISTORY, Reason.CONFLICTING})

BATCH_SIZE = "batch_size"

#: Kinds that depend on what a job does at the time. Idle GPUs, and sizes of pools, are judged by their past instead
#: (evaluation/activity.py, evaluation/scaling/); hardware fails or does not.
LINGERING_KINDS = frozenset(
    {
        BATCH_SIZE, "communication", "cooling", "data_loading", "memory_saving", "mixed_precision", "power_limit",
        "profiling", "smaller_gpu", "straggler",
    }
)  # fmt: skip

#: How long such advice stays after an evaluation made it last (seconds): the longest period of alternation known.
LINGER_SECONDS = 2 * 3600

#: Scopes whose GPUs belong to a pool.
POOL_MEMBER_SCOPES = frozenset({"job", "node", "gpu"})


@dataclass(frozen=True, slots=True)
class ActiveRecommendation:
    """A recommendation that has not resolved: since when, for which scope and GPUs.

    An evaluation last made it at `seen`. `batch_sizes`, of batch-size advice, are those that its jobs reported then.
    Unix times.
    """

    since: float
    kind: str
    scope: Scope
    gpus: frozenset[str] = frozenset()
    seen: float = 0.0
    batch_sizes: frozenset[float] = frozenset()


@dataclass(frozen=True, slots=True)
class Snooze:
    """No alert is sent for a recommendation until `until`. Unix times."""

    reason: str
    made: float
    until: float


@dataclass(frozen=True, slots=True)
class Continuity:
    """The active recommendations after an evaluation, by id, and which of them it did not make itself."""

    active: Mapping[str, ActiveRecommendation]
    stale: frozenset[str]
    lingering: frozenset[str]

    def without(self, ids: frozenset[str]) -> Continuity:
        """As if these, which linger, did not."""
        active = {id_: each for id_, each in self.active.items() if id_ not in ids}
        return Continuity(active, self.stale, self.lingering - ids)


def update_active(
    before: Mapping[str, ActiveRecommendation], fresh: Mapping[str, Recommendation], evaluation: Evaluation
) -> Continuity:
    """`fresh` are the evaluation's recommendations by id."""
    now = evaluation.at
    stale = stale_ids(before, frozenset(fresh), evaluation)
    facts = evaluation.facts
    candidates = {id_: former for id_, former in before.items() if id_ not in fresh and id_ not in stale}
    present = frozenset(gpu.uuid for gpu in facts.gpus) if candidates else frozenset()
    jobs = frozenset((*facts.jobs.values(), *facts.reported_jobs.values())) if candidates else frozenset()
    lingering = frozenset(id_ for id_, former in candidates.items() if _lingers(former, facts, present, jobs))
    made = {
        id_: ActiveRecommendation(
            before[id_].since if id_ in before else now,
            advice.kind,
            advice.scope,
            frozenset(advice.gpus),
            now,
            _batch_sizes(facts, advice.gpus) if advice.kind == BATCH_SIZE else frozenset(),
        )
        for id_, advice in fresh.items()
    }
    # While data is missing, no time passes: it may be the turn without the cause that is not seen.
    kept = {id_: replace(before[id_], seen=now) for id_ in stale}
    return Continuity({**kept, **{id_: before[id_] for id_ in lingering}, **made}, stale, lingering)


def _lingers(former: ActiveRecommendation, facts: Facts, gpus: frozenset[str], jobs: frozenset[str]) -> bool:
    """Whether its cause may come again soon: the same owners still hold its GPUs. A change of a job restarts it.

    `gpus` and `jobs` are those present.
    """
    if former.kind not in LINGERING_KINDS or facts.at - former.seen >= LINGER_SECONDS:
        return False
    if former.gpus.isdisjoint(gpus) or (former.scope.kind == "job" and former.scope.name not in jobs):
        return False
    if former.kind == BATCH_SIZE and former.batch_sizes != _batch_sizes(facts, former.gpus):
        return False  # it was followed, or the job is another
    owners = (owner for uuid in former.gpus for owner in facts.owners.get(uuid, ()))
    return all(owner.started is None or owner.started <= former.seen for owner in owners)


def _batch_sizes(facts: Facts, gpus: Iterable[str]) -> frozenset[float]:
    found = (facts.value(JOB_BATCH_SIZE, uuid) for uuid in gpus)
    return frozenset(size for size in found if size is not None)


def stale_ids(
    active: Mapping[str, ActiveRecommendation], repeated: frozenset[str], evaluation: Evaluation
) -> frozenset[str]:
    """Ids of active recommendations that were not repeated, and cannot be resolved because their data is missing."""
    missing = missing_data(evaluation)
    present_scopes = {state.pool.scope for state in evaluation.pools}
    visible_gpus = {gpu.uuid for gpu in evaluation.facts.gpus if gpu.up}
    data_incomplete = bool(evaluation.facts.down_targets) or any(
        abstention.scope.kind == "fleet" for abstention in missing
    )
    return frozenset(
        id_
        for id_, active_recommendation in active.items()
        if id_ not in repeated
        and (
            any(_covers(abstention, active_recommendation) for abstention in missing)
            # The scope itself is missing: was it removed on purpose, or does its exporter not report?
            or (
                active_recommendation.scope not in present_scopes
                and data_incomplete
                and not (active_recommendation.gpus and active_recommendation.gpus <= visible_gpus)
            )
        )
    )


def missing_data(evaluation: Evaluation) -> tuple[Abstention, ...]:
    """The abstentions for missing data, which resolve nothing."""
    return tuple(
        abstention
        for abstention in evaluation.abstentions
        if abstention.reason in MISSING_DATA_REASONS and not abstention.resolves
    )


def _covers(abstention: Abstention, active_recommendation: ActiveRecommendation) -> bool:
    """Whether the recommendation lacks the data that the abstention is about. A pool's covers its jobs and nodes."""
    if abstention.kinds and active_recommendation.kind not in abstention.kinds:
        return False
    if not abstention.gpus:
        return abstention.scope == active_recommendation.scope
    return (
        abstention.scope == active_recommendation.scope or active_recommendation.scope.kind in POOL_MEMBER_SCOPES
    ) and not active_recommendation.gpus.isdisjoint(abstention.gpus)


#: A clock that was set back by less than this was not wrong, only corrected.
MAX_CLOCK_ERROR_SECONDS = 3600.0


def active_snoozes(snoozes: Mapping[str, Snooze], now: float) -> dict[str, Snooze]:
    """The snoozes that have not expired. One of the future was made by a wrong clock, and would last too long."""
    latest = now + MAX_CLOCK_ERROR_SECONDS
    return {id_: snooze for id_, snooze in snoozes.items() if snooze.until > now and snooze.made <= latest}
