"""Tuned headroom in words: the objective, what was reached, and what other objectives would cost."""

from __future__ import annotations

from gpu_advisor.evaluation.scaling.frontier import FrontierPoint
from gpu_advisor.evaluation.scaling.headroom import FEW_SHORTAGES, TunedHeadroom

HOURS_PER_DAY = 24

#: A correction of a replica's work that is worth a sentence.
NOTEWORTHY_WORK = 0.03


def describe_headroom(headroom: TunedHeadroom, gpus_per_replica: int) -> str:
    """Two to seven sentences."""
    asked = f"slo.unserved {percent(headroom.target_ratio)}"
    if headroom.of_windows:
        asked = f"slo.windows {_kept(headroom.target_ratio)}"
    if headroom.missing_seconds or headroom.chosen is None:
        return (
            f"Headroom is the default of {headroom.deviations:g} deviations: tuning it to {asked} needs "
            f"{headroom.missing_seconds / 60:.0f} more minutes of history."
        )
    hours = headroom.chosen.replicas * gpus_per_replica * HOURS_PER_DAY
    share = _kept if headroom.of_windows else percent
    others = ", ".join(
        f"{share(point.unserved_ratio)} with {point.replicas * gpus_per_replica * HOURS_PER_DAY:.0f}"
        for point in headroom.frontier
    )
    left = f"misses {_reached(headroom)}" if headroom.of_windows else f"leaves {_reached(headroom)} unserved"
    return (
        f"Headroom is {headroom.deviations:g} deviations{_minimum(headroom.chosen)}, tuned to {asked}. "
        f"A replay of the last {headroom.history_seconds / 3600:.0f} hours {left}, with "
        f"{hours:.0f} GPU-hours a day. Other objectives: {others}.{_limits_of_knowledge(headroom)}"
    )


def _limits_of_knowledge(headroom: TunedHeadroom) -> str:
    """Where the objective is out of reach, and what the replay cannot know."""
    found = " A burst beyond all of this past is not covered." if headroom.of_windows else ""
    if abs(headroom.work_ratio - 1) >= NOTEWORTHY_WORK:
        found += (
            f" Half of the windows miss an objective at {headroom.work_ratio:.0%} of the load that the step-time model "
            "allows: the work of a replica is corrected by that."
        )
    if headroom.is_out_of_reach:
        reached = (_kept if headroom.of_windows else percent)(headroom.target_ratio)
        found += f" No headroom reaches {reached} in this past: raise the pool's maximum, or the objective."
    if headroom.saturated_steps:
        steps = "1 step" if headroom.saturated_steps == 1 else f"{headroom.saturated_steps} steps"
        found += (
            f" In {steps} utilization was saturated, and what was demanded beyond it is an estimate: a demand signal "
            "shows it."
        )
    return found


def _minimum(chosen: FrontierPoint) -> str:
    return f", with at least {chosen.min_replicas} replicas" if chosen.min_replicas else ""


def _kept(missed_ratio: float) -> str:
    """The share of windows that keep their objectives."""
    return f"{100 * (1 - missed_ratio):.4g} %"


def percent(ratio: float | None) -> str:
    """A ratio as percent, with two significant digits."""
    return "unknown" if ratio is None else f"{float(f'{100 * ratio:.2g}'):g} %"


def _reached(headroom: TunedHeadroom) -> str:
    """The reached share and its uncertainty: of few shortages, only the upper bound means anything."""
    of = " of the windows" if headroom.of_windows else " of the demand"
    most = f"at most {percent(headroom.upper_ratio)}{of} (95 % confidence, {headroom.shortages} shortages)"
    if headroom.shortages < FEW_SHORTAGES:
        return most
    return f"{percent(headroom.reached_ratio)}{of}, {most.replace(of, '')}"
