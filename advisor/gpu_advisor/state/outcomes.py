"""What became of advice: was it applied, did utilization improve, was the projection right? Pure.

Advice makes a promise when it is given. The promise closes when the advice ends or the size of its scope changes, and
is judged when the change has had time to show.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from gpu_advisor.evaluation.engine import Evaluation
from gpu_advisor.evaluation.recommendation import Recommendation, Scope

#: Differences of utilization below this (two percentage points) are noise, not an improvement.
MIN_IMPROVEMENT_RATIO = 0.02

#: A scope that cannot be seen is waited for so many settling times, then its outcome is unknown.
MAX_SETTLE_PERIODS = 4

#: Advice in these units says how large its scope should be, so that it can be seen whether it was applied.
SIZE_UNITS = frozenset({"replicas", "GPUs"})


#: Outcomes that are listed; the counts are of all of them.
MAX_RECENT_OUTCOMES = 1000


class OutcomeResult(str, Enum):
    APPLIED = "applied"
    PARTLY_APPLIED = "partly_applied"
    NOT_APPLIED = "not_applied"  # the size went the other way
    CAUSE_GONE = "cause_gone"  # nothing was resized, and yet the advice is no longer due


@dataclass(frozen=True, slots=True)
class UtilizationSnapshot:
    """What an evaluation saw of scopes, by kind and name: mean GPU utilization, and pools' sizes in both units."""

    at: float
    utilization: Mapping[tuple[str, str], float]
    sizes: Mapping[tuple[str, str], Mapping[str, float]]

    def size(self, tracked: TrackedRecommendation) -> float | None:
        """None where the advice was not about the size of a pool; a pool that is gone has none left."""
        if tracked.unit not in SIZE_UNITS or tracked.scope.kind != "pool":
            return None
        return self.sizes.get(_key(tracked.scope), {}).get(tracked.unit, 0.0)


@dataclass(frozen=True, slots=True)
class TrackedRecommendation:
    """What advice said would happen, and how things were. Times in seconds since 1970, ratios 0..1 or not known."""

    id: str
    kind: str
    direction: str
    scope: Scope
    unit: str
    given: float
    current: float
    recommended: float
    utilization_ratio: float | None
    projected_ratio: float | None


@dataclass(frozen=True, slots=True)
class ClosedRecommendation:
    """A promise whose advice ended or was acted upon, and the size that was there then (None: not about a size)."""

    promise: TrackedRecommendation
    at: float
    size: float | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """`improved` and `error_ratio` (observed less projected utilization) are None where they cannot be told."""

    closed: ClosedRecommendation
    judged: float
    result: OutcomeResult
    utilization_ratio: float | None
    improved: bool | None
    error_ratio: float | None


@dataclass(frozen=True, slots=True)
class Outcomes:
    """All outcomes: those judged last, the oldest first, and counts of all by kind of advice and result.

    `errors` has for each kind how many projections were compared, and the sum of their absolute errors.
    """

    recent: tuple[Outcome, ...] = ()
    counts: Mapping[tuple[str, str], int] = field(default_factory=dict)
    errors: Mapping[str, tuple[int, float]] = field(default_factory=dict)

    def with_added(self, judged: Iterable[Outcome]) -> Outcomes:
        judged = tuple(judged)
        counts, errors = dict(self.counts), dict(self.errors)
        for each in judged:
            kind = each.closed.promise.kind
            counts[kind, each.result.value] = counts.get((kind, each.result.value), 0) + 1
            if each.error_ratio is not None:
                number, total = errors.get(kind, (0, 0.0))
                errors[kind] = number + 1, total + abs(each.error_ratio)
        return Outcomes((*self.recent, *judged)[-MAX_RECENT_OUTCOMES:], counts, errors)


NO_OUTCOMES = Outcomes()


