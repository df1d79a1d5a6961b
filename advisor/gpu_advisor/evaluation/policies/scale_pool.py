"""Pool scaling: facts -> the sizing decision of `scaling` -> a recommendation.

Everything is recomputed from the history in the data source, so a restart changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from math import inf

from gpu_advisor.evaluation.diagnosis.idle_owner import judge_idle_gpus
from gpu_advisor.evaluation.facts import Facts, Gpu
from gpu_advisor.evaluation.history import step_bounds
from gpu_advisor.evaluation.lost import without_lost
from gpu_advisor.evaluation.missing import explain_missing
from gpu_advisor.evaluation.policies.idle_gpus import idle_gpus
from gpu_advisor.evaluation.policies.scale_recommendation import scale_recommendation
from gpu_advisor.evaluation.pools import Pool
from gpu_advisor.evaluation.recommendation import Abstention, Projection, Reason, Recommendation, stable_id
from gpu_advisor.evaluation.scaling.demand_history import DemandPoint, demand_points
from gpu_advisor.evaluation.scaling.headroom import (
    SLO_HISTORY_SECONDS,
    TUNING_SECONDS,
    Headroom,
    TunedHeadroom,
    tuning_time,
)
from gpu_advisor.evaluation.scaling.recorded_pool import RecordedPool, SignalUnits, with_signal
from gpu_advisor.evaluation.scaling.sizing import ScalingLimits, SizingDecision, decide_size, tuned_headroom
from gpu_advisor.evaluation.scaling.training import GangCounts, decide_gangs
from gpu_advisor.evaluation.signals import MEMORY_USED, TEMPERATURE, UTILIZATION, UTILIZATION_COVERAGE
from gpu_advisor.promql.expressions import TimeSeries
from gpu_advisor.settings import EvaluationSettings, Settings

SUBJECT = "scale"
DEMAND = "demand"
KINDS = ("scale_up", "scale_down")

#: Pools and hours whose tuning is kept, with the steps of its day.
KEPT_TUNINGS = 1024


def recommend(facts: Facts, settings: Settings, pool: Pool, /) -> Iterator[Recommendation | Abstention]:
    """Lost GPUs are no capacity: they do not count towards the limits, and do not stop the sizing."""
    pool = replace(pool, gpus=without_lost(facts, pool.gpus))
    if pool.settings.kind == "undecided" or not pool.gpus:
        return
    per_replica = pool.settings.gpus_per_replica
    if len(pool.gpus) < per_replica:
        message = f"{len(pool.gpus)} GPUs are fewer than one replica ({per_replica} GPUs): check gpus_per_replica"
        yield Abstention(Reason.CONFLICTING, SUBJECT, pool.scope, message)
        return
    signal = facts.demand_signals.get(pool.settings.name)
    if signal is not None and signal.reason is not None:
        yield Abstention(signal.reason, DEMAND, pool.scope, signal.message)
    if pool.settings.kind == "training":
        yield from _training(facts, settings, pool)
    else:
        yield from _serving(facts, settings, pool)


def scaling_limits(settings: Settings, pool: Pool) -> ScalingLimits:
    """A pool's limits in replicas."""
    configured = settings.gpu_limits(pool.settings)
    fewest, most = configured.replica_limits(pool.settings.gpus_per_replica)
    return ScalingLimits(
        min=fewest,
        max=most,
        scale_up_ratio=configured.scale_up_threshold / 100,
        scale_down_ratio=configured.scale_down_threshold / 100,
        start_delay_seconds=pool.settings.start_delay_seconds,
    )


def _serving(facts: Facts, settings: Settings, pool: Pool) -> Iterator[Recommendation | Abstention]:
    unobserved = _explain_unobserved(facts, pool)
    if unobserved:
        yield unobserved
        return
    replicas = pool.replicas
    last, points = step_bounds(facts.at, settings.evaluation)[1], _demand_points(facts, pool)
    headroom = pool.headroom or pool_headroom(facts, settings, pool)
    earlier = _earlier_points(facts, pool, points)
    found = decide_size(
        (*earlier, *points), replicas, scaling_limits(settings, pool), settings.evaluation, last, headroom=headroom
    )
    if found.reason:
        yield Abstention(found.reason, SUBJECT, pool.scope, found.why)
    elif found.replicas < replicas and (unseen := _explain_too_few_seen(facts, pool)):
        yield unseen
    elif found.replicas != replicas:
        yield _recommendation(facts, settings, pool, replicas, found, headroom)
    if found.saturated:
        message = (
            "scaling up did not lower utilization, so utilization does not show the demand: configure a demand signal "
            "(pools: demand: preset or query), as in {preset: vllm, per_replica: 16}"
            if found.exhausted
            else "utilization is saturated and does not show the demand: configure a demand signal for exact sizing"
        )
        yield Abstention(Reason.SATURATED, DEMAND, pool.scope, message)


