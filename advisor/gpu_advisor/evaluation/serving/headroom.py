"""Headroom of a group for the share of windows that keep its latency objectives, tuned by its own past. Pure.

A group's past is a day of the demand that its servers count. Which of its windows missed an objective, and at which
load, says what a replica can take (`missed_load`); a replay of the same day (`scaling.headroom`) says how many windows
each amount of headroom would have missed.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from operator import attrgetter

from gpu_advisor.evaluation.history import step_bounds
from gpu_advisor.evaluation.policies.scale_pool import scaling_limits, tuning_phase
from gpu_advisor.evaluation.scaling.headroom import (
    MIN_SLO_HISTORY_SECONDS,
    SLO_HISTORY_SECONDS,
    Headroom,
    TunedHeadroom,
    tuning_time,
)
from gpu_advisor.evaluation.scaling.sizing import CountedDemand, ScalingLimits, Windows, tuned_headroom
from gpu_advisor.evaluation.serving.facts import DemandSample
from gpu_advisor.evaluation.serving.groups import Objectives, ServingGroup
from gpu_advisor.evaluation.serving.missed_load import MissedLoad, learn_missed_load
from gpu_advisor.evaluation.serving.recommend import ServedPool, sized_by_requests
from gpu_advisor.evaluation.serving.sizing import demand_points, group_work, level_half_life_steps
from gpu_advisor.settings import EvaluationSettings, PoolSettings, Settings

#: A replica's work and the length of answers are refitted at each evaluation. A tuning takes them in steps of this
#: ratio, so that it is not repeated for what changes nothing.
GRID = 1.02

#: The part of the windows that may be missed that the replay may miss: what a day shows scatters, and the objective is
#: a limit, not a mean.
AIM = 0.8

#: Groups and hours whose tuning is kept, of 70 kB each.
KEPT_TUNINGS = 512


def with_group_headroom(served: Sequence[ServedPool], settings: Settings, at: float) -> tuple[ServedPool, ...]:
    """The same, with the headroom of each configured pool that the requests of one group size."""
    by_requests, last = sized_by_requests(served), step_bounds(at, settings.evaluation)[1]
    return tuple(
        replace(one, pool=replace(one.pool, headroom=_headroom_of(one, settings, last)))
        if one.configured and one.alone and one.pool.settings.name in by_requests
        else one
        for one in served
    )


def _headroom_of(served: ServedPool, settings: Settings, at: float) -> Headroom:
    pool, limits = served.pool, scaling_limits(settings, served.pool)
    phase = tuning_phase(pool)
    return group_headroom(served.group, served.objectives, pool.settings, limits, settings.evaluation, at, phase)


def group_headroom(
    group: ServingGroup,
    objectives: Objectives,
    pool: PoolSettings,
    limits: ScalingLimits,
    evaluation: EvaluationSettings,
    at: float,
    phase_seconds: float = 0,
) -> Headroom:
    """As set by hand, or tuned to the pool's SLO by the group's past up to the last tuning before `at` (Unix time)."""
    own, slo = pool.headroom_deviations, pool.slo
    if own is not None:
        return Headroom(own)
    default = Headroom(evaluation.headroom_deviations)
    by_hand = "headroom_deviations" in evaluation.model_fields_set
    of_windows = None if slo is None or (by_hand and slo.windows is None) else slo.missed_windows_ratio
    target = pool.unserved_ratio if of_windows is None else of_windows
    found = group_work(group, objectives)
    if target is None or found is None or not group.demand:
        return default
    work, output = found
    step, until = evaluation.step_seconds, tuning_time(at, evaluation.step_seconds, phase_seconds)
    past = _until(group.demand, until, step)
    if len(past) * step < MIN_SLO_HISTORY_SECONDS:  # a new pool is tuned at each step
        until, past = at, _until(group.demand, at, step)
    half_life = level_half_life_steps(past or group.demand, output, evaluation)
    return _tune(
        _pack(past),
        until,
        _on_grid(work),
        _on_grid(output),
        _on_grid(half_life),
        objectives,
        limits,
        evaluation,
        target,
        of_windows is not None,
        phase_seconds,
    )


def _until(demand: Sequence[DemandSample], at: float, step_seconds: float) -> tuple[DemandSample, ...]:
    """The past that is replayed; `demand` is ordered by time."""
    first = bisect_left(demand, at - SLO_HISTORY_SECONDS + step_seconds, key=attrgetter("at"))
    return tuple(demand[first : bisect_right(demand, at, key=attrgetter("at"))])


@lru_cache(maxsize=KEPT_TUNINGS)
def _tune(
    packed: bytes,
    at: float,
    work: float,
    output: float,
    level_half_life: float,
    objectives: Objectives,
    limits: ScalingLimits,
    evaluation: EvaluationSettings,
    target_ratio: float,
    of_windows: bool,
    phase_seconds: float,
) -> TunedHeadroom:
    """Cached by content: a completed hour is replayed once, however often it is evaluated."""
    past, step = _unpack(packed), evaluation.step_seconds
    steps = max(1, round(evaluation.window_seconds / step))
    missed = learn_missed_load(past, work, objectives, steps, step) if of_windows else MissedLoad()
    points = demand_points(past, work * missed.ratio, output, max(limits.start_delay_seconds, step))
    windows = Windows(steps, missed.slope) if of_windows else None
    counted = CountedDemand(level_half_life)
    aim = AIM * target_ratio if of_windows else target_ratio
    found = tuned_headroom(points, limits, evaluation, at, aim, phase_seconds, counted, windows)
    return replace(found, target_ratio=target_ratio, work_ratio=missed.ratio)


def _on_grid(value: float) -> float:
    return GRID ** round(math.log(value) / math.log(GRID))


def _pack(samples: Iterable[DemandSample]) -> bytes:
    """Numbers of the samples, in 48 bytes each: a key of a cache."""
    numbers = array("d")
    for each in samples:
        latencies = (math.nan if value is None else value for value in (each.ttft_p95, each.itl_p95))
        numbers.extend((each.at, each.replicas, each.tokens_per_second, each.waiting, *latencies))
    return numbers.tobytes()


def _unpack(packed: bytes) -> tuple[DemandSample, ...]:
    numbers = array("d")
    numbers.frombytes(packed)
    rows = zip(*(iter(numbers),) * 6, strict=True)
    return tuple(DemandSample(*row[:4], *(None if math.isnan(value) else value for value in row[4:])) for row in rows)
