"""How much demand a saturated pool hides, and how much the replay takes it to be: by family of days.

    python -m benchmarks.hidden_demand [--seeds N]

Days whose demand is known are replayed with the default headroom; the advisor sees only utilization. `estimated` is
MEAN_EXCESS_DEVIATIONS of each hidden step beyond what more replicas showed, `true` is what the days had. Families in
brackets were not used to choose that constant.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from math import exp, log
from statistics import fmean

import numpy as np
from gpu_advisor.backtest.compare import advisor_policy
from gpu_advisor.backtest.replay import Observation, replay
from gpu_advisor.backtest.trace import Trace
from gpu_advisor.evaluation.scaling.demand_history import SATURATION_RATIO
from gpu_advisor.evaluation.scaling.demand_record import RecordedDemand
from gpu_advisor.evaluation.scaling.replay_steps import prepare_steps
from gpu_advisor.evaluation.scaling.sizing import ScalingLimits, sizing_rules
from gpu_advisor.settings import Settings

from benchmarks import common
from benchmarks.demand import FLEETS, MINUTES_OF_DAY
from benchmarks.demand_families import FAMILIES
from benchmarks.slo_backtest import POOL

FIRST_SEED = 5000


def hidden(family: str, seed: int) -> tuple[float, float]:
    """GPU-minutes beyond the capacity of a day, estimated and true."""
    settings = Settings()
    demand = np.clip(FAMILIES[family](seed)[:MINUTES_OF_DAY], 0, None)
    trace = Trace(60, tuple(map(float, demand)))
    policy = advisor_policy(trace, POOL, settings.resources.gpu, settings.evaluation)
    ready: list[float] = []

    def observed(seen: Observation, /) -> int:
        ready.append(seen.ready)
        return policy(seen)

    replay(trace, observed, POOL)
    sizes = np.array(ready)
    work = tuple(map(float, np.minimum(demand, sizes)))
    saturated = tuple(bool(each) for each in demand >= SATURATION_RATIO * sizes)
    record = RecordedDemand(work, tuple(ready), saturated, has_signal=False)
    limits = ScalingLimits(POOL.min, POOL.max, 0.85, 0.6, POOL.start_delay_seconds).for_objective()
    steps = prepare_steps(record, sizing_rules(limits, settings.evaluation))
    beyond = np.maximum(0, steps.work - sizes) + steps.mean_excess
    return float(beyond[steps.counted].sum()), float(np.maximum(0, demand - sizes)[steps.counted].sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=4)
    seeds = parser.parse_args().seeds
    rows, found = [["demand", "estimated", "true", "ratio"]], dict[str, dict[str, float]]()
    for family in FAMILIES:
        days = [hidden(family, FIRST_SEED + seed) for seed in range(seeds)]
        estimated, true = fmean(day[0] for day in days), fmean(day[1] for day in days)
        found[family] = {"estimated_gpu_minutes": estimated, "true_gpu_minutes": true}
        name = family if family in FLEETS else f"({family})"
        rows.append([name, f"{estimated:.1f}", f"{true:.1f}", f"{estimated / true:.2f}" if true >= 1 else "-"])
    print(common.table(rows))
    ratios = [found[family]["estimated_gpu_minutes"] / found[family]["true_gpu_minutes"] for family in FLEETS]
    mean = exp(fmean(map(log, ratios)))
    goal = common.Goal("the fitted days' mean within a fifth of the truth", 0.8 <= mean <= 1.2, f"{mean:.2f}")
    print(goal)
    print(common.write("hidden_demand", {"seeds": seeds, "by_demand": found, "goals": [asdict(goal)]}))
    if common.missed_goals([goal]):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
