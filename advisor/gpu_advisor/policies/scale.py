"""Scaling of serving pools: up above one threshold, down below another if the projection stays under the first.

Everything is recomputed from the trail that the data source gives, so a restart changes nothing: the stabilization
windows are stretches of that trail, and a change of the pool's size within it is what the cool-down sees.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

from gpu_advisor.facts import Facts
from gpu_advisor.policies.base import cost_change
from gpu_advisor.pools import Pool
from gpu_advisor.recommendation import Abstention, Alternative, Evidence, Projection, Reason, Recommendation
from gpu_advisor.settings import Evaluation, Settings
from gpu_advisor.signals import UTILIZATION, UTILIZATION_COVERAGE

SUBJECT = "scale"
KINDS = ("scale_up", "scale_down")

#: From here on utilization does not tell the demand any more: it cannot be above 100 %.
SATURATED = 0.98

#: At saturation a pool grows by this share of itself, and by one replica at least.
SATURATED_STEP = 0.5


@dataclass(frozen=True, slots=True)
class Point:
    """One point of a pool's trail: GPUs that reported, and their mean utilization (0..1)."""

    at: float
    gpus: int
    utilization: float


@dataclass(frozen=True, slots=True)
class Limits:
    """A pool's limits, in replicas and ratios."""

    min: int
    max: int
    up: float
    down: float
    per_replica: int


@dataclass(frozen=True, slots=True)
class Sizing:
    """A decision about a number of replicas; `why` for people. `reason` says why there is no decision."""

    replicas: int
    why: str
    reason: Reason | None = None
    saturated: bool = False
    basis: float | None = None  # the utilization that the projection starts from


def size(trail: tuple[Point, ...], replicas: int, limits: Limits, evaluation: Evaluation, at: float) -> Sizing:
    """How many replicas a serving pool should have. Pure, so that a replay decides as the live engine does.

    Missing points are never read as idle: growing needs most of its stabilization window, and shrinking all of it, for
    the point that is missing may have been the peak. Points at which GPUs were missing are not looked at: the mean of
    the others is not the pool's, and just after a growth it is the former pool's.
    """
    whole = tuple(point for point in trail if point.gpus >= replicas * limits.per_replica)
    up = _stretch(whole, at, evaluation.scale_up_stabilization_seconds)
    down = _stretch(whole, at, evaluation.scale_down_stabilization_seconds)
    points = evaluation.scale_up_stabilization_seconds // evaluation.step_seconds + 1
    if len(up) < evaluation.min_coverage * points:
        return Sizing(replicas, _short(up, points, evaluation), Reason.INSUFFICIENT_HISTORY)

    lowest = min(point.utilization for point in up)
    if lowest > limits.up:
        return _grown(lowest, replicas, limits)
    highest = max(point.utilization for point in (down or up))
    if highest >= limits.down:
        return Sizing(replicas, f"between {limits.down:.0%} and {limits.up:.0%}", basis=highest)
    points = evaluation.scale_down_stabilization_seconds // evaluation.step_seconds + 1
    if len(down) < points:
        return Sizing(replicas, _short(down, points, evaluation), Reason.INSUFFICIENT_HISTORY)
    if set(_stretch(trail, at, evaluation.cooldown_seconds)) - set(whole):
        return Sizing(replicas, f"grown within the cool-down of {evaluation.cooldown_seconds} s", basis=highest)
    return _shrunk(highest, replicas, limits)


def _grown(lowest: float, replicas: int, limits: Limits) -> Sizing:
    saturated = lowest >= SATURATED
    if saturated:
        wanted = replicas + max(1, ceil(replicas * SATURATED_STEP))
        why = f"saturated at {lowest:.0%}, which hides the demand: grow by a step"
    else:
        wanted = ceil(replicas * lowest / limits.up)  # as many as bring it back to the threshold
        why = f"above {limits.up:.0%} throughout"
    if wanted > limits.max:
        why += f"; the limit is {limits.max}"
    return Sizing(max(replicas, min(wanted, limits.max)), why, saturated=saturated, basis=lowest)


def _shrunk(highest: float, replicas: int, limits: Limits) -> Sizing:
    """The fewest replicas with which the window's highest utilization would have stayed under the upper threshold."""
    fewest = max(1, limits.min)
    while fewest < replicas and replicas * highest / fewest >= limits.up:
        fewest += 1
    return Sizing(min(replicas, fewest), f"below {limits.down:.0%} throughout", basis=highest)


def _stretch(trail: tuple[Point, ...], at: float, seconds: float) -> tuple[Point, ...]:
    return tuple(point for point in trail if at - seconds <= point.at <= at)


