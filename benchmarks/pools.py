"""A thousand pools over 5,000 GPUs, next to ten pools over the same GPUs: the time of one decision.

python -m benchmarks.pools
"""

from __future__ import annotations

import argparse
import sys
import time

from benchmarks.common import Goal, missed_goals, table, write

GPUS, FEW, MANY, ROUNDS = 5000, 10, 1000, 3
GOAL_RATIO = 2.0


def measure(pools: int) -> float:
    """Seconds of one decision, the best of several."""
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
        begun = time.perf_counter()
        decide(known, settings)
        taken.append(time.perf_counter() - begun)
    return min(taken)


def main(argv: list[str] | None = None) -> int:
    argparse.ArgumentParser(prog="python -m benchmarks.pools", description=__doc__).parse_args(argv)
    few, many = measure(FEW), measure(MANY)
    print(table([["pools", "seconds"], [str(FEW), f"{few:.2f}"], [str(MANY), f"{many:.2f}"]]))
    goal = Goal(f"{MANY} pools within {GOAL_RATIO:g} times of {FEW}", many <= GOAL_RATIO * few, f"{many / few:.2f}")
    print(goal)
    document = {"gpus": GPUS, "seconds": {str(FEW): few, str(MANY): many}, "goals": [vars(goal)]}
    print(f"written: {write('pools', document)}")
    return 1 if missed_goals([goal]) else 0


if __name__ == "__main__":
    sys.exit(main())
