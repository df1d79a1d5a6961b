"""What goes on being true between two evaluations. Pure.

Advice ends when the data says that its cause is over, never because data is missing: then it is held.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gpu_advisor.evaluation.engine import Evaluation
from gpu_advisor.evaluation.recommendation import Abstention, Reason, Scope

#: Abstentions that say "I cannot see", as opposed to "I see that I cannot tell".
MISSING_DATA_REASONS = frozenset({Reason.NO_DATA, Reason.STALE, Reason.INSUFFICIENT_HISTORY, Reason.CONFLICTING})

#: Scopes whose GPUs are some pool's.
POOL_MEMBER_SCOPES = frozenset({"job", "node", "gpu"})


@dataclass(frozen=True, slots=True)
class ActiveRecommendation:
    """Advice that was given and has not ended: since when (seconds since 1970), on what, and on which GPUs."""

    since: float
    kind: str
    scope: Scope
    gpus: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Snooze:
    """Somebody wants no alert about this advice until then. Times in seconds since 1970."""

    reason: str
    made: float
    until: float


def held_ids(
    active: Mapping[str, ActiveRecommendation], repeated: frozenset[str], evaluation: Evaluation
) -> frozenset[str]:
    """Ids of the active advice that neither came again nor ended, because the evaluation is blind just there."""
    blind = [abstention for abstention in evaluation.abstentions if abstention.reason in MISSING_DATA_REASONS]
    present_scopes = {state.pool.scope for state in evaluation.pools}
    visible_gpus = {gpu.uuid for gpu in evaluation.facts.gpus if gpu.up}
    data_incomplete = bool(evaluation.facts.silent_targets) or any(
        abstention.scope.kind == "fleet" for abstention in blind
    )
    return frozenset(
        id_
        for id_, active_recommendation in active.items()
        if id_ not in repeated
        and (
            any(_covers(abstention, active_recommendation) for abstention in blind)
            # If the scope itself is gone from the data: taken away on purpose, or out of sight?
            or (
                active_recommendation.scope not in present_scopes
                and data_incomplete
                and not (active_recommendation.gpus and active_recommendation.gpus <= visible_gpus)
            )
        )
    )


def _covers(abstention: Abstention, active_recommendation: ActiveRecommendation) -> bool:
    """Whether what cannot be seen is what the advice is about. A pool's word is one on its jobs and nodes, too."""
    if abstention.kinds and active_recommendation.kind not in abstention.kinds:
        return False
    if not abstention.gpus:
        return abstention.scope == active_recommendation.scope
    return (
        abstention.scope == active_recommendation.scope or active_recommendation.scope.kind in POOL_MEMBER_SCOPES
    ) and not active_recommendation.gpus.isdisjoint(abstention.gpus)


def active_snoozes(snoozes: Mapping[str, Snooze], now: float) -> dict[str, Snooze]:
    """The snoozes that are not over."""
    return {id_: snooze for id_, snooze in snoozes.items() if snooze.until > now}
