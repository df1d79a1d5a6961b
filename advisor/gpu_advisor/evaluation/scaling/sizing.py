"""The sizing decision: how many replicas a pool should have. Pure, so that replays decide as the live engine does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil, inf, sqrt

from gpu_advisor.evaluation.recommendation import Reason
from gpu_advisor.evaluation.scaling.candidate_replay import LASTING_SECONDS, MIN_CHANGE_FACTOR
from gpu_advisor.evaluation.scaling.demand_history import (
    SATURATION_RATIO,
    DemandPoint,
    align_to_steps,
    estimate_demand,
)
from gpu_advisor.evaluation.scaling.forecast import (
    PRIOR_STEPS,
    Forecast,
    Horizon,
    forecast_estimate,
    forecast_upper_bound,
)
from gpu_advisor.evaluation.scaling.headroom import Headroom, TunedHeadroom, tune_headroom
from gpu_advisor.evaluation.scaling.replay_steps import ROUNDING, SizingRules
from gpu_advisor.evaluation.scaling.saturation import SaturatedRun, next_size, saturated_run
from gpu_advisor.settings import EvaluationSettings


@dataclass(frozen=True, slots=True)
class ScalingLimits:
    """A pool's limits: replicas, utilizations (0..1), and seconds until a new replica is ready."""

    min: int
    max: int
    scale_up_ratio: float
    scale_down_ratio: float
    start_delay_seconds: float = 120

    def for_objective(self) -> ScalingLimits:
        """The same for a pool with an SLO: its size follows from the SLO, not from a band of utilization."""
        return replace(self, scale_up_ratio=SATURATION_RATIO, scale_down_ratio=SATURATION_RATIO)