def _short(points: tuple[Point, ...], wanted: int, evaluation: Evaluation) -> str:
    return f"{len(points)} of the last {wanted} points, {evaluation.step_seconds} s apart, are there: wait"


def pool_trail(facts: Facts, pool: Pool) -> tuple[Point, ...]:
    """The pool's mean utilization at each point of time at which any of its GPUs reported."""
    at_time: dict[float, list[float]] = {}
    for uuid in pool.uuids:
        for at, value in facts.trails.get(uuid, ()):
            at_time.setdefault(at, []).append(value)
    return tuple(Point(at, len(values), sum(values) / len(values)) for at, values in sorted(at_time.items()))


def recommend(facts: Facts, settings: Settings, pool: Pool, /) -> Iterator[Recommendation | Abstention]:
    if pool.settings.kind != "serving" or not pool.gpus:
        return
    silent = [gpu for gpu in pool.gpus if not gpu.up or facts.value(UTILIZATION, gpu.uuid) is None]
    if silent:
        missing = facts.missing(UTILIZATION, pool.scope, silent[0])
        message = f"{len(silent)} of {len(pool.gpus)} GPUs: {missing.message}"
        yield Abstention(missing.reason, SUBJECT, pool.scope, message, tuple(gpu.uuid for gpu in silent))
        return
    configured = settings.limits(pool.settings)
    per_replica = pool.settings.gpus_per_replica
    limits = Limits(
        min=ceil(configured.min / per_replica),
        max=configured.max // per_replica,
        up=configured.scale_up_threshold / 100,
        down=configured.scale_down_threshold / 100,
        per_replica=per_replica,
    )
    replicas = len(pool.gpus) // per_replica
    if not replicas:
        message = f"{len(pool.gpus)} GPUs are fewer than one replica of {per_replica}: check gpus_per_replica"
        yield Abstention(Reason.CONFLICTING, SUBJECT, pool.scope, message)
        return
    sizing = size(pool_trail(facts, pool), replicas, limits, settings.evaluation, facts.at)
    if sizing.reason:
        yield Abstention(sizing.reason, SUBJECT, pool.scope, sizing.why)
    elif sizing.replicas != replicas:
        yield _recommendation(facts, settings, pool, replicas, sizing, limits)
    if sizing.saturated:
        message = "utilization is at its ceiling and does not tell the demand: name a demand signal for exact sizes"
        yield Abstention(Reason.SATURATED, "demand", pool.scope, message)


def _recommendation(
    facts: Facts, settings: Settings, pool: Pool, replicas: int, sizing: Sizing, limits: Limits
) -> Recommendation:
    grows = sizing.replicas > replicas
    change = (sizing.replicas - replicas) * limits.per_replica
    projected = None
    if sizing.basis is not None and not sizing.saturated:
        projected = sizing.basis * replicas / sizing.replicas
    threshold = limits.up if grows else limits.down
    window = (
        settings.evaluation.scale_up_stabilization_seconds
        if grows
        else settings.evaluation.scale_down_stabilization_seconds
    )
    other = sizing.replicas - 1
    rejected = []
    if not grows and other >= limits.min and sizing.basis is not None and other > 0:
        rejected.append(
            Alternative(
                f"{other} replicas", f"projected {sizing.basis * replicas / other:.0%}, not under {limits.up:.0%}"
            )
        )
    coverages = [facts.value(UTILIZATION_COVERAGE, uuid) for uuid in pool.uuids]
    known = [coverage for coverage in coverages if coverage is not None]
    evidence: list[Evidence] = [
        facts.evidence(UTILIZATION, pool.uuids, threshold, coverage=min(known) if known else None)
    ]
    return Recommendation(
        kind=KINDS[0] if grows else KINDS[1],
        direction="up" if grows else "down",
        scope=pool.scope,
        severity="warning" if grows else "info",
        summary=f"Scale {pool.scope} from {replicas} to {sizing.replicas} replicas: utilization {sizing.why}",
        current=replicas,
        recommended=sizing.replicas,
        unit="replicas",
        diagnosis="saturated" if sizing.saturated else "overloaded" if grows else "oversized",
        explanation=f"Mean utilization was {sizing.why} for {window} s.",
        confidence="medium" if sizing.saturated else "high",
        projection=Projection(utilization_ratio=projected, cost_change_per_hour=cost_change(settings, pool, change)),
        evidence=tuple(evidence),
        rejected=tuple(rejected),
        apply=(f"kubectl scale deployment/NAME --replicas={sizing.replicas}",),
        gpus=pool.uuids,
        nodes=tuple(sorted({gpu.node for gpu in pool.gpus})),
    )
