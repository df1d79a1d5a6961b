"""What a better forecast, or a faster release, would save: GPU-hours at the same unserved share.

    python -m benchmarks.forecast_bound [--days N] [--hour FILE ...]

Single days are replayed with the code that tunes headroom (evaluation/scaling/candidate_replay), with several amounts
of headroom; between two of them, GPU-hours are those at the objective by its logarithm. One thing is changed at a time.
The level of the demand is the daily pattern itself in `pattern known`, which no forecast from earlier days can exceed,
and the pattern times what the last hour was above it in `pattern known, scaled`. The days are those fitted to a
published one (benchmarks.demand), and days made of recorded hours, if given (benchmarks.recorded_day). Results are
written of runs with recorded hours, to which the docs refer, too.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import pairwise
from math import exp, log
from pathlib import Path
from unittest.mock import patch

import numpy as np
from gpu_advisor.evaluation.scaling import candidate_replay, replay_steps
from gpu_advisor.evaluation.scaling.candidate_replay import CandidateReplay
from gpu_advisor.evaluation.scaling.demand_record import RecordedDemand
from gpu_advisor.evaluation.scaling.forecast import exponential_moving_average
from gpu_advisor.evaluation.scaling.replay_steps import SizingRules
from gpu_advisor.evaluation.scaling.sizing import ScalingLimits, sizing_rules
from gpu_advisor.settings import Settings

from benchmarks import common
from benchmarks.demand import FLEETS, MINUTES_OF_DAY, Demand, FleetDemand, generate_demand
from benchmarks.recorded_day import MEAN_GPUS, day_of, recorded_hour, working_day
from benchmarks.slo_backtest import OBJECTIVES, POOL, name_of

DEVIATIONS = (0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5, 6, 8, 12)
FIRST_SEED = 3000
LAST_HOUR_HALF_LIFE = 30.0

#: The pool's capacity is never in the way of what was recorded.
UNLIMITED = 1e6


@dataclass(frozen=True, slots=True)
class KnownDay:
    demand: Demand
    pattern: Demand


@dataclass(frozen=True, slots=True)
class Variant:
    """A change of the sizing: of its rules, or of what is known of a day."""

    rules: Callable[[SizingRules], SizingRules] = lambda rules: rules
    known: Callable[[KnownDay], AbstractContextManager[object]] = lambda _: nullcontext()


def pattern_known(day: KnownDay) -> AbstractContextManager[object]:
    return patch.object(replay_steps, "exponential_moving_average", lambda *_: day.pattern.tolist())


def pattern_scaled(day: KnownDay) -> AbstractContextManager[object]:
    def levels(work: Sequence[float], _: float) -> list[float]:
        pattern: list[float] = day.pattern.tolist()
        recent, usual = (exponential_moving_average(of, LAST_HOUR_HALF_LIFE) for of in (work, pattern))
        return [each * now / then for each, now, then in zip(pattern, recent, usual, strict=True)]

    return patch.object(replay_steps, "exponential_moving_average", levels)


def small_changes(_: KnownDay) -> AbstractContextManager[object]:
    return patch.object(candidate_replay, "MIN_CHANGE_FACTOR", 0.3)


VARIANTS = {
    "as it is": Variant(),
    "pattern known": Variant(known=pattern_known),
    "pattern known, scaled": Variant(known=pattern_scaled),
    "no cool-down": Variant(rules=lambda rules: replace(rules, cooldown_steps=0)),
    "cool-down of two minutes, half the least change": Variant(
        lambda rules: replace(rules, cooldown_steps=2), small_changes
    ),
    "released after two minutes": Variant(lambda rules: replace(rules, down_steps=2)),
    "level of five minutes": Variant(
        lambda rules: replace(rules, horizon=replace(rules.horizon, level_half_life_steps=5))
    ),
}


def pattern_of(of: FleetDemand) -> Demand:
    """The mean demand by minute: requests, and bursts."""
    daily = ((1 + np.cos(2 * np.pi * (np.arange(MINUTES_OF_DAY) / 60 - of.peak_hour) / 24)) / 2) ** of.sharpness
    level = of.night + (of.day - of.night) * daily
    bursts = of.bursts_per_hour / 60 * of.burst_gpus * exp(of.burst_spread**2 / 2) * of.burst_minutes
    return np.asarray(level + bursts * (1 - of.with_load + of.with_load * level / level.mean()))


def gpu_hours(days: Sequence[KnownDay], variant: Variant) -> dict[str, float | None]:
    """By objective, in the mean of the days; None where no headroom tried is next to it."""
    settings = Settings()
    limits = ScalingLimits(POOL.min, POOL.max, 0.85, 0.6, POOL.start_delay_seconds).for_objective()
    rules = variant.rules(sizing_rules(limits, settings.evaluation))
    each = []
    for day in days:
        count = len(day.demand)
        record = RecordedDemand(tuple(day.demand.tolist()), (UNLIMITED,) * count, (False,) * count, has_signal=False)
        with variant.known(day):
            found = CandidateReplay(record, rules)
            tried = [found.candidate(deviations) for deviations in DEVIATIONS]
        each.append([(one.replicas / found.steps * 24, one.unserved / found.total) for one in tried])
    frontier = np.array(each).mean(axis=0).tolist()
    return {name_of(objective): _hours_at(frontier, objective) for objective in OBJECTIVES}


def _hours_at(frontier: Sequence[tuple[float, float]], ratio: float) -> float | None:
    for (few, lax), (many, strict) in pairwise(frontier):
        if lax >= ratio >= strict > 0:
            return few + log(lax / ratio) / log(lax / strict) * (many - few)
    return None


def saved(found: Mapping[str, float | None], base: Mapping[str, float | None]) -> dict[str, float]:
    known = {name: (hours, base[name]) for name, hours in found.items()}
    return {name: 1 - hours / before for name, (hours, before) in known.items() if hours and before}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=4, help="of each kind")
    parser.add_argument("--hour", type=Path, action="append", default=[], help="CSV of an hour, one kind of days each")
    chosen = parser.parse_args()
    seeds = range(FIRST_SEED, FIRST_SEED + chosen.days)
    kinds = {
        "fitted days": [KnownDay(generate_demand(of, seed), pattern_of(of)) for of in FLEETS.values() for seed in seeds]
    }
    for path in chosen.hour:
        hour = recorded_hour(path)
        kinds[path.stem] = [KnownDay(day_of(hour, seed), MEAN_GPUS * working_day()) for seed in seeds]
    hours = {kind: {name: gpu_hours(days, each) for name, each in VARIANTS.items()} for kind, days in kinds.items()}
    gains = {
        kind: {name: saved(each, found["as it is"]) for name, each in found.items()} for kind, found in hours.items()
    }
    rows = [["days", "variant", *map(name_of, OBJECTIVES)]]
    for kind, found in gains.items():
        for name, each in found.items():
            figures = (each.get(name_of(objective)) for objective in OBJECTIVES)
            rows.append([kind, name, *("-" if figure is None else f"{figure:+.1%}" for figure in figures)])
    print(common.table(rows))
    if chosen.hour:
        print(common.write("forecast_bound", {"gpu_hours": hours, "saved_ratio": gains}))


if __name__ == "__main__":
    main()
