"""Outcomes of recommendations: was it applied, did it help, was the projection right? Pure.

A recommendation is tracked from when it is made, with its projection. It is closed when it resolves or when the size of
its scope changes, and its outcome is judged once utilization has settled.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from gpu_advisor.evaluation.engine import Evaluation
from gpu_advisor.evaluation.facts import Facts
from gpu_advisor.evaluation.recommendation import Recommendation, Scope
from gpu_advisor.evaluation.savings import SIZE_UNITS
from gpu_advisor.state.comparison import explain_incomparable, work_on
from gpu_advisor.state.feedback import Feedback
from gpu_advisor.state.measures import Measurement, measure, values_before
from gpu_advisor.state.sizes import NO_POOL, PoolSize, pool_sizes, reported_size

#: Differences of utilization below this (two percentage points) are noise, not an improvement.
MIN_IMPROVEMENT_RATIO = 0.02

#: A scope without data delays the outcome by up to this many settling times; then it is judged without utilization.
MAX_SETTLE_PERIODS = 4

#: Outcomes kept as a list; the counts include older ones.
MAX_RECENT_OUTCOMES = 1000


class OutcomeResult(str, Enum):
    APPLIED = "applied"
    PARTLY_APPLIED = "partly_applied"
    NOT_APPLIED = "not_applied"  # the size went the other way
    CAUSE_GONE = "cause_gone"  # resolved, and nothing shows that it was applied


@dataclass(frozen=True, slots=True)
class UtilizationSnapshot:
    """Mean GPU utilization, and pool sizes by unit, of one evaluation, by scope kind and name."""

    at: float
    utilization: Mapping[tuple[str, str], float]
    sizes: Mapping[tuple[str, str], Mapping[str, PoolSize]]
    facts: Facts | None = None

    def size(self, tracked: TrackedRecommendation) -> float | None:
        """The present value of the recommendation's `current`; None if unknown. A pool that was removed has size 0."""
        if not tracked.sizes_pool:
            return None if self.facts is None else reported_size(tracked.unit, tracked.scope, tracked.gpus, self.facts)
        now = self.pool_size(tracked.scope, tracked.unit) or NO_POOL
        before = tracked.pool_size
        return now.total if before is None else max(0.0, tracked.current + now.change_since(before))

    def pool_size(self, scope: Scope, unit: str) -> PoolSize | None:
        return self.sizes.get(_key(scope), {}).get(unit)


@dataclass(frozen=True, slots=True)
class TrackedRecommendation:
    """A recommendation's projection, and what was measured when it was made. `given` is a Unix time; ratios are 0..1.

    `before` are the means over `gpus`, by signal; `work` is what ran on them. `pool_size` is None if it is not about
    the size of a pool, or an earlier version made it.
    """

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
    gpus: tuple[str, ...] = ()
    before: Mapping[str, float] = field(default_factory=dict)
    work: tuple[str, ...] = ()
    pool_size: PoolSize | None = None

    @property
    def sizes_pool(self) -> bool:
        return self.unit in SIZE_UNITS and self.scope.kind == "pool"


@dataclass(frozen=True, slots=True)
class ClosedRecommendation:
    """A tracked recommendation that resolved or was acted upon at `at`, and the size then (None: nothing shows one)."""

    tracked: TrackedRecommendation
    at: float
    size: float | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """`improved` and `error_ratio` (observed minus projected utilization) are None if data is insufficient.

    `measured` is what changed on its GPUs; None if that is unknown, for the reason `not_measured`.
    """

    closed: ClosedRecommendation
    judged: float
    result: OutcomeResult
    utilization_ratio: float | None
    improved: bool | None
    error_ratio: float | None
    measured: Measurement | None = None
    not_measured: str = ""


@dataclass(frozen=True, slots=True)
class Outcomes:
    """The most recent outcomes, oldest first, and counts of all outcomes by recommendation kind and result.

    `errors` maps a kind to the number of projections compared with the outcome, and the sum of their absolute errors.
    """

    recent: tuple[Outcome, ...] = ()
    counts: Mapping[tuple[str, str], int] = field(default_factory=dict)
    errors: Mapping[str, tuple[int, float]] = field(default_factory=dict)

    def with_added(self, judged: Iterable[Outcome]) -> Outcomes:
        judged = tuple(judged)
        counts, errors = dict(self.counts), dict(self.errors)
        for each in judged:
            kind = each.closed.tracked.kind
            counts[kind, each.result.value] = counts.get((kind, each.result.value), 0) + 1
            if each.error_ratio is not None:
                number, total = errors.get(kind, (0, 0.0))
                errors[kind] = number + 1, total + abs(each.error_ratio)
        return Outcomes((*self.recent, *judged)[-MAX_RECENT_OUTCOMES:], counts, errors)


NO_OUTCOMES = Outcomes()


def take_snapshot(evaluation: Evaluation) -> UtilizationSnapshot:
    """The part of an evaluation that projections are compared with."""
    sizes = {_key(state.pool.scope): pool_sizes(evaluation, state.pool) for state in evaluation.pools}
    utilization = {
        _key(check.scope): check.value
        for check in evaluation.checks
        if check.item == "gpu_utilization" and check.value is not None
    }
    return UtilizationSnapshot(evaluation.at, utilization, sizes, evaluation.facts)