def with_headroom(facts: Facts, settings: Settings, pools: Iterable[Pool]) -> tuple[Pool, ...]:
    """The same pools, the serving ones with their headroom: what tunes it is a day, which is read once."""
    return tuple(
        replace(pool, headroom=pool_headroom(facts, settings, pool)) if pool.settings.kind == "serving" else pool
        for pool in pools
    )


def pool_headroom(facts: Facts, settings: Settings, pool: Pool) -> Headroom:
    """The headroom of a serving pool: tuned to its SLO by its recorded past, or as set."""
    target, evaluation = pool.settings.unserved_ratio, settings.evaluation
    if target is None:
        own = pool.settings.headroom_deviations
        return Headroom(evaluation.headroom_deviations if own is None else own)
    last, limits = step_bounds(facts.at, evaluation)[1], scaling_limits(settings, pool)
    recorded, phase = _recorded(facts, pool), tuning_phase(pool)
    tuned_at = tuning_time(last, evaluation.step_seconds, phase)
    day = recorded.between(tuned_at - SLO_HISTORY_SECONDS, tuned_at)
    found = _tune(day, limits, evaluation, tuned_at, target, phase)
    if found.missing_seconds:  # a new pool is tuned at each step
        found = _tune(recorded, limits, evaluation, last, target, phase)
    return found


@lru_cache(maxsize=KEPT_TUNINGS)
def _tune(
    recorded: RecordedPool,
    limits: ScalingLimits,
    evaluation: EvaluationSettings,
    at: float,
    target_ratio: float,
    phase_seconds: float,
) -> TunedHeadroom:
    """Cached by content: a completed hour is replayed once, however often it is evaluated."""
    return tuned_headroom(recorded.points(), limits, evaluation, at, target_ratio, phase_seconds)


def tuning_phase(pool: Pool) -> int:
    """Seconds after a whole hour at which its headroom is tuned: pools differ."""
    return int(stable_id((pool.settings.name,)), 16) % TUNING_SECONDS


def _explain_unobserved(facts: Facts, pool: Pool) -> Abstention | None:
    """Why the pool cannot be sized now: a GPU that does not report may be the busiest."""
    silent = [gpu for gpu in pool.gpus if not gpu.up or facts.value(UTILIZATION, gpu.uuid) is None]
    if silent:
        missing = explain_missing(facts, UTILIZATION, pool.scope, silent[0])
        message = f"{len(silent)} of {len(pool.gpus)} GPUs: {missing.message}"
        return Abstention(missing.reason, SUBJECT, pool.scope, message, tuple(gpu.uuid for gpu in silent))
    dead = [gpu for gpu in pool.gpus if _reports_only_zeros(facts, gpu)]
    if dead:
        message = (
            f"{len(dead)} of {len(pool.gpus)} GPUs, {dead[0].scope} first, report zero utilization, zero memory and "
            "no temperature: their exporter probably lost its driver; restart it"
        )
        return Abstention(Reason.CONFLICTING, SUBJECT, pool.scope, message, tuple(gpu.uuid for gpu in dead))
    return None


def _explain_too_few_seen(facts: Facts, pool: Pool) -> Abstention | None:
    """Why the pool must not shrink now: the GPUs without enough data may be the busy ones."""
    minimum = facts.evaluation.min_coverage_ratio
    unseen = [gpu.uuid for gpu in pool.gpus if (facts.value(UTILIZATION_COVERAGE, gpu.uuid) or 0.0) < minimum]
    if len(pool.gpus) - len(unseen) >= minimum * len(pool.gpus):
        return None
    message = (
        f"{len(pool.gpus) - len(unseen)} of {len(pool.gpus)} GPUs observed for {minimum:.0%} of the last "
        f"{facts.evaluation.window_seconds} s: wait before scaling down"
    )
    return Abstention(Reason.INSUFFICIENT_HISTORY, SUBJECT, pool.scope, message, tuple(unseen))