def take_snapshot(evaluation: Evaluation) -> UtilizationSnapshot:
    """The part of an evaluation that promises are held against."""
    sizes = {
        _key(state.pool.scope): {
            "GPUs": float(len(state.pool.gpus)),
            "replicas": float(len(state.pool.gpus) // state.pool.settings.gpus_per_replica),
        }
        for state in evaluation.pools
    }
    utilization = {
        _key(check.scope): check.value
        for check in evaluation.checks
        if check.item == "gpu_utilization" and check.value is not None
    }
    return UtilizationSnapshot(evaluation.at, utilization, sizes)


def track(id_: str, since: float, advice: Recommendation, snapshot: UtilizationSnapshot) -> TrackedRecommendation:
    return TrackedRecommendation(
        id_, advice.kind, advice.direction, advice.scope, advice.unit, since, advice.current, advice.recommended,
        snapshot.utilization.get(_key(advice.scope)), advice.projection.utilization_ratio,
    )  # fmt: skip


def close_ended(
    open_: Mapping[str, TrackedRecommendation],
    new_tracked: Iterable[TrackedRecommendation],
    held: frozenset[str],
    snapshot: UtilizationSnapshot,
) -> tuple[dict[str, TrackedRecommendation], tuple[ClosedRecommendation, ...]]:
    """The promises that are open after an evaluation, and those that closed with it.

    While advice stays the same its first promise counts. Where the size changed and there is advice still, one
    promise is closed and a new one made.
    """
    now = {each.id: each for each in new_tracked}
    still, closed = dict(now), []
    for id_, former in open_.items():
        present = now.get(id_)
        if id_ in held:
            still[id_] = former
        elif present is None:
            closed.append(ClosedRecommendation(former, snapshot.at, snapshot.size(former)))
        elif present.current != former.current and former.unit in SIZE_UNITS:
            closed.append(ClosedRecommendation(former, snapshot.at, present.current))
        elif present.recommended == former.recommended:
            still[id_] = former
        else:
            still[id_] = replace(present, given=former.given)
    return still, tuple(closed)


def judge_settled(
    settling: Iterable[ClosedRecommendation], snapshot: UtilizationSnapshot, settle_seconds: float
) -> tuple[tuple[ClosedRecommendation, ...], tuple[Outcome, ...]]:
    """Those that still settle, and the outcomes of those that have settled."""
    waiting, outcomes = [], []
    for closed in settling:
        age = snapshot.at - closed.at
        is_observed = _key(closed.promise.scope) in snapshot.utilization
        if age < settle_seconds or (not is_observed and age < MAX_SETTLE_PERIODS * settle_seconds):
            waiting.append(closed)
        else:
            outcomes.append(_outcome(closed, snapshot))
    return tuple(waiting), tuple(outcomes)


def _outcome(closed: ClosedRecommendation, snapshot: UtilizationSnapshot) -> Outcome:
    tracked, result = closed.promise, _result(closed)
    observed = snapshot.utilization.get(_key(tracked.scope))
    if snapshot.size(tracked) != closed.size:
        observed = None  # resized once more meanwhile: what is seen now is not this advice's doing
    improved = error = None
    if observed is not None and tracked.utilization_ratio is not None:
        gain = observed - tracked.utilization_ratio
        improved = (-gain if tracked.direction == "up" else gain) > MIN_IMPROVEMENT_RATIO
    if observed is not None and tracked.projected_ratio is not None and closed.size == tracked.recommended:
        error = observed - tracked.projected_ratio  # a projection is of the size that was recommended, and of no other
    return Outcome(closed, snapshot.at, result, observed, improved, error)


def _result(closed: ClosedRecommendation) -> OutcomeResult:
    tracked = closed.promise
    if closed.size is None or closed.size == tracked.current:
        return OutcomeResult.CAUSE_GONE
    sign = 1 if tracked.recommended >= tracked.current else -1
    if sign * (closed.size - tracked.current) < 0:
        return OutcomeResult.NOT_APPLIED
    return OutcomeResult.APPLIED if sign * (closed.size - tracked.recommended) >= 0 else OutcomeResult.PARTLY_APPLIED


def _key(scope: Scope) -> tuple[str, str]:
    return scope.kind, scope.name