def track(id_: str, since: float, advice: Recommendation, snapshot: UtilizationSnapshot) -> TrackedRecommendation:
    return TrackedRecommendation(
        id_, advice.kind, advice.direction, advice.scope, advice.unit, since, advice.current, advice.recommended,
        snapshot.utilization.get(_key(advice.scope)), advice.projection.utilization_ratio, advice.gpus,
        {} if snapshot.facts is None else values_before(advice.kind, advice.gpus, snapshot.facts),
        () if snapshot.facts is None else tuple(sorted(work_on(advice.gpus, snapshot.facts))),
        snapshot.pool_size(advice.scope, advice.unit),
    )  # fmt: skip


def close_ended(
    open_: Mapping[str, TrackedRecommendation],
    new_tracked: Iterable[TrackedRecommendation],
    unconfirmed: frozenset[str],
    snapshot: UtilizationSnapshot,
) -> tuple[dict[str, TrackedRecommendation], tuple[ClosedRecommendation, ...]]:
    """The tracked recommendations that are open after an evaluation, and those that it closed.

    While a recommendation stays the same, its first projection counts. If the size changed and the recommendation
    remains, the tracked one is closed and a new one opened.
    """
    now = {each.id: each for each in new_tracked}
    still, closed = dict(now), []
    for id_, former in open_.items():
        present = now.get(id_)
        size = snapshot.size(former)
        if id_ in unconfirmed:
            still[id_] = former
        elif present is None or size not in (None, former.current):
            closed.append(ClosedRecommendation(former, snapshot.at, size))
        elif (present.recommended, present.current) == (former.recommended, former.current):
            still[id_] = former
        else:
            still[id_] = replace(present, given=former.given, gpus=former.gpus, before=former.before, work=former.work)
    return still, tuple(closed)


def judge_settled(
    settling: Iterable[ClosedRecommendation], snapshot: UtilizationSnapshot, settle_seconds: float
) -> tuple[tuple[ClosedRecommendation, ...], tuple[Outcome, ...]]:
    """Those that are still settling, and the outcomes of the others.

    One that was closed in the future, by a clock that has been set back since, settles from now on.
    """
    waiting, outcomes = [], []
    for each in settling:
        closed = replace(each, at=snapshot.at) if each.at > snapshot.at else each
        age = snapshot.at - closed.at
        is_observed = _key(closed.tracked.scope) in snapshot.utilization or _is_measured(closed.tracked, snapshot)
        if age < settle_seconds or (not is_observed and age < MAX_SETTLE_PERIODS * settle_seconds):
            waiting.append(closed)
        else:
            outcomes.append(_outcome(closed, snapshot))
    return tuple(waiting), tuple(outcomes)


def latest_verdict(of: Outcome, verdicts: Iterable[Feedback]) -> Feedback | None:
    """The last feedback on a recommendation before its outcome; `verdicts` are on all, oldest first."""
    tracked = of.closed.tracked
    own = (each for each in verdicts if each.id == tracked.id and tracked.given <= each.made <= of.judged)
    return max(own, key=lambda each: each.made, default=None)


def _outcome(closed: ClosedRecommendation, snapshot: UtilizationSnapshot) -> Outcome:
    tracked, result = closed.tracked, _result(closed)
    observed = snapshot.utilization.get(_key(tracked.scope))
    if snapshot.size(tracked) != closed.size:
        observed = None  # resized again since: the utilization now is not this recommendation's effect
    improved = error = None
    if observed is not None and tracked.utilization_ratio is not None and tracked.sizes_pool and result in _RESIZED:
        gain = observed - tracked.utilization_ratio
        improved = (-gain if tracked.direction == "up" else gain) > MIN_IMPROVEMENT_RATIO
    if observed is not None and tracked.projected_ratio is not None and closed.size == tracked.recommended:
        error = observed - tracked.projected_ratio  # the projection holds for the recommended size only
    measured = _measure(tracked, snapshot)
    if isinstance(measured, str):
        return Outcome(closed, snapshot.at, result, observed, improved, error, None, measured)
    return Outcome(closed, snapshot.at, result, observed, measured.improved, error, measured)


#: A pool's utilization shows the effect of a recommendation only if the pool was resized as it said.
_RESIZED = (OutcomeResult.APPLIED, OutcomeResult.PARTLY_APPLIED)


def _measure(tracked: TrackedRecommendation, snapshot: UtilizationSnapshot) -> Measurement | str:
    """What changed, or why that is unknown."""
    facts = snapshot.facts
    found = measure(tracked.kind, tracked.gpus, tracked.before, facts)
    if facts is None or isinstance(found, str):
        return found
    return explain_incomparable(tracked.kind, tracked.scope, tracked.gpus, tracked.work, facts) or found


def _is_measured(tracked: TrackedRecommendation, snapshot: UtilizationSnapshot) -> bool:
    return isinstance(_measure(tracked, snapshot), Measurement)


def _result(closed: ClosedRecommendation) -> OutcomeResult:
    tracked = closed.tracked
    if closed.size is None or closed.size == tracked.current:
        return OutcomeResult.CAUSE_GONE
    sign = 1 if tracked.recommended >= tracked.current else -1
    if sign * (closed.size - tracked.current) < 0:
        return OutcomeResult.NOT_APPLIED
    return OutcomeResult.APPLIED if sign * (closed.size - tracked.recommended) >= 0 else OutcomeResult.PARTLY_APPLIED


def _key(scope: Scope) -> tuple[str, str]:
    return scope.kind, scope.name
