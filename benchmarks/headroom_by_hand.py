"""Headroom by hand beside headroom tuned to an SLO: GPU-hours at the same unserved share, over single days.

    python -m benchmarks.headroom_by_hand [--seeds N] [--first-seed N] [--trace FILE ...] [--hour FILE ...]

Each day begins without history, as a new pool does. The days are those fitted to a published one (benchmarks.backtest),
and recorded ones, if given, or made of a recorded hour (benchmarks.recorded_day). By hand means: the best of many
replays of that very day, which nobody has in advance, with the default thresholds of utilization and without.
Results are written of runs with recorded hours, to which the docs refer, too.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from math import log
from pathlib import Path
from statistics import mean

from gpu_advisor.backtest.compare import advisor_policy
from gpu_advisor.backtest.replay import ReplayResult, replay
from gpu_advisor.backtest.trace import Trace, read_csv
from gpu_advisor.settings import Settings

from benchmarks import common
from benchmarks.backtest import FLEET, traces
from benchmarks.demand import FLEETS
from benchmarks.recorded_day import day_of, recorded_hour

DEVIATIONS = (2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0)

#: Percent: without thresholds a pool grows at saturation only, and headroom alone sizes it.
NO_THRESHOLD, DEVIATIONS_ALONE = 98.0, (1.0, 1.5, 2.0, 3.0, 4.0)
OBJECTIVES = (0.0005, 0.001, 0.0025, 0.005)

#: Of GPU-hours: less is chance.
TOLERANCE = 0.01


@dataclass(frozen=True, slots=True)
class Candidate:
    """A hand-set headroom, with thresholds of utilization in percent if not the default ones, or an objective."""

    deviations: float | None = None
    unserved_ratio: float | None = None
    threshold: float | None = None

    @property
    def name(self) -> str:
        if self.deviations is None:
            return f"slo.unserved {self.unserved_ratio:.2%}"
        return f"{self.deviations:g} deviations{'' if self.threshold is None else ' alone'}"


WITH_THRESHOLDS = [Candidate(deviations=each) for each in DEVIATIONS]
ALONE = [Candidate(deviations=each, threshold=NO_THRESHOLD) for each in DEVIATIONS_ALONE]
BY_HAND = (*WITH_THRESHOLDS, *ALONE)
TUNED = [Candidate(unserved_ratio=each) for each in OBJECTIVES]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Means over days."""

    gpu_hours: float
    unserved_ratio: float
    actions: float


def run(day: Trace, candidate: Candidate) -> ReplayResult:
    settings = Settings()
    evaluation = settings.evaluation
    if candidate.deviations is not None:
        evaluation = evaluation.model_copy(update={"headroom_deviations": candidate.deviations})
    gpu = settings.resources.gpu
    if candidate.threshold is not None:
        thresholds = {"scale_up_threshold": candidate.threshold, "scale_down_threshold": candidate.threshold}
        gpu = gpu.model_copy(update=thresholds)
    policy = advisor_policy(day, FLEET, gpu, evaluation, candidate.unserved_ratio)
    return replay(day, policy, FLEET)


def average(results: Sequence[ReplayResult]) -> Outcome:
    return Outcome(*(mean(getattr(each, key) for each in results) for key in Outcome.__dataclass_fields__))


def hours_by_hand(outcomes: Mapping[str, Outcome], unserved_ratio: float) -> float | None:
    """The least GPU-hours by hand with this unserved share, between two headrooms by its logarithm; None beyond."""
    found = (_hours_between(outcomes, each, unserved_ratio) for each in (WITH_THRESHOLDS, ALONE))
    return min((hours for hours in found if hours is not None), default=None)


def _hours_between(
    outcomes: Mapping[str, Outcome], candidates: Sequence[Candidate], unserved_ratio: float
) -> float | None:
    known = sorted((outcomes[each.name] for each in candidates), key=lambda each: each.unserved_ratio)
    for strict, lax in pairwise(known):
        if not 0 < strict.unserved_ratio <= unserved_ratio <= lax.unserved_ratio:
            continue
        if strict.unserved_ratio < lax.unserved_ratio:
            share = log(unserved_ratio / strict.unserved_ratio) / log(lax.unserved_ratio / strict.unserved_ratio)
            return strict.gpu_hours + share * (lax.gpu_hours - strict.gpu_hours)
        return min(strict.gpu_hours, lax.gpu_hours)
    return None


def table(days: str, outcomes: Mapping[str, Outcome]) -> str:
    rows = [["days", "headroom", "unserved", "GPU-hours", "by hand", "changes"]]
    for name, found in outcomes.items():
        by_hand = hours_by_hand(outcomes, found.unserved_ratio)
        compared = "-" if by_hand is None else f"{by_hand:.0f}"
        rows.append(
            [days, name, f"{found.unserved_ratio:.3%}", f"{found.gpu_hours:.0f}", compared, f"{found.actions:.0f}"]
        )
    return common.table(rows)


def goals(days: str, outcomes: Mapping[str, Outcome]) -> list[common.Goal]:
    found = []
    for candidate in TUNED:
        tuned = outcomes[candidate.name]
        by_hand = hours_by_hand(outcomes, tuned.unserved_ratio)
        if by_hand is None:
            continue
        text = f"{days}, {candidate.name}: no more GPU-hours than by hand at the same unserved share"
        figure = f"{tuned.gpu_hours:.0f} against {by_hand:.0f} at {tuned.unserved_ratio:.2%}"
        found.append(common.Goal(text, tuned.gpu_hours <= (1 + TOLERANCE) * by_hand, figure, stretch=True))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--trace", type=Path, action="append", default=[], help="CSV of one day, replayed at 60 s")
    parser.add_argument("--hour", type=Path, action="append", default=[], help="CSV of an hour, of which days are made")
    parser.add_argument("--processes", type=int)
    chosen = parser.parse_args()
    seeds = range(chosen.first_seed, chosen.first_seed + chosen.seeds)
    days = {"fitted days": [day for name in FLEETS for day in traces(name, chosen.seeds, chosen.first_seed)]}
    days |= {path.stem: [read_csv(path, 60)] for path in chosen.trace}
    for path in chosen.hour:
        hour = recorded_hour(path)
        days[path.stem] = [Trace(60, tuple(day_of(hour, seed).tolist())) for seed in seeds]
    results: dict[str, dict[str, Outcome]] = {}
    with ProcessPoolExecutor(chosen.processes) as pool:
        for name, each in days.items():
            results[name] = {
                candidate.name: average(list(pool.map(partial(run, candidate=candidate), each)))
                for candidate in (*BY_HAND, *TUNED)
            }
            print(table(name, results[name]), flush=True)
    verdicts = [goal for name, outcomes in results.items() for goal in goals(name, outcomes)]
    body = {
        "seeds": chosen.seeds,
        "first_seed": chosen.first_seed,
        "by_days": {
            name: {key: asdict(found) for key, found in outcomes.items()} for name, outcomes in results.items()
        },
        "goals": [asdict(goal) for goal in verdicts],
    }
    raise SystemExit(common.conclude("headroom_by_hand", body, verdicts, smoke=not chosen.hour))


if __name__ == "__main__":
    main()
