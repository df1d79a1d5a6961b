"""How well the causes that hold inference servers back are recognized.

    python -m benchmarks.serving_diagnosis [--count 500] [--workers 2] [--runs FILE] [--other-arrivals]

Situations come from benchmarks/serving, a simulated server that was frozen before the decision table. A cause is what,
when relaxed, lifts goodput by 10 %; several may hold at once. The table was set on seeds from 32000000 to 32003999. The
figures are of seeds from 51000000 on. `--runs` keeps simulated runs, and uses those that are there.

A window is one draw of arrivals and lengths, and so are its causes: goodput a little above or below a tenth more.
`--other-arrivals` shows how far that goes: the causes are those of the same situation with another draw. That is what a
diagnosis could say that knew the server and its load exactly, but not the requests of the window.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from multiprocessing import Pool
from pathlib import Path

from gpu_advisor.evaluation.serving.diagnosis import diagnose_window
from gpu_advisor.evaluation.serving.groups import Objectives, make_group

from benchmarks import common
from benchmarks.serving.causes import CAUSES, causes_of
from benchmarks.serving.facts_adapter import AT, points_of, replicas_of
from benchmarks.serving.recorded_runs import JudgedRun, judged_runs
from benchmarks.serving.situation import WINDOW_SECONDS, Situation

GOAL_MACRO_F1 = 0.95
SECONDS_PER_DAY = 86_400

#: Without a cause are also servers that miss objectives, where no single change helps; these keep them.
KEPT_RATIO = 0.95

#: Added to a situation's seed for another draw of its requests.
OTHER_DRAW = 777


def found_causes(judged: JudgedRun) -> frozenset[str]:
    situation = judged.situation
    group = make_group(replicas_of(situation, judged.run), points_of(judged.run), AT, WINDOW_SECONDS)
    diagnosis = diagnose_window(group, Objectives(situation.ttft, situation.itl))
    return frozenset(each.name for each in diagnosis.causes)


@dataclass
class Scores:
    """By cause: situations in which it was found and present, found only, and present only."""

    right: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)

    def add(self, found: frozenset[str], present: frozenset[str]) -> None:
        self.right.update(found & present)
        self.wrong.update(found - present)
        self.missed.update(present - found)

    @property
    def f1(self) -> Mapping[str, float]:
        return {name: f1(self.right[name], self.wrong[name], self.missed[name]) for name in CAUSES}

    @property
    def macro_f1(self) -> float:
        return sum(self.f1.values()) / len(CAUSES)

    def table(self) -> str:
        rows = [
            (name, str(self.right[name] + self.missed[name]), str(self.right[name]), str(self.wrong[name]),
             str(self.missed[name]), f"{score:.3f}")
            for name, score in self.f1.items()
        ]  # fmt: skip
        return common.table([("cause", "present", "found", "wrongly", "missed", "F1"), *rows])

    def as_json(self) -> dict[str, object]:
        return {
            "macro_f1": round(self.macro_f1, 4),
            "f1": {name: round(score, 4) for name, score in self.f1.items()},
            "counts": {
                name: {"found": self.right[name], "wrongly": self.wrong[name], "missed": self.missed[name]}
                for name in CAUSES
            },
        }


def f1(right: int, wrong: int, missed: int) -> float:
    return 2 * right / (2 * right + wrong + missed) if right else 0.0


def with_other_arrivals(situation: Situation) -> frozenset[str]:
    return causes_of(replace(situation, seed=situation.seed + OTHER_DRAW))


def score_other_arrivals(runs: Iterable[JudgedRun], workers: int) -> int:
    """Print and keep how well the causes of one draw are those of another."""
    judged = list(runs)
    scores = Scores()
    with Pool(workers) as pool:
        found: Iterator[frozenset[str]] = pool.imap(with_other_arrivals, (each.situation for each in judged), 4)
        for causes, each in zip(found, judged, strict=True):
            scores.add(causes, each.causes)
    print(scores.table())
    print(f"{len(judged)} situations with other arrivals: macro-F1 {scores.macro_f1:.3f}")
    common.write("serving_diagnosis_other_arrivals", {"situations": len(judged), **scores.as_json()})
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=500, help="situations of each class")
    parser.add_argument("--first-seed", type=int, default=51_000_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--runs", type=Path)
    parser.add_argument("--other-arrivals", action="store_true")
    options = parser.parse_args()
    runs = judged_runs(options.count, options.first_seed, options.runs, options.workers)
    if options.other_arrivals:
        return score_other_arrivals(runs, options.workers)

    scores = Scores()
    kept_causes = Counter[str]()
    situations = healthy = false_alarms = windows = kept = kept_false_alarms = 0
    for judged in runs:
        found = found_causes(judged)
        situations += 1
        scores.add(found, judged.causes)
        if not judged.causes:
            healthy += 1
            windows += len(judged.samples)
            false_alarms += bool(found)
            if judged.run.attainment >= KEPT_RATIO:
                kept += 1
                kept_false_alarms += bool(found)
                kept_causes.update(found)
    print(scores.table())
    print(f"{situations} situations: macro-F1 {scores.macro_f1:.3f}")
    print(f"{healthy} without a cause ({windows} windows of {WINDOW_SECONDS:.0f} s): {false_alarms} with advice")
    print(f"{kept} of them keep their objectives for {KEPT_RATIO:.0%} of requests: {kept_false_alarms} with advice")
    print("  " + ", ".join(f"{name} {count}" for name, count in kept_causes.most_common()))
    common.write(
        "serving_diagnosis",
        {
            "situations": situations,
            **scores.as_json(),
            "without_cause": healthy,
            "without_cause_replica_days": round(windows * WINDOW_SECONDS / SECONDS_PER_DAY, 2),
            "false_alarms": false_alarms,
            "objectives_kept": kept,
            "objectives_kept_false_alarms": kept_false_alarms,
            "objectives_kept_false_causes": dict(kept_causes),
        },
    )
    macro = scores.macro_f1
    goal = common.Goal(f"macro-F1 at least {GOAL_MACRO_F1}", macro >= GOAL_MACRO_F1, f"{macro:.3f}")
    print(goal)
    return 1 if common.missed_goals([goal]) else 0


if __name__ == "__main__":
    sys.exit(main())
