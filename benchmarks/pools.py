"""A thousand pools over 5,000 GPUs, next to ten pools over the same GPUs, and pools tuned to an SLO: one decision.

python -m benchmarks.pools

In CPU seconds of this process. A tuned pool is replayed once an hour, at a phase of its own: `tuned` is a decision in
between, `first` the one that tunes them all.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from random import Random

from benchmarks.common import Goal, missed_goals, table, write

GPUS, FEW, MANY, ROUNDS = 5000, 10, 1000, 3
GOAL_RATIO = 2.0
TUNED, DAY_STEPS, REGULAR_STEPS = 300, 1440, 240


def measure(pools: int) -> float:
    """CPU seconds of one decision, the best of several."""
    from gpu_advisor.evaluation.engine import decide
    from gpu_advisor.settings import Settings

    from tests.unit.advisor.builders import GpuSpec, facts

    configured = [{"name": f"p{n}", "kind": "training", "match": {"node": f"node-{n:04d}-.*"}} for n in range(pools)]
    settings = Settings.model_validate({"pools": configured})
    each = GPUS // pools
    cards = [
        GpuSpec(f"GPU-{n}-{i}", 0.5, node=f"node-{n:04d}-{i // 8}", index=str(i % 8))
        for n in range(pools)
        for i in range(each)
    ]
    known = facts(cards, settings)
    taken = []
    for _ in range(ROUNDS):
        begun = time.process_time()
        decide(known, settings)
        taken.append(time.process_time() - begun)
    return min(taken)


def measure_tuned() -> tuple[float, float]:
    """CPU seconds of the first decision on TUNED pools with an SLO and a day of history, and of the next one."""
    from gpu_advisor.evaluation.engine import decide
    from gpu_advisor.evaluation.history import PoolSample, step_bounds
    from gpu_advisor.settings import Settings

    from tests.unit.advisor.builders import AT, GpuSpec, facts

    names = [f"p{n}" for n in range(TUNED)]
    pools = [
        {"name": name, "kind": "serving", "match": {"node": f"node-{name}"}, "slo": {"unserved": "0.2%"}}
        for name in names
    ]
    settings = Settings.model_validate({"pools": pools})
    step, last = settings.evaluation.step_seconds, step_bounds(AT, settings.evaluation)[1]
    random = Random(1)
    days = {
        name: tuple(PoolSample(last - step * ago, 8, random.uniform(1, 5)) for ago in reversed(range(DAY_STEPS)))
        for name in names
    }
    cards = [
        GpuSpec(
            f"GPU-{name}-{i}",
            0.4,
            node=f"node-{name}",
            index=str(i),
            trail=tuple((each.at, each.busy / 8) for each in days[name][-REGULAR_STEPS:]),
        )
        for name in names
        for i in range(8)
    ]
    known = replace(facts(cards, settings), slo_histories=days)
    begun = time.process_time()
    decide(known, settings)
    tuned = time.process_time()
    decide(known, settings)
    return tuned - begun, time.process_time() - tuned


def main(argv: list[str] | None = None) -> int:
    argparse.ArgumentParser(prog="python -m benchmarks.pools", description=__doc__).parse_args(argv)
    few, many, (first, tuned) = measure(FEW), measure(MANY), measure_tuned()
    rows = {str(FEW): few, str(MANY): many, f"{TUNED} tuned, first": first, f"{TUNED} tuned": tuned}
    print(table([["pools", "CPU seconds"], *([name, f"{seconds:.2f}"] for name, seconds in rows.items())]))
    goal = Goal(f"{MANY} pools within {GOAL_RATIO:g} times of {FEW}", many <= GOAL_RATIO * few, f"{many / few:.2f}")
    print(goal)
    document = {"gpus": GPUS, "cpu_seconds": rows, "goals": [vars(goal)]}
    print(f"written: {write('pools', document)}")
    return 1 if missed_goals([goal]) else 0


if __name__ == "__main__":
    sys.exit(main())
