"""What pools with `slo.unserved` reach: the unserved share of a day, by family of days and objective.

    python -m benchmarks.slo_backtest [--seeds N] [--family NAME ...] [--processes N]

Each trace has two days: headroom is tuned to what was seen up to each hour, from nothing on. The second day is
measured, and the first is reported next to it. `default` is the advisor without an objective.

Less than half of the objective is the bound of whole GPUs where one GPU fewer, throughout the day, leaves more than
twice the objective: nothing in between exists. Such values are counted apart.

Two bounds know the second day in advance. `known` follows each minute's demand with whole GPUs and leaves exactly the
objective unserved: the fewest GPU-hours possible. `constant` is the smallest constant size that meets the objective;
with `one fewer` it shows how far apart whole GPUs are.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from enum import Enum
from itertools import product
from statistics import mean

import numpy as np
from gpu_advisor.backtest.compare import advisor_policy
from gpu_advisor.backtest.replay import Observation, SimulatedPool, replay
from gpu_advisor.backtest.trace import Trace
from gpu_advisor.settings import Settings

from benchmarks import common
from benchmarks.demand import MINUTES_OF_DAY, Demand
from benchmarks.demand_families import FAMILIES

POOL = SimulatedPool(start=2, min=1, max=114, start_delay_seconds=120)
OBJECTIVES = (0.0005, 0.001, 0.0025, 0.005)
FIRST_SEED = 700

#: Families whose shortages the past does not show, and why.
OUT_OF_REACH = {
    "steps": "a day has a few steps up, and one to a level that the past did not have leaves up to 0.6 %",
    "heavy-tailed bursts": "one burst, twice as large as all before it, leaves nearly 1 % of a day's demand",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """Unserved shares of the two days, and the second one's GPU-hours."""

    first_day_ratio: float
    unserved_ratio: float
    gpu_hours: float
    actions: int
    deviations: float


@dataclass(frozen=True, slots=True)
class Bound:
    """GPU-hours of the second day with the demand known, and unserved shares of two neighbouring constant sizes."""

    known_gpu_hours: float
    constant_gpu_hours: float
    constant_unserved_ratio: float
    one_fewer_unserved_ratio: float


class Verdict(str, Enum):
    """A reached share beside its objective."""

    WITHIN = "within"
    WHOLE_GPUS = "whole GPUs"
    ABOVE = "above"
    BELOW = "below"


@dataclass(frozen=True, slots=True)
class Job:
    family: str
    seed: int
    objective: float | None


def demand_of(job: Job) -> Demand:
    return np.clip(FAMILIES[job.family](job.seed), 0, None)


def bound(demand: Demand, objective: float) -> Bound:
    """What an oracle needs for a day's demand, one value a minute."""
    allowed = objective * demand.sum()
    served = np.sort(
        np.concatenate([np.minimum(1, demand[demand > size] - size) for size in range(int(demand.max()) + 1)])
    )
    dropped = int(np.searchsorted(np.cumsum(served), allowed, side="right"))  # the GPU-minutes that serve least
    sizes = np.arange(int(np.ceil(demand.max())) + 1)
    unserved = np.maximum(0, demand - sizes[:, None]).sum(axis=1) / demand.sum()
    size = int(np.argmax(unserved <= objective))
    return Bound(
        known_gpu_hours=(len(served) - dropped) / 60,
        constant_gpu_hours=size * len(demand) / 60,
        constant_unserved_ratio=float(unserved[size]),
        one_fewer_unserved_ratio=float(unserved[max(0, size - 1)]),
    )


def run(job: Job) -> Outcome:
    demand = demand_of(job)
    trace = Trace(60, tuple(map(float, demand)))
    settings = Settings()
    policy = advisor_policy(trace, POOL, settings.resources.gpu, settings.evaluation, job.objective)
    ready: list[int] = []
    billed: list[int] = []

    def observed(seen: Observation, /) -> int:
        ready.append(seen.ready)
        billed.append(seen.ready + seen.pending)
        return policy(seen)

    found = replay(trace, observed, POOL)
    unserved = np.maximum(0, demand - np.array(ready))
    first, second = slice(0, MINUTES_OF_DAY), slice(MINUTES_OF_DAY, None)
    assert policy.headroom is not None
    return Outcome(
        first_day_ratio=float(unserved[first].sum() / demand[first].sum()),
        unserved_ratio=float(unserved[second].sum() / demand[second].sum()),
        gpu_hours=float(sum(billed[second])) / 60,
        actions=found.actions,
        deviations=policy.headroom.deviations,
    )


def verdict_of(ratio: float, objective: float, around: Mapping[str, float]) -> Verdict:
    """`around`: the Bound of the same day and objective."""
    if ratio > 2 * objective:
        return Verdict.ABOVE
    if ratio >= objective / 2:
        return Verdict.WITHIN
    below, above = around["constant_unserved_ratio"] < objective / 2, around["one_fewer_unserved_ratio"] > 2 * objective
    return Verdict.WHOLE_GPUS if below and above else Verdict.BELOW


