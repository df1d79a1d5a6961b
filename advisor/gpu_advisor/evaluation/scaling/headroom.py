"""Headroom of a serving pool: set by hand, or tuned to an SLO by a walk-forward replay of the pool's own past.

The SLO is a share of the demanded GPU-time above the capacity (`slo.unserved`). The replay says what each amount of
headroom would have left unserved, and what it would have cost: the frontier. One day has only a few shortages, so the
replay's result is combined with what is usual: on generated days of very different demand, the unserved work per step
is nearly the same function of the headroom, if both are in deviations (UNSERVED_BY_DEVIATIONS). The usual result counts
as much as PRIOR_STEPS of the pool's own; so with little history the headroom is the usual one for this SLO.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise
from math import ceil, exp, log, sqrt

from gpu_advisor.evaluation.scaling.candidate_replay import (
    CandidateReplay,
    CandidateResult,
    RecordedDemand,
    SizingRules,
    record_demand,
)
from gpu_advisor.evaluation.scaling.demand_history import DemandPoint

#: Headroom in deviations -> unserved work per step, in deviations. Means over benchmarks/demand.py's fitted days.
UNSERVED_BY_DEVIATIONS: tuple[tuple[float, float], ...] = (
    (0.0, 0.096),
    (1.0, 0.074),
    (1.5, 0.053),
    (2.0, 0.033),
    (2.5, 0.021),
    (3.0, 0.0123),
    (3.5, 0.0068),
    (4.0, 0.0044),
    (4.5, 0.0026),
    (5.0, 0.0014),
    (6.0, 0.0005),
    (8.0, 0.0001),
    (12.0, 0.00001),
    (20.0, 0.000001),
)
PRIOR_STEPS = 720

#: The past that is replayed, and the least that tunes anything (seconds).
SLO_HISTORY_SECONDS, MIN_SLO_HISTORY_SECONDS = 86400, 3600

#: The headroom is tuned this often (seconds): a function of the past before a whole hour, not of the evaluation.
TUNING_SECONDS = 3600

#: Objectives for which the frontier is stated besides the pool's own.
FRONTIER_RATIOS = (0.0005, 0.001, 0.0025, 0.005, 0.01)

#: An objective that no headroom reaches is not worth all headroom: this times the least unserved share is enough.
NEARLY_BEST = 1.1

#: With fewer shortages than this, the reached share is stated as an upper bound.
FEW_SHORTAGES = 10

#: One-sided 95 % quantile of the normal distribution.
_NORMAL_95 = 1.6449


@dataclass(frozen=True, slots=True)
class FrontierPoint:
    """An amount of headroom: the share of the demand expected to be unserved, and the replicas in the mean."""

    deviations: float
    unserved_ratio: float
    replicas: float


@dataclass(frozen=True, slots=True)
class Headroom:
    """Headroom in deviations. With `prior`, a deviation is assumed while a pool has no past."""

    deviations: float
    prior: bool = False


@dataclass(frozen=True, slots=True)
class TunedHeadroom(Headroom):
    """Headroom tuned to an SLO, and what it is based on.

    `reached_ratio` is the unserved share of the demand in the replay with this headroom, `upper_ratio` its upper bound
    (95 %), after `shortages` shortages. With `missing_seconds` of history still to come, the headroom is the default,
    and there is no frontier.
    """

    prior: bool = True
    target_ratio: float = 1.0
    history_seconds: float = 0.0
    missing_seconds: float = 0.0
    reached_ratio: float | None = None
    upper_ratio: float | None = None
    shortages: int = 0
    chosen: FrontierPoint | None = None
    frontier: tuple[FrontierPoint, ...] = ()


def tuning_time(at: float, step_seconds: float, phase_seconds: float = 0) -> float:
    """The last tuning up to `at`: once per TUNING_SECONDS, at a phase that spreads the pools' replays over time."""
    phase = phase_seconds // step_seconds * step_seconds
    return (at - phase) // TUNING_SECONDS * TUNING_SECONDS + phase


