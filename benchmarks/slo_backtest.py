"""What pools with `slo.unserved` reach: the unserved share of a day, by family of days and objective.

    python -m benchmarks.slo_backtest [--seeds N] [--family NAME ...] [--processes N]

Each trace has two days: headroom is tuned to what was seen up to each hour, from nothing on. The second day is
measured, and the first is reported beside it. `default` is the advisor without an objective.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import product
from statistics import mean

import numpy as np
from gpu_advisor.backtest.compare import advisor_policy
from gpu_advisor.backtest.replay import Observation, SimulatedPool, replay
from gpu_advisor.backtest.trace import Trace
from gpu_advisor.settings import Settings

from benchmarks import common
from benchmarks.demand import MINUTES_OF_DAY
from benchmarks.demand_families import FAMILIES

POOL = SimulatedPool(start=2, min=1, max=114, start_delay_seconds=120)
OBJECTIVES = (0.0005, 0.001, 0.0025, 0.005)
FIRST_SEED = 700

#: Families whose shortages no headroom can foresee, or no recorded utilization can show, and why.
OUT_OF_REACH = {
    "steps": "each step up is short of capacity until new replicas are ready, whatever the headroom",
    "on and off": "each start is short of capacity until new replicas are ready, whatever the headroom",
    "heavy-tailed bursts": "utilization does not show how far rare bursts exceed the capacity: needs a demand signal",
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
class Job:
    family: str
    seed: int
    objective: float | None


def run(job: Job) -> Outcome:
    demand = np.clip(FAMILIES[job.family](job.seed), 0, None)
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


def average(outcomes: Sequence[Outcome]) -> dict[str, float]:
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


def goals(results: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[common.Goal]:
    """At most twice the objective, on each family."""
    found = []
    for family, by_objective in results.items():
        reached: list[str] = []
        missed: list[str] = []
        for objective in OBJECTIVES:
            ratio = by_objective[name_of(objective)]["unserved_ratio"] / objective
            (reached if ratio <= 2 else missed).append(f"{name_of(objective)}: {ratio:.1f} times")
        why = f"; {OUT_OF_REACH[family]}" if family in OUT_OF_REACH and missed else ""
        found.append(
            common.Goal(
                f"{family}: at most twice the objective is unserved",
                not missed,
                ", ".join(missed or reached) + why,
                stretch=family in OUT_OF_REACH,
            )
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--family", action="append", choices=FAMILIES, help="only this one")
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
    verdicts = goals(results)
    print("\n".join(map(str, verdicts)))
    body = {"seeds": chosen.seeds, "by_demand": results, "goals": [asdict(goal) for goal in verdicts]}
    print(common.write("slo_backtest", body))
    if common.missed_goals(verdicts):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
