"""How well the causes that hold inference servers back are recognized.

    python -m benchmarks.serving_diagnosis [--count 500] [--workers 2] [--runs FILE]

Situations come from benchmarks/serving, a simulated server that was frozen before the decision table. A cause is what,
when relaxed, lifts goodput by 10 %; several may hold at once. The table was set on seeds up to 12300062, and the
figures are of seeds from 13000000 on. `--runs` keeps simulated runs, and uses those that are there.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from gpu_advisor.evaluation.serving.diagnosis import diagnose_window
from gpu_advisor.evaluation.serving.groups import Objectives, make_group

from benchmarks import common
from benchmarks.serving.causes import CAUSES
from benchmarks.serving.facts_adapter import AT, points_of, replicas_of
from benchmarks.serving.recorded_runs import JudgedRun, judged_runs
from benchmarks.serving.situation import WINDOW_SECONDS

GOAL_MACRO_F1 = 0.95
SECONDS_PER_DAY = 86_400

#: Without a cause are also servers that miss objectives, where no single change helps; these keep them.
KEPT_RATIO = 0.95


def found_causes(judged: JudgedRun) -> frozenset[str]:
    situation = judged.situation
    group = make_group(replicas_of(situation, judged.run), points_of(judged.run), AT, WINDOW_SECONDS)
    diagnosis = diagnose_window(group, Objectives(situation.ttft, situation.itl))
    return frozenset(each.name for each in diagnosis.causes)


def f1(right: int, wrong: int, missed: int) -> float:
    return 2 * right / (2 * right + wrong + missed) if right else 0.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=500, help="situations of each class")
    parser.add_argument("--first-seed", type=int, default=13_000_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--runs", type=Path)
    options = parser.parse_args()

    right, wrong, missed = Counter[str](), Counter[str](), Counter[str]()
    kept_causes = Counter[str]()
    situations = healthy = false_alarms = windows = kept = kept_false_alarms = 0
    for judged in judged_runs(options.count, options.first_seed, options.runs, options.workers):
        found = found_causes(judged)
        situations += 1
        right.update(found & judged.causes)
        wrong.update(found - judged.causes)
        missed.update(judged.causes - found)
        if not judged.causes:
            healthy += 1
            windows += len(judged.samples)
            false_alarms += bool(found)
            if judged.run.attainment >= KEPT_RATIO:
                kept += 1
                kept_false_alarms += bool(found)
                kept_causes.update(found)
    scores = {name: f1(right[name], wrong[name], missed[name]) for name in CAUSES}
    macro = sum(scores.values()) / len(scores)
    rows = [
        (name, *map(str, (right[name] + missed[name], right[name], wrong[name], missed[name])), f"{scores[name]:.3f}")
        for name in CAUSES
    ]
    print(common.table([("cause", "present", "found", "wrongly", "missed", "F1"), *rows]))
    print(f"{situations} situations: macro-F1 {macro:.3f}")
    print(f"{healthy} without a cause ({windows} windows of {WINDOW_SECONDS:.0f} s): {false_alarms} with advice")
    print(f"{kept} of them keep their objectives for {KEPT_RATIO:.0%} of requests: {kept_false_alarms} with advice")
    print("  " + ", ".join(f"{name} {count}" for name, count in kept_causes.most_common()))
    common.write(
        "serving_diagnosis",
        {
            "situations": situations,
            "macro_f1": round(macro, 4),
            "f1": {name: round(score, 4) for name, score in scores.items()},
            "counts": {name: {"found": right[name], "wrongly": wrong[name], "missed": missed[name]} for name in CAUSES},
            "without_cause": healthy,
            "without_cause_replica_days": round(windows * WINDOW_SECONDS / SECONDS_PER_DAY, 2),
            "false_alarms": false_alarms,
            "objectives_kept": kept,
            "objectives_kept_false_alarms": kept_false_alarms,
            "objectives_kept_false_causes": dict(kept_causes),
        },
    )
    goal = common.Goal(f"macro-F1 at least {GOAL_MACRO_F1}", macro >= GOAL_MACRO_F1, f"{macro:.3f}")
    print(goal)
    return 1 if common.missed_goals([goal]) else 0


if __name__ == "__main__":
    sys.exit(main())