def tune_headroom(
    history: Sequence[DemandPoint],
    at: float,
    step_seconds: float,
    rules: SizingRules,
    target_ratio: float,
    default_deviations: float,
    phase_seconds: float = 0,
) -> TunedHeadroom:
    """The least headroom that is expected to leave at most `target_ratio` of the demand unserved.

    Uses the points up to the last tuning before `at` (Unix time) only, those up to `at` in a new pool. With less than
    MIN_SLO_HISTORY_SECONDS of them: the default.
    """
    tuned_at, steps = tuning_time(at, step_seconds, phase_seconds), int(SLO_HISTORY_SECONDS // step_seconds)
    record = record_demand(history, tuned_at, step_seconds, steps)
    if _recorded_seconds(record, step_seconds) < MIN_SLO_HISTORY_SECONDS:  # a new pool is tuned at each step
        record = record_demand(history, at, step_seconds, steps)
    recorded = _recorded_seconds(record, step_seconds)
    if recorded < MIN_SLO_HISTORY_SECONDS:
        missing = MIN_SLO_HISTORY_SECONDS - recorded
        return TunedHeadroom(
            default_deviations, target_ratio=target_ratio, history_seconds=recorded, missing_seconds=missing
        )
    return _tune(record.pack(), step_seconds, rules, target_ratio)


def _recorded_seconds(record: RecordedDemand, step_seconds: float) -> float:
    return sum(work is not None for work in record.work) * step_seconds


@lru_cache(maxsize=1024)
def _tune(packed: bytes, step_seconds: float, rules: SizingRules, target_ratio: float) -> TunedHeadroom:
    """Cached by content, in 35 kB a pool and day: a completed hour is replayed once, however often it is evaluated."""
    found = CandidateReplay(RecordedDemand.unpack(packed), rules)
    frontier = _frontier(found)
    reachable = max(target_ratio, NEARLY_BEST * frontier[-1].unserved_ratio)
    deviations = ceil(100 * _deviations_for(frontier, reachable) - 1e-6) / 100
    own = found.candidate(deviations)
    return TunedHeadroom(
        deviations=deviations,
        target_ratio=target_ratio,
        history_seconds=found.steps * step_seconds,
        reached_ratio=own.unserved / found.demanded if found.demanded else 0.0,
        upper_ratio=_upper_bound(own, found),
        shortages=round(own.shortages),
        chosen=_interpolate(frontier, deviations),
        frontier=tuple(
            dict.fromkeys(_interpolate(frontier, _deviations_for(frontier, ratio)) for ratio in FRONTIER_RATIOS)
        ),
    )


def _frontier(found: CandidateReplay) -> tuple[FrontierPoint, ...]:
    """The candidates with the unserved share expected of each: never rising with the headroom.

    Without candidates that cost no less than one with more headroom: too little headroom ends in saturation, which is
    answered by large steps.
    """
    candidates = [found.candidate(deviations) for deviations, _ in UNSERVED_BY_DEVIATIONS]
    prior_weight = PRIOR_STEPS / max(1, found.steps)
    demanded = max(found.demanded, 1e-9) * (1 + prior_weight)
    shares = [
        (candidate.unserved + prior_weight * usual * found.deviation_sum) / demanded
        for candidate, (_, usual) in zip(candidates, UNSERVED_BY_DEVIATIONS, strict=True)
    ]
    steps = max(1, found.steps)
    points = [
        FrontierPoint(candidate.deviations, share, candidate.replicas / steps)
        for candidate, share in zip(candidates, accumulate(shares, min), strict=True)
    ]
    kept: list[FrontierPoint] = []
    for point in reversed(points):
        if not kept or point.replicas < kept[-1].replicas:
            kept.append(point)
    return tuple(reversed(kept))


def _deviations_for(frontier: Sequence[FrontierPoint], ratio: float) -> float:
    """The least headroom at which at most `ratio` is unserved, between candidates by the logarithm; else the most."""
    for before, after in pairwise(frontier):
        if before.unserved_ratio <= ratio:
            return before.deviations
        if after.unserved_ratio <= ratio:
            high, low = log(before.unserved_ratio), log(max(after.unserved_ratio, 1e-12))
            share = (high - log(ratio)) / (high - low)
            return before.deviations + share * (after.deviations - before.deviations)
    return frontier[-1].deviations


def _interpolate(frontier: Sequence[FrontierPoint], deviations: float) -> FrontierPoint:
    if deviations <= frontier[0].deviations:
        return frontier[0]
    for before, after in pairwise(frontier):
        if deviations <= after.deviations:
            share = (deviations - before.deviations) / (after.deviations - before.deviations)
            low, high = (log(max(each.unserved_ratio, 1e-12)) for each in (after, before))
            unserved = exp(high + share * (low - high))
            return FrontierPoint(deviations, unserved, before.replicas + share * (after.replicas - before.replicas))
    return frontier[-1]


def _upper_bound(own: CandidateResult, found: CandidateReplay) -> float:
    """Upper bound (95 %) of the unserved share: that of the number of shortages, times their mean size.

    For a Poisson count n: the approximation of Wilson and Hilferty to half of the chi-square quantile at 2n + 2 degrees
    of freedom (https://en.wikipedia.org/wiki/Poisson_distribution#Confidence_interval). Without a shortage, its size is
    one mean deviation at least.
    """
    if not found.demanded:
        return 0.0
    count = own.shortages + 1
    most = count * (1 - 1 / (9 * count) + _NORMAL_95 / (3 * sqrt(count))) ** 3
    if own.shortages >= 1:
        size = own.unserved / own.shortages
    else:
        size = max(own.unserved, found.deviation_sum / max(1, found.steps))
    return most * size / found.demanded
