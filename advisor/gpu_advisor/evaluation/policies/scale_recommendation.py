"""A sizing decision as a recommendation, with its evidence."""

from __future__ import annotations

from collections.abc import Iterator

from gpu_advisor.evaluation.actions import Action, notes
from gpu_advisor.evaluation.facts import Facts
from gpu_advisor.evaluation.pools import Pool
from gpu_advisor.evaluation.recommendation import Alternative, Confidence, Evidence, Projection, Recommendation
from gpu_advisor.evaluation.scaling.headroom import Headroom, TunedHeadroom
from gpu_advisor.evaluation.scaling.headroom_text import describe_headroom
from gpu_advisor.evaluation.scaling.sizing import ScalingLimits, SizingDecision
from gpu_advisor.evaluation.signals import UTILIZATION, UTILIZATION_COVERAGE

#: Seconds of history needed before a pool's own past shows how much its demand varies.
MIN_HISTORY_SECONDS = 3600


def scale_recommendation(
    facts: Facts,
    pool: Pool,
    replicas: int,
    found: SizingDecision,
    limits: ScalingLimits,
    projection: Projection,
    headroom: Headroom | None = None,
) -> Recommendation:
    grows = found.replicas > replicas
    kind = "scale_up" if grows else "scale_down"
    unit = "gangs" if pool.settings.kind == "training" else "replicas"
    return Recommendation(
        kind=kind,
        direction="up" if grows else "down",
        scope=pool.scope,
        severity="warning" if grows else "info",
        summary=f"Scale {pool.scope} from {replicas} to {found.replicas} {unit}: {found.why}",
        current=replicas,
        recommended=found.replicas,
        unit=unit,
        diagnosis=_diagnosis(found, replicas, limits, unit),
        explanation=_explanation(facts, pool, found, limits, headroom),
        confidence=_confidence(facts, pool, found),
        projection=projection,
        evidence=tuple(_evidence(facts, pool, limits, grows)),
        rejected=tuple(_rejected(found, replicas, limits, unit)),
        actions=tuple(_actions(pool, replicas, found.replicas)),
        gpus=pool.uuids,
        nodes=tuple(sorted({gpu.node for gpu in pool.gpus})),
    )


def _actions(pool: Pool, present: int, wanted: int) -> Iterator[Action]:
    """Gangs are jobs of a scheduler: it is the GPUs that it may use that change."""
    if pool.settings.kind != "training":
        yield Action("scale_replicas", pool.settings.name, {"replicas": wanted})
        return
    gpus = abs(wanted - present) * pool.settings.gpus_per_replica
    change = f"add {gpus} GPUs" if wanted > present else f"remove {gpus} GPUs as their jobs end"
    yield from notes(f"{change}: nodes of a Slurm partition, or the nominalQuota of a Kueue ClusterQueue")


def _diagnosis(found: SizingDecision, replicas: int, limits: ScalingLimits, unit: str) -> str:
    if found.saturated:
        return "saturated"
    if not limits.min <= replicas <= limits.max:
        return "outside_limits"
    if unit == "gangs":
        return "work_waiting"
    return "overloaded" if found.replicas > replicas else "oversized"


def _explanation(
    facts: Facts, pool: Pool, found: SizingDecision, limits: ScalingLimits, headroom: Headroom | None
) -> str:
    if found.needed is None or found.level is None or found.expected is None:
        return f"{found.why}."
    hours = facts.evaluation.history_seconds / 3600
    text = (
        f"Current demand is {found.level:.1f} replicas; {found.expected:.1f} expected when a new replica is ready, in "
        f"{limits.start_delay_seconds:g} s; {found.needed:.1f} with headroom for how far demand exceeded forecasts "
        f"in the last {hours:g} hours."
    )
    if isinstance(headroom, TunedHeadroom):
        text += f" {describe_headroom(headroom, pool.settings.gpus_per_replica)}"
    return text


def _confidence(facts: Facts, pool: Pool, found: SizingDecision) -> Confidence:
    if found.saturated:
        return "medium"
    history = facts.pool_histories.get(pool.settings.name, ())
    if pool.settings.kind == "serving" and (not history or facts.at - history[0].at < MIN_HISTORY_SECONDS):
        return "medium"
    return "high"


def _evidence(facts: Facts, pool: Pool, limits: ScalingLimits, grows: bool) -> Iterator[Evidence]:
    coverages = [facts.value(UTILIZATION_COVERAGE, uuid) for uuid in pool.uuids]
    known = [coverage for coverage in coverages if coverage is not None]
    threshold = limits.scale_up_ratio if grows else limits.scale_down_ratio
    yield facts.evidence(UTILIZATION, pool.uuids, threshold, coverage=min(known) if known else None)
    history = facts.pool_histories.get(pool.settings.name, ())
    if history:
        yield Evidence(
            signal="pool_work",
            about="demand in the last step, in GPUs",
            unit="count",
            statistic="sum of means",
            window_seconds=facts.evaluation.step_seconds,
            value=history[-1].busy,
            at=history[-1].at,
            expression=facts.pool_work_expressions.get(pool.settings.name),
            samples=len(history),
            language=facts.language,
        )
    signal = facts.demand_signals.get(pool.settings.name)
    if signal is not None and signal.series:
        yield Evidence(
            signal="pool_demand",
            about=f"demand signal of the pool: {signal.promql}",
            unit="count",
            statistic="last",
            window_seconds=None,
            value=signal.series[-1][1],
            at=signal.series[-1][0],
            expression=None,
            samples=len(signal.series),
            written=_pin_query(signal.promql, signal.series[-1][0]),
        )


def _pin_query(promql: str, at: float) -> str:
    """A user's query, pinned to a time: its selectors cannot be pinned, so a subquery is."""
    return f"last_over_time(({promql})[1s:1s] @ {at:.3f})"


def _rejected(found: SizingDecision, replicas: int, limits: ScalingLimits, unit: str) -> Iterator[Alternative]:
    if found.needed is None or found.saturated:
        return
    fewer = found.replicas - 1
    if found.replicas < replicas and fewer >= max(1, limits.min):
        yield Alternative(f"{fewer} {unit}", f"{found.needed:.1f} are needed with headroom")
    elif found.replicas > replicas and found.replicas == limits.max and found.needed > limits.max:
        yield Alternative(f"{found.needed:.1f} {unit}, as needed", f"the limit is {limits.max}: see gpu.max")
