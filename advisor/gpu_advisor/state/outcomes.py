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
NOISE_RATIO = 0.02

#: A scope that cannot be seen is waited for so many settling times, then its outcome is unknown.
PATIENCE = 4

#: Advice in these units says how large its scope should be, so that it can be seen whether it was applied.
SIZES = frozenset({"replicas", "GPUs"})


#: Outcomes that are listed; the counts are of all of them.
MOST_RECENT = 1000


class Result(str, Enum):
    APPLIED = "applied"
    PARTLY_APPLIED = "partly_applied"
    NOT_APPLIED = "not_applied"  # the size went the other way
    CAUSE_GONE = "cause_gone"  # nothing was resized, and yet the advice is no longer due


@dataclass(frozen=True, slots=True)
class Seen:
    """What an evaluation saw of scopes, by kind and name: mean GPU utilization, and pools' sizes in both units."""

    at: float
    utilization: Mapping[tuple[str, str], float]
    sizes: Mapping[tuple[str, str], Mapping[str, float]]

    def size(self, told: Promise) -> float | None:
        """None where the advice was not about the size of a pool; a pool that is gone has none left."""
        if told.unit not in SIZES or told.scope.kind != "pool":
            return None
        return self.sizes.get(_key(told.scope), {}).get(told.unit, 0.0)


@dataclass(frozen=True, slots=True)
class Promise:
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
class Closed:
    """A promise whose advice ended or was acted upon, and the size that was there then (None: not about a size)."""

    promise: Promise
    at: float
    size: float | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """`improved` and `error_ratio` (observed less projected utilization) are None where they cannot be told."""

    closed: Closed
    judged: float
    result: Result
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

    def with_more(self, judged: Iterable[Outcome]) -> Outcomes:
        judged = tuple(judged)
        counts, errors = dict(self.counts), dict(self.errors)
        for each in judged:
            kind = each.closed.promise.kind
            counts[kind, each.result.value] = counts.get((kind, each.result.value), 0) + 1
            if each.error_ratio is not None:
                number, total = errors.get(kind, (0, 0.0))
                errors[kind] = number + 1, total + abs(each.error_ratio)
        return Outcomes((*self.recent, *judged)[-MOST_RECENT:], counts, errors)


NO_OUTCOMES = Outcomes()


def see(evaluation: Evaluation) -> Seen:
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
    return Seen(evaluation.at, utilization, sizes)


def promise(id_: str, since: float, advice: Recommendation, seen: Seen) -> Promise:
    return Promise(
        id_, advice.kind, advice.direction, advice.scope, advice.unit, since, advice.current, advice.recommended,
        seen.utilization.get(_key(advice.scope)), advice.projection.utilization_ratio,
    )  # fmt: skip


def close(
    open_: Mapping[str, Promise], made: Iterable[Promise], held: frozenset[str], seen: Seen
) -> tuple[dict[str, Promise], tuple[Closed, ...]]:
    """The promises that are open after an evaluation, and those that closed with it.

    While advice stays the same its first promise counts. Where the size changed and there is advice still, one
    promise is closed and a new one made.
    """
    now = {each.id: each for each in made}
    still, closed = dict(now), []
    for id_, former in open_.items():
        present = now.get(id_)
        if id_ in held:
            still[id_] = former
        elif present is None:
            closed.append(Closed(former, seen.at, seen.size(former)))
        elif present.current != former.current and former.unit in SIZES:
            closed.append(Closed(former, seen.at, present.current))
        elif present.recommended == former.recommended:
            still[id_] = former
        else:
            still[id_] = replace(present, given=former.given)
    return still, tuple(closed)


def judge(
    settling: Iterable[Closed], seen: Seen, settle_seconds: float
) -> tuple[tuple[Closed, ...], tuple[Outcome, ...]]:
    """Those that still settle, and the outcomes of those that have settled."""
    waiting, outcomes = [], []
    for closed in settling:
        age = seen.at - closed.at
        is_seen = _key(closed.promise.scope) in seen.utilization
        if age < settle_seconds or (not is_seen and age < PATIENCE * settle_seconds):
            waiting.append(closed)
        else:
            outcomes.append(_outcome(closed, seen))
    return tuple(waiting), tuple(outcomes)


def _outcome(closed: Closed, seen: Seen) -> Outcome:
    told, result = closed.promise, _result(closed)
    observed = seen.utilization.get(_key(told.scope))
    if seen.size(told) != closed.size:
        observed = None  # resized once more meanwhile: what is seen now is not this advice's doing
    improved = error = None
    if observed is not None and told.utilization_ratio is not None:
        gain = observed - told.utilization_ratio
        improved = (-gain if told.direction == "up" else gain) > NOISE_RATIO
    if observed is not None and told.projected_ratio is not None and closed.size == told.recommended:
        error = observed - told.projected_ratio  # a projection is of the size that was recommended, and of no other
    return Outcome(closed, seen.at, result, observed, improved, error)


def _result(closed: Closed) -> Result:
    told = closed.promise
    if closed.size is None or closed.size == told.current:
        return Result.CAUSE_GONE
    sign = 1 if told.recommended >= told.current else -1
    if sign * (closed.size - told.current) < 0:
        return Result.NOT_APPLIED
    return Result.APPLIED if sign * (closed.size - told.recommended) >= 0 else Result.PARTLY_APPLIED


def _key(scope: Scope) -> tuple[str, str]:
    return scope.kind, scope.name
