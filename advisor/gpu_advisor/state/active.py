"""Active recommendations and snoozes between evaluations. Pure.

A recommendation resolves when the data shows that its cause is over. While data is missing it stays active and is
marked stale (`held`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gpu_advisor.evaluation.engine import Evaluation
from gpu_advisor.evaluation.recommendation import Abstention, Reason, Scope

#: Abstentions because data is missing, as opposed to data that is there and inconclusive.
MISSING_DATA_REASONS = frozenset({Reason.NO_DATA, Reason.STALE, Reason.INSUFFICIENT_HISTORY, Reason.CONFLICTING})

#: Scopes whose GPUs belong to a pool.
POOL_MEMBER_SCOPES = frozenset({"job", "node", "gpu"})


@dataclass(frozen=True, slots=True)
class ActiveRecommendation:
    """A recommendation that has not resolved: since when (Unix time), for which scope and GPUs."""

    since: float
    kind: str
    scope: Scope
    gpus: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Snooze:
    """No alert is sent for a recommendation until `until`. Unix times."""

    reason: str
    made: float
    until: float


def held_ids(
    active: Mapping[str, ActiveRecommendation], repeated: frozenset[str], evaluation: Evaluation
) -> frozenset[str]:
    """Ids of active recommendations that were not repeated, and cannot be resolved because their data is missing."""
    blind = missing_data(evaluation)
    present_scopes = {state.pool.scope for state in evaluation.pools}
    visible_gpus = {gpu.uuid for gpu in evaluation.facts.gpus if gpu.up}
    data_incomplete = bool(evaluation.facts.down_targets) or any(
        abstention.scope.kind == "fleet" for abstention in blind
    )
    return frozenset(
        id_
        for id_, active_recommendation in active.items()
        if id_ not in repeated
        and (
            any(_covers(abstention, active_recommendation) for abstention in blind)
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


def active_snoozes(snoozes: Mapping[str, Snooze], now: float) -> dict[str, Snooze]:
    """The snoozes that have not expired."""
    return {id_: snooze for id_, snooze in snoozes.items() if snooze.until > now}