@dataclass(frozen=True, slots=True)
class CountedDemand:
    """Of a demand that servers count, with the requests that wait: its level, and how it is followed.

    `level_half_life_steps` is the half-life of past demand in the level. A replica that starts publishes nothing: what
    was needed within a start-up, or the stabilization window of a reduction, may be starting and is still requested. No
    cool-down delays a scale-up, since the shortage is known and not inferred. No deviation is assumed beforehand.
    """

    level_half_life_steps: float


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows of so many steps that may miss their objectives: `SizingRules`."""

    steps: int
    slope: float = inf


@dataclass(frozen=True, slots=True)
class SizingDecision:
    """A decision. With a `reason` there is none, and `replicas` is the present number.

    `level` is the demand now, `expected` the demand when a new replica would be ready, `needed` the same with headroom;
    all in replicas' worth of work. `exhausted`: saturated, and scaling up did not help.
    """

    replicas: int
    why: str
    reason: Reason | None = None
    level: float | None = None
    expected: float | None = None
    needed: float | None = None
    saturated: bool = False
    exhausted: bool = False

    @property
    def projected_ratio(self) -> float | None:
        """The utilization expected at this size; None if the demand is unknown."""
        if self.saturated or self.expected is None or not self.replicas:
            return None
        return min(1.0, self.expected / self.replicas)


def decide_size(
    history: Sequence[DemandPoint],
    replicas: int,
    limits: ScalingLimits,
    evaluation: EvaluationSettings,
    at: float,
    pending: int = 0,
    headroom: Headroom | None = None,
    counted: CountedDemand | None = None,
) -> SizingDecision:
    """How many replicas a pool of `replicas` should have, `pending` of which are not ready yet.

    Without `headroom`, it is that of the settings. Scaling up uses the estimated demand. Scaling down uses its upper
    bound and needs a complete stabilization window: missing data may have been the peak.
    """
    if not replicas:  # without a replica there is no utilization, and the pool would never start
        return SizingDecision(max(1, limits.min), "no replica is running")
    step = evaluation.step_seconds
    headroom = headroom or Headroom(evaluation.headroom_deviations)
    points = align_to_steps(history, at, step, max(1, evaluation.history_seconds // step))
    window = _steps(evaluation.scale_up_stabilization_seconds, step)
    latest = sum(1 for point in points[-window:] if point is not None)
    if latest < evaluation.min_coverage_ratio * window:
        return SizingDecision(replicas, _missing_points_message(latest, window, step), Reason.INSUFFICIENT_HISTORY)
    earlier = max(0, round((at - history[0].at) / step) + 1 - len(points)) if history else 0
    horizon = _forecast_horizon(limits, evaluation, headroom, counted, earlier)
    if headroom.prior:
        limits = limits.for_objective()
    demand = estimate_demand(points)
    forecast = forecast_estimate(demand, horizon)
    if counted is not None:
        longest = max(horizon.ahead_steps, _steps(evaluation.scale_down_stabilization_seconds, step))
        requested = _required_size(forecast, max, longest, limits, headroom)
        if requested.replicas > replicas:
            return requested
    scale_up = _scale_up(forecast, saturated_run(history, at), window, limits, headroom)
    if scale_up.replicas > replicas:
        recently = _recent_size_changes(points, evaluation)
        if scale_up.saturated or not any(change < 0 for change in recently):
            return scale_up
        return replace(scale_up, replicas=replicas, why=f"scaled down within the cool-down: {scale_up.why}")
    if pending or scale_up.saturated:
        return replace(scale_up, replicas=replicas, why=scale_up.why if scale_up.saturated else "replicas are starting")
    window = _steps(evaluation.scale_down_stabilization_seconds, step)
    estimate = _required_size(forecast, max, window, limits, headroom)
    if estimate.replicas >= replicas:
        return replace(estimate, replicas=replicas)
    upper = forecast if demand.complete else forecast_upper_bound(demand, horizon)
    upper_bound = _required_size(upper, max, window, limits, headroom)
    lasting = _required_size(upper, max, _steps(LASTING_SECONDS, step), limits, headroom, window)
    return _scale_down(points, upper_bound, lasting if headroom.prior else None, replicas, limits, evaluation)


def tuned_headroom(
    history: Sequence[DemandPoint],
    limits: ScalingLimits,
    evaluation: EvaluationSettings,
    at: float,
    target_ratio: float,
    phase_seconds: float = 0,
    counted: CountedDemand | None = None,
    windows: Windows | None = None,
) -> TunedHeadroom:
    """The headroom that leaves `target_ratio` of the demand unserved, by the points up to the last tuning before `at`;
    with `windows`, of those.

    `phase_seconds` spreads the tunings of many pools over time.
    """
    rules = sizing_rules(limits.for_objective(), evaluation)
    if windows is not None:
        rules = replace(rules, window_steps=windows.steps, window_slope=windows.slope)
    if counted is not None:
        horizon = replace(rules.horizon, level_half_life_steps=counted.level_half_life_steps)
        rules = replace(rules, horizon=replace(horizon, prior_steps=0.0), counted=True)
    return tune_headroom(
        history, at, evaluation.step_seconds, rules, target_ratio, evaluation.headroom_deviations, phase_seconds
    )


def sizing_rules(limits: ScalingLimits, evaluation: EvaluationSettings) -> SizingRules:
    """The rules of `decide_size` with tuned headroom, for a replay."""
    step = evaluation.step_seconds
    return SizingRules(
        horizon=replace(_horizon(limits, evaluation), prior_steps=PRIOR_STEPS),
        history_steps=max(1, evaluation.history_seconds // step),
        up_steps=_steps(evaluation.scale_up_stabilization_seconds, step),
        down_steps=_steps(evaluation.scale_down_stabilization_seconds, step),
        lasting_steps=_steps(LASTING_SECONDS, step),
        cooldown_steps=_steps(evaluation.cooldown_seconds, step),
        min=limits.min,
        max=limits.max,
        scale_up_ratio=limits.scale_up_ratio,
        scale_down_ratio=limits.scale_down_ratio,
    )


def _horizon(limits: ScalingLimits, evaluation: EvaluationSettings) -> Horizon:
    step = evaluation.step_seconds
    return Horizon(
        ahead_steps=ceil(limits.start_delay_seconds / step) + 1,
        level_half_life_steps=evaluation.level_half_life_seconds / step,
        excess_half_life_steps=evaluation.excess_half_life_seconds / step,
        trend_steps=_steps(evaluation.level_half_life_seconds, step),
    )


def _forecast_horizon(
    limits: ScalingLimits,
    evaluation: EvaluationSettings,
    headroom: Headroom,
    counted: CountedDemand | None,
    earlier_steps: int,
) -> Horizon:
    """As the settings; a counted demand has a level of its own, and a prior fades over the steps recorded before."""
    horizon = _horizon(limits, evaluation)
    if counted is not None:
        return replace(horizon, level_half_life_steps=counted.level_half_life_steps)
    return replace(horizon, prior_steps=PRIOR_STEPS * horizon.fade**earlier_steps) if headroom.prior else horizon


def _scale_up(
    forecast: Forecast, run: SaturatedRun | None, window: int, limits: ScalingLimits, headroom: Headroom
) -> SizingDecision:
    """The size for the lowest expectation of the stabilization window; one step more at saturation.

    An SLO allows a single saturated step, unless the pool is new: a second one shows that the shortage lasts.
    """
    found = _required_size(forecast, min, window, limits, headroom)
    above = "" if headroom.prior else f"utilization above {limits.scale_up_ratio:.0%} or "
    found = replace(found, why=f"{found.why}: {above}too little headroom")
    if run is None or run.points < window + (headroom.prior and not run.history_is_short):
        return found
    if run.exhausted:
        why = f"still saturated after {run.growths} scale-ups: utilization does not show the demand"
        return replace(found, replicas=0, why=why, saturated=True, exhausted=True)
    replicas = max(found.replicas, next_size(run, limits.max))
    more = f"; the limit is {limits.max}" if replicas >= limits.max else ""
    why = f"saturated, which hides the demand: scale up by one step{more}"
    return replace(found, replicas=replicas, why=why, saturated=True)


def _scale_down(
    points: Sequence[DemandPoint | None],
    upper_bound: SizingDecision,
    lasting: SizingDecision | None,
    replicas: int,
    limits: ScalingLimits,
    evaluation: EvaluationSettings,
) -> SizingDecision:
    """The upper bound of the needed size, unless there is an objection; a small reduction to the `lasting` one.

    An SLO says what a replica is worth: without one, a small reduction is not worth a change.
    Above the limit there is none, but that the demand needs more than the limit: a pool is never made too small.
    """
    step = evaluation.step_seconds
    if replicas > limits.max:
        if upper_bound.needed is None or upper_bound.needed <= limits.max + ROUNDING:
            return upper_bound
        why = f"{upper_bound.why}: more than the maximum of {limits.max}; raise gpu.max, or reduce the load"
        return replace(upper_bound, replicas=replicas, why=why, reason=Reason.CONFLICTING)
    if any(change > 0 for change in _recent_size_changes(points, evaluation)):
        why = f"scaled up within the cool-down of {evaluation.cooldown_seconds} s"
        return replace(upper_bound, replicas=replicas, why=why)
    window = _steps(evaluation.scale_down_stabilization_seconds, step)
    complete = _complete(points[-window:], replicas)
    if len(complete) < window:
        why = _missing_points_message(len(complete), window, step)
        return replace(upper_bound, replicas=replicas, why=why, reason=Reason.INSUFFICIENT_HISTORY)
    objection = next(_scale_down_objections(complete, upper_bound, replicas, limits), None)
    if objection:
        return replace(upper_bound, replicas=replicas, why=objection)
    if replicas - upper_bound.replicas >= MIN_CHANGE_FACTOR * sqrt(replicas):
        return upper_bound
    longest = _steps(LASTING_SECONDS, step)
    if lasting and lasting.replicas < replicas and len(_complete(points[-longest:], replicas)) == longest:
        return lasting
    why = f"{replicas - upper_bound.replicas} fewer is within the error of the estimate"
    return replace(upper_bound, replicas=replicas, why=why)


def _complete(points: Sequence[DemandPoint | None], replicas: int) -> list[DemandPoint]:
    """Those at which no replica was missing."""
    return [point for point in points if point is not None and point.reporting >= max(replicas, point.replicas)]


def _scale_down_objections(
    complete: Sequence[DemandPoint], found: SizingDecision, replicas: int, limits: ScalingLimits
) -> Iterator[str]:
    """Reasons not to release unneeded replicas."""
    if found.replicas >= replicas:
        yield f"replicas that did not report may have needed {replicas}"
    if found.level is None or found.level >= limits.scale_down_ratio * replicas:
        yield f"not below {limits.scale_down_ratio:.0%}"
    if any(point.saturated for point in complete):
        yield "saturated within the stabilization window"


def _required_size(
    forecast: Forecast,
    extreme: Callable[[Sequence[float]], float],
    window: int,
    limits: ScalingLimits,
    headroom: Headroom,
    demand_window: int | None = None,
) -> SizingDecision:
    """The size for the extreme of a window, never below the demand in all of it (`min`) or any of it (`max`).

    `demand_window` is that of the demand, if it differs: a short burst is no lasting need.
    """
    level, ahead = extreme(forecast.levels[-window:]), extreme(forecast.expectations[-window:])
    needed = max(
        forecast.needed(ahead, headroom.deviations),
        ahead / limits.scale_up_ratio,
        extreme(forecast.demand[-(demand_window or window) :]),
        headroom.min_replicas,
    )
    why = f"{level:.1f} replicas' worth of work, {ahead:.1f} expected, {needed:.1f} with headroom"
    wanted = max(1, limits.min, min(limits.max, ceil(needed - ROUNDING)))
    return SizingDecision(wanted, why, level=level, expected=ahead, needed=needed)


def _recent_size_changes(points: Sequence[DemandPoint | None], evaluation: EvaluationSettings) -> Iterator[float]:
    """Changes of the pool's size within the cool-down."""
    steps = _steps(evaluation.cooldown_seconds, evaluation.step_seconds)
    known = [point.replicas for point in points[-steps - 1 :] if point is not None]
    return (after - before for before, after in pairwise(known) if after != before)


def _steps(seconds: float, step_seconds: float) -> int:
    return max(1, int(seconds // step_seconds))


def _missing_points_message(complete: int, wanted: int, step_seconds: float) -> str:
    return f"{complete} of the last {wanted} points, {step_seconds:g} s apart, are complete: wait"