def _reports_only_zeros(facts: Facts, gpu: Gpu) -> bool:
    """Whether all values are zero. An idle GPU is warm, and an idle replica has memory allocated."""
    if facts.value(UTILIZATION, gpu.uuid) != 0 or facts.value(MEMORY_USED, gpu.uuid) != 0:
        return False
    return (facts.value(TEMPERATURE, gpu.uuid) or 0.0) <= 0


def _demand_points(facts: Facts, pool: Pool) -> tuple[DemandPoint, ...]:
    """The pool's demand history, from its demand signal if it has one."""
    per_replica = pool.settings.gpus_per_replica
    samples = [(point.at, point.gpus, point.busy) for point in facts.pool_histories.get(pool.settings.name, ())]
    return with_signal(demand_points(samples, len(pool.gpus), per_replica), *_signal(facts, pool))


def _recorded(facts: Facts, pool: Pool) -> RecordedPool:
    """The last day of a pool whose headroom is tuned."""
    samples = facts.slo_histories.get(pool.settings.name, ())
    return RecordedPool(samples, pool.settings.gpus_per_replica, *_signal(facts, pool))


def _earlier_points(facts: Facts, pool: Pool, points: Sequence[DemandPoint]) -> tuple[DemandPoint, ...]:
    """What the sizing needs of the day before `points`: where it began, and all of it if the pool is saturated now."""
    recorded = _recorded(facts, pool)
    if points:
        recorded = recorded.between(-inf, points[0].at - facts.evaluation.step_seconds)
    is_saturated = bool(points) and points[-1].saturated
    return (recorded if is_saturated else replace(recorded, samples=recorded.samples[:1])).points()


def _signal(facts: Facts, pool: Pool) -> tuple[TimeSeries, SignalUnits | None]:
    signal, demand = facts.demand_signals.get(pool.settings.name), pool.settings.demand
    if signal is None or demand is None or signal.reason is not None:
        return (), None
    return signal.series, SignalUnits(demand.per_replica, demand.kind == "waiting")


def _training(facts: Facts, settings: Settings, pool: Pool) -> Iterator[Recommendation | Abstention]:
    limits, present = scaling_limits(settings, pool), pool.replicas
    waiting = waiting_gangs(facts, pool)
    if isinstance(waiting, Abstention):
        yield waiting
        waiting = None
    idle = _idle_gangs(facts, pool) if waiting else 0
    wanted, why = decide_gangs(GangCounts(present, limits.min, limits.max, waiting, idle))
    if wanted != present:
        yield _recommendation(facts, settings, pool, present, SizingDecision(wanted, why))
    elif idle and present < limits.max:
        yield Abstention(Reason.CONFLICTING, SUBJECT, pool.scope, why, kinds=("scale_up",), resolves=True)


def waiting_gangs(facts: Facts, pool: Pool) -> float | Abstention | None:
    """The work that waits for GPUs of a training pool, in gangs; None without a demand signal."""
    signal, demand = facts.demand_signals.get(pool.settings.name), pool.settings.demand
    if signal is None or demand is None or not signal.series:
        return None
    at, value = signal.series[-1]
    if at < step_bounds(facts.at, facts.evaluation)[1] - facts.evaluation.step_seconds:
        message = f"the last value of the demand signal is {facts.at - at:.0f} s old: check what exports it"
        return Abstention(Reason.STALE, DEMAND, pool.scope, message)
    return value / demand.per_replica - (pool.replicas if demand.kind == "total" else 0)


def _idle_gangs(facts: Facts, pool: Pool) -> int:
    """Gangs of GPUs that idle_reclaim would have released."""
    verdicts = judge_idle_gpus(facts, idle_gpus(facts, pool.gpus)).values()
    return sum(1 for each in verdicts if each.verdict == "reclaim") // pool.settings.gpus_per_replica


def _recommendation(
    facts: Facts,
    settings: Settings,
    pool: Pool,
    replicas: int,
    found: SizingDecision,
    headroom: Headroom | None = None,
) -> Recommendation:
    projection = Projection(utilization_ratio=found.projected_ratio)
    return scale_recommendation(facts, pool, replicas, found, scaling_limits(settings, pool), projection, headroom)
