"""Tuned headroom in words: the objective, what was reached, and what other objectives would cost."""

from __future__ import annotations

from gpu_advisor.evaluation.scaling.frontier import FrontierPoint
from gpu_advisor.evaluation.scaling.headroom import FEW_SHORTAGES, TunedHeadroom

HOURS_PER_DAY = 24


def describe_headroom(headroom: TunedHeadroom, gpus_per_replica: int) -> str:
    """Two to five sentences."""
    asked = f"slo.unserved {percent(headroom.target_ratio)}"
    if headroom.missing_seconds or headroom.chosen is None:
        return (
            f"Headroom is the default of {headroom.deviations:g} deviations: tuning it to {asked} needs "
            f"{headroom.missing_seconds / 60:.0f} more minutes of history."
        )
    hours = headroom.chosen.replicas * gpus_per_replica * HOURS_PER_DAY
    others = ", ".join(
        f"{percent(point.unserved_ratio)} with {point.replicas * gpus_per_replica * HOURS_PER_DAY:.0f}"
        for point in headroom.frontier
    )
    return (
        f"Headroom is {headroom.deviations:g} deviations{_minimum(headroom.chosen)}, tuned to {asked}. "
        f"A replay of the last {headroom.history_seconds / 3600:.0f} hours leaves {_reached(headroom)} unserved, with "
        f"{hours:.0f} GPU-hours a day. Other objectives: {others}.{_limits_of_knowledge(headroom)}"
    )


def _limits_of_knowledge(headroom: TunedHeadroom) -> str:
    """Where the objective is out of reach, and what the replay cannot know."""
    found = ""
    if headroom.is_out_of_reach:
        found = (
            f" No headroom reaches {percent(headroom.target_ratio)} in this past: raise the pool's maximum, or the "
            "objective."
        )
    if headroom.saturated_steps:
        steps = "1 step" if headroom.saturated_steps == 1 else f"{headroom.saturated_steps} steps"
        found += (
            f" In {steps} utilization was saturated, and what was demanded beyond it is an estimate: a demand signal "
            "shows it."
        )
    return found


def _minimum(chosen: FrontierPoint) -> str:
    return f", with at least {chosen.min_replicas} replicas" if chosen.min_replicas else ""


def percent(ratio: float | None) -> str:
    """A ratio as percent, with two significant digits."""
    return "unknown" if ratio is None else f"{float(f'{100 * ratio:.2g}'):g} %"


def _reached(headroom: TunedHeadroom) -> str:
    """The reached share and its uncertainty: of few shortages, only the upper bound means anything."""
    most = f"at most {percent(headroom.upper_ratio)} of the demand (95 % confidence, {headroom.shortages} shortages)"
    if headroom.shortages < FEW_SHORTAGES:
        return most
    return f"{percent(headroom.reached_ratio)} of the demand, {most.replace(' of the demand', '')}"
