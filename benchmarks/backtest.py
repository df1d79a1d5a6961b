"""The advisor's pool sizes beside autoscalers' and an oracle's, over generated and recorded demand.

    python -m benchmarks.backtest [--seeds N] [--trace FILE ...]

Every row is a mean over the seeds. Of the fleets fitted to a published day, the days are used whose oracle is closest
to that day's 222 GPU-hours, so that GPU-hours are comparable. `hpa_70_min_10` is HPA with a minimum tuned by hand.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from statistics import mean

from gpu_advisor.backtest.baselines import HpaPolicy, OraclePolicy, oracle_replicas
from gpu_advisor.backtest.compare import advisor_policy
from gpu_advisor.backtest.replay import ReplayResult, SimulatedPool, replay
from gpu_advisor.backtest.trace import Trace, read_csv
from gpu_advisor.settings import Settings

from benchmarks import common
from benchmarks.daily_pattern_bound import unserved_ratio
from benchmarks.demand import FLEETS, SHAPES

FLEET = SimulatedPool(start=2, min=1, max=114, start_delay_seconds=120)
ORACLE_HOURS = 222  # of the published day
CANDIDATES = 4  # days looked at for each that is taken
BOUND_HOURS = (340, 360, 380, 400)


def replay_all(trace: Trace, settings: Settings) -> dict[str, ReplayResult]:
    gpu = settings.resources.gpu
    tuned = replace(FLEET, min=10, start=10)
    return {
        "advisor": replay(trace, advisor_policy(trace, FLEET, gpu, settings.evaluation), FLEET),
        "hpa_70": replay(trace, HpaPolicy(0.7), FLEET),
        "hpa_50": replay(trace, HpaPolicy(0.5), FLEET),
        "hpa_70_min_10": replay(trace, HpaPolicy(0.7), tuned),
        "oracle": oracle(trace),
    }


def oracle(trace: Trace) -> ReplayResult:
    start = max(1, oracle_replicas(trace.demand[0] or 0.0))
    policy = OraclePolicy(trace.demand, trace.interval_seconds)
    return replay(trace, policy, replace(FLEET, start=start, start_delay_seconds=0))


def traces(name: str, seeds: int, first_seed: int = 0) -> list[Trace]:
    tried = seeds * (CANDIDATES if name in FLEETS else 1)
    made = [_trace(name, seed) for seed in range(first_seed, first_seed + tried)]
    if name in FLEETS:
        made.sort(key=lambda trace: abs(oracle(trace).gpu_hours - ORACLE_HOURS))
    return made[:seeds]


def _trace(name: str, seed: int) -> Trace:
    return Trace(60, tuple(float(value) for value in SHAPES[name](seed)))


def average_outcomes(found: Iterable[Mapping[str, ReplayResult]]) -> dict[str, dict[str, float]]:
    rows = list(found)
    return {
        policy: {key: mean(asdict(row[policy])[key] for row in rows) for key in asdict(rows[0][policy])}
        for policy in rows[0]
    }


def table(results: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    rows = [["demand", "policy", "GPU-hours", "unserved", "time under", "changes", "reversals"]]
    for name, policies in results.items():
        for policy, found in policies.items():
            rows.append(
                [
                    name,
                    policy,
                    f"{found['gpu_hours']:.0f}",
                    f"{found['unserved_ratio']:.2%}",
                    f"{found['time_under_ratio']:.1%}",
                    f"{found['actions']:.0f}",
                    f"{found['reversals']:.0f}",
                ]
            )
    return common.table(rows)


def sensitivity(seeds: int) -> dict[str, dict[str, float]]:
    """The fleets' means with one setting changed at a time: a plateau, or a needle?"""
    changes: dict[str, tuple[float, ...]] = {
        "headroom_deviations": (2.4, 2.7, 3.0, 3.6),
        "level_half_life_seconds": (300, 900),
        "excess_half_life_seconds": (3600, 18000),
        "scale_down_stabilization_seconds": (60, 600),
        "cooldown_seconds": (60, 600),
        "history_seconds": (7200, 28800),
    }
    variants: dict[str, dict[str, float]] = {"defaults": {}}
    variants |= {f"{key} {value:g}": {key: value} for key, values in changes.items() for value in values}
    days = [trace for name in FLEETS for trace in traces(name, seeds)]
    found = {}
    for name, change in variants.items():
        settings = Settings()
        settings = settings.model_copy(update={"evaluation": settings.evaluation.model_copy(update=change)})
        policy = settings.resources.gpu
        each = [
            {"advisor": replay(day, advisor_policy(day, FLEET, policy, settings.evaluation), FLEET)} for day in days
        ]
        found[name] = average_outcomes(each)["advisor"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trace", type=Path, action="append", default=[], help="CSV, replayed at 60 s besides")
    parser.add_argument("--no-sensitivity", action="store_true")
    chosen = parser.parse_args()
    settings = Settings()
    results = {
        name: average_outcomes(replay_all(day, settings) for day in traces(name, chosen.seeds)) for name in SHAPES
    }
    days = {name: results[name] for name in FLEETS}
    fleets = {
        policy: {key: mean(day[policy][key] for day in days.values()) for key in next(iter(days.values()))[policy]}
        for policy in next(iter(days.values()))
    }
    print(table({**results, "mean of the fitted days": fleets}))
    recorded = {path.name: average_outcomes([replay_all(read_csv(path, 60), settings)]) for path in chosen.trace}
    if recorded:
        print(table(recorded))
    steady = {} if chosen.no_sensitivity else sensitivity(max(1, chosen.seeds - 1))
    if steady:
        print(table({name: {"advisor": found} for name, found in steady.items()}))
    wave = {hours: mean(unserved_ratio(of, hours / ORACLE_HOURS) for of in FLEETS.values()) for hours in BOUND_HOURS}
    print("daily wave known, bursts not: " + ", ".join(f"{h} GPU-hours {u:.2%}" for h, u in wave.items()))
    goals = _goals(fleets)
    print("\n".join(map(str, goals)))
    body = {"by_demand": results, "fitted_days": fleets, "sensitivity": steady, "known_wave_unserved_ratio": wave}
    print(common.write("backtest", json.loads(json.dumps({**body, "goals": [asdict(goal) for goal in goals]}))))
    if common.missed_goals(goals):
        raise SystemExit(1)


def _goals(fleets: Mapping[str, Mapping[str, float]]) -> list[common.Goal]:
    ours, tuned, plain = fleets["advisor"], fleets["hpa_70_min_10"], fleets["hpa_70"]
    unserved = f"{ours['unserved_ratio']:.2%}"
    hours = f"{ours['gpu_hours']:.0f} GPU-hours"
    return [
        common.Goal(
            "fewer GPU-hours than HPA with a minimum tuned by hand",
            ours["gpu_hours"] < tuned["gpu_hours"],
            f"{hours} against {tuned['gpu_hours']:.0f}",
        ),
        common.Goal(
            "a third of what plain HPA 70 leaves unserved",
            ours["unserved_ratio"] <= plain["unserved_ratio"] / 3,
            f"{unserved} against {plain['unserved_ratio']:.2%}",
        ),
        common.Goal("at most 170 changes a day", ours["actions"] <= 170, f"{ours['actions']:.0f}"),
        common.Goal("at most 0.26 % unserved", ours["unserved_ratio"] <= 0.0026, unserved, stretch=True),
        common.Goal("at most 340 GPU-hours", ours["gpu_hours"] <= 340, hours, stretch=True),
    ]


if __name__ == "__main__":
    main()