def average(outcomes: Sequence[Outcome | Bound]) -> dict[str, float]:
    rows = [asdict(outcome) for outcome in outcomes]
    return {key: mean(row[key] for row in rows) for key in rows[0]}


def name_of(objective: float | None) -> str:
    return "default" if objective is None else f"{objective:.2%}"


def table(results: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    rows = [["demand", "objective", "unserved", "first day", "GPU-hours", "headroom"]]
    for family, found in results.items():
        for objective, each in found.items():
            shares = (f"{each['unserved_ratio']:.3%}", f"{each['first_day_ratio']:.3%}")
            rows.append([family, objective, *shares, f"{each['gpu_hours']:.0f}", f"{each['deviations']:.1f}"])
    return common.table(rows)


def bounds_table(bounds: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    rows = [["demand", "objective", "known: GPU-hours", "constant: GPU-hours", "unserved", "one fewer"]]
    for family, found in bounds.items():
        for objective, each in found.items():
            hours = (f"{each['known_gpu_hours']:.0f}", f"{each['constant_gpu_hours']:.0f}")
            shares = (f"{each['constant_unserved_ratio']:.3%}", f"{each['one_fewer_unserved_ratio']:.3%}")
            rows.append([family, objective, *hours, *shares])
    return common.table(rows)


Results = Mapping[str, Mapping[str, Mapping[str, float]]]


def verdicts_of(results: Results, bounds: Results) -> dict[str, dict[str, Verdict]]:
    """By family and objective."""
    return {
        family: {
            name: verdict_of(found[name]["unserved_ratio"], objective, bounds[family][name])
            for name, objective in zip(map(name_of, OBJECTIVES), OBJECTIVES, strict=True)
        }
        for family, found in results.items()
    }


def goals(results: Results, verdicts: Mapping[str, Mapping[str, Verdict]]) -> list[common.Goal]:
    """Within a factor of two of the objective, on each family: not more, and not less at a higher cost."""
    found = []
    for family, by_objective in results.items():
        ratios = {name_of(each): by_objective[name_of(each)]["unserved_ratio"] / each for each in OBJECTIVES}
        judged = verdicts[family]
        above = [f"{name}: {ratio:.1f} times" for name, ratio in ratios.items() if judged[name] is Verdict.ABOVE]
        below = [f"{name}: {ratio:.2f} times" for name, ratio in ratios.items() if judged[name] is Verdict.BELOW]
        figures = ", ".join(f"{name}: {ratio:.1f} times" for name, ratio in ratios.items())
        why = f"; {OUT_OF_REACH[family]}" if family in OUT_OF_REACH and above else ""
        at_most = f"{family}: at most twice the objective is unserved"
        found.append(common.Goal(at_most, not above, (", ".join(above) or figures) + why, stretch=bool(why)))
        at_least = f"{family}: at least half of the objective is used, as far as whole GPUs allow"
        found.append(common.Goal(at_least, not below, ", ".join(below) or figures, stretch=True))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--family", action="append", choices=FAMILIES, help="only this one; no results file")
    parser.add_argument("--processes", type=int)
    chosen = parser.parse_args()
    families = chosen.family or list(FAMILIES)
    objectives = (*OBJECTIVES, None)
    seeds = range(FIRST_SEED, FIRST_SEED + chosen.seeds)
    jobs = [Job(family, seed, objective) for family, objective, seed in product(families, objectives, seeds)]
    results: dict[str, dict[str, dict[str, float]]] = {}
    with ProcessPoolExecutor(chosen.processes) as pool:
        outcomes = pool.map(run, jobs)
        for family in families:
            results[family] = {name_of(each): average([next(outcomes) for _ in seeds]) for each in objectives}
            print(table({family: results[family]}), flush=True)
    bounds = {
        family: {
            name_of(each): average([bound(demand_of(Job(family, seed, each))[MINUTES_OF_DAY:], each) for seed in seeds])
            for each in OBJECTIVES
        }
        for family in families
    }
    print(bounds_table(bounds))
    verdicts = verdicts_of(results, bounds)
    counts = Counter(verdict for found in verdicts.values() for verdict in found.values())
    print(", ".join(f"{verdict.value}: {counts[verdict]}" for verdict in Verdict))
    found = goals(results, verdicts)
    body = {
        "seeds": chosen.seeds,
        "by_demand": results,
        "bounds": bounds,
        "verdicts": verdicts,
        "goals": [asdict(goal) for goal in found],
    }
    raise SystemExit(common.conclude("slo_backtest", body, found, smoke=bool(chosen.family)))


if __name__ == "__main__":
    main()
