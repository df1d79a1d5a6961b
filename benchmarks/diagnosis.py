"""How well causes are recognized, and how often a healthy fleet gets a false alarm.

    python -m benchmarks.diagnosis [--count 500] [--seed N] [--gpus 1000]

Situations come from benchmarks/situations, which was written from the physics and frozen before the decision table.

A situation is diagnosed correctly if the affected GPUs get its cause and no GPU gets another one. A situation that is
identifiable from the available families (the generator decides) is part of the confusion matrix, where `unknown` is
wrong. For all others `unknown` is correct; they are counted separately. A false alarm is a recommendation that begins
on a healthy fleet.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Collection, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

from gpu_advisor.evaluation.diagnosis.decision_table import DIAGNOSES, HEALTHY, UNKNOWN, UNUSED, WAITING_FOR_STRAGGLER
from gpu_advisor.evaluation.diagnosis.diagnose import GpuDiagnosis, diagnose
from gpu_advisor.evaluation.diagnosis.peers import build_peers
from gpu_advisor.evaluation.engine import Evaluation
from gpu_advisor.evaluation.policies import POLICIES, mixed_precision
from gpu_advisor.evaluation.pools import Pool
from gpu_advisor.evaluation.recommendation import Abstention, Recommendation
from gpu_advisor.settings import PoolSettings, Settings
from gpu_advisor.state.active import ActiveRecommendation, stale_ids

from benchmarks import common
from benchmarks.situations.classes import CLASSES, draw
from benchmarks.situations.facts_adapter import ObservedSituation, merge_facts
from benchmarks.situations.gpu_group import DAY_SECONDS, SCRAPE_SECONDS
from benchmarks.situations.healthy_day import days
from benchmarks.situations.observation import observe
from benchmarks.situations.situation import HISTORY_SECONDS, Situation

#: Kept for the figures that are published. Other seeds served to write the table; two that were kept before this one
#: are spent, 20261121 and 20270101: false alarms on them showed rows that were too bold.
HELD_OUT_SEED = 20280101
FLEET_GPUS = 125
GOAL_F1 = 0.95
GOAL_FALSE_ALARMS = 1.0

Confusion = Counter[tuple[str, str]]


@dataclass(frozen=True)
class Scores:
    """Counts of (truth, answer), of identifiable and of unidentifiable situations."""

    identifiable: Confusion
    unidentifiable: Confusion

    def recall(self, label: str) -> float:
        of_class = sum(n for (truth, _), n in self.identifiable.items() if truth == label)
        return _ratio(self.identifiable[label, label], of_class)

    def precision(self, label: str) -> float:
        diagnosed = sum(n for (_, answer), n in self.identifiable.items() if answer == label)
        return _ratio(self.identifiable[label, label], diagnosed)

    def f1(self, label: str) -> float:
        return _ratio(2 * self.precision(label) * self.recall(label), self.precision(label) + self.recall(label))

    @property
    def macro_f1(self) -> float:
        return sum(map(self.f1, CLASSES)) / len(CLASSES)

    @property
    def false_cause_ratio(self) -> float:
        """Share of the unidentifiable situations that got a wrong cause."""
        wrong = sum(n for (truth, answer), n in self.unidentifiable.items() if answer not in (truth, UNKNOWN, HEALTHY))
        return _ratio(wrong, self.unidentifiable.total())


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def answer(situation: Situation, outcomes: Sequence[GpuDiagnosis]) -> str:
    """Return the diagnosis of a situation as a whole: a wrong cause if any GPU has one, else the right one."""
    quiet = {HEALTHY, UNUSED, WAITING_FOR_STRAGGLER, UNKNOWN}
    causes = {outcome.name for outcome in outcomes} - quiet
    if causes:
        return next(iter(sorted(causes - {situation.label})), situation.label)
    well = sum(1 for outcome in outcomes if outcome.name in (HEALTHY, UNUSED))
    unknown = sum(1 for outcome in outcomes if outcome.name == UNKNOWN)
    return HEALTHY if well and well >= unknown else UNKNOWN


def score_class(label: str, seed: int, count: int) -> Scores:
    """Draw situations of one class and diagnose them."""
    identifiable: Confusion = Counter()
    unidentifiable: Confusion = Counter()
    intervals = int(HISTORY_SECONDS / SCRAPE_SECONDS)
    for situation, rng in draw(label, seed, count):
        seen = ObservedSituation(situation, observe(rng, situation.scene, situation.exporters, intervals), Settings())
        facts = seen.facts(intervals)
        found = answer(situation, diagnose(facts, build_peers(facts, seen.gpus), [seen.pool]))
        (identifiable if situation.identifiable else unidentifiable)[label, found] += 1
    return Scores(identifiable, unidentifiable)


def score_all_classes(seed: int, count: int, processes: int = 2) -> Scores:
    identifiable: Confusion = Counter()
    unidentifiable: Confusion = Counter()
    with ProcessPoolExecutor(processes) as pool:
        for scores in pool.map(score_class, CLASSES, [seed] * len(CLASSES), [count] * len(CLASSES)):
            identifiable += scores.identifiable
            unidentifiable += scores.unidentifiable
    return Scores(identifiable, unidentifiable)


@dataclass(frozen=True)
class FalseAlarms:
    gpus: int
    days: float
    kinds: Counter[str]

    @property
    def per_day_and_thousand(self) -> float:
        return sum(self.kinds.values()) / self.days / self.gpus * 1000


def false_alarms(seed: int, gpus: int, hours: float = 24.0) -> FalseAlarms:
    """Evaluate a healthy fleet every 15 s by all policies except those on pool sizes.

    Counts what an operator would see: each recommendation that begins; one that lacks data is kept. Pools here do not
    need idle GPUs, so that advice to release them is no false alarm.
    """
    settings = Settings.model_validate({"resources": {"gpu": {"min": 0, "max": 10_000}}})
    lead = int(HISTORY_SECONDS / SCRAPE_SECONDS)
    intervals = lead + int(hours / 24 * DAY_SECONDS / SCRAPE_SECONDS)
    watched = [
        ObservedSituation(
            situation, observe(rng, situation.scene, situation.exporters, intervals), settings, f"s{number}"
        )
        for number, (situation, rng) in enumerate(days(seed, gpus))
        if situation.variant != "unused"
    ]
    pools = _pools(watched)
    single = {
        gpu.uuid
        for each in watched
        for gpu, rank in zip(each.gpus, each.situation.scene.ranks, strict=True)
        if rank.step.tensor == 0 and rank.step.fp32 > rank.step.fp64
    }
    active: dict[str, ActiveRecommendation] = {}
    begun: Counter[str] = Counter()
    for scrape in range(lead, intervals + 1):
        facts = merge_facts([each.facts(scrape) for each in watched])
        results = [each for pool in pools for policy in POLICIES for each in policy(facts, settings, pool)]
        advice = {each.id("bench"): each for each in results if isinstance(each, Recommendation)}
        words = tuple(each for each in results if isinstance(each, Abstention))
        evaluation = Evaluation(facts.at, facts, (), (), (), words)
        stale = stale_ids(active, frozenset(advice), evaluation)
        begun.update(
            word.kind for id_, word in advice.items() if id_ not in active and not _is_expected_advice(word, single)
        )
        active = {id_: given for id_, given in active.items() if id_ in stale} | {
            id_: ActiveRecommendation(facts.at, word.kind, word.scope, frozenset(word.gpus))
            for id_, word in advice.items()
        }
    return FalseAlarms(sum(len(each.gpus) for each in watched), hours / 24, begun)


def false_alarms_parallel(seed: int, gpus: int, processes: int = 2) -> FalseAlarms:
    """A day of so many GPUs, in fleets of `FLEET_GPUS`."""
    seeds = [seed + number for number in range(-(-gpus // FLEET_GPUS))]
    begun: Counter[str] = Counter()
    seen = 0
    with ProcessPoolExecutor(processes) as pool:
        for part in pool.map(false_alarms, seeds, [FLEET_GPUS] * len(seeds)):
            begun += part.kinds
            seen += part.gpus
            print(f"{seen} GPUs for a day: {begun.total()} false alarms {dict(begun)}", flush=True)
    return FalseAlarms(seen, 1.0, begun)


def _is_expected_advice(word: Recommendation, single: Collection[str]) -> bool:
    """Work in single precision is no trouble, but advice on mixed precision is right about it."""
    return word.kind == mixed_precision.KIND and set(word.gpus) <= set(single)


def _pools(watched: Sequence[ObservedSituation]) -> list[Pool]:
    """One a model and kind, as a fleet would have: jobs of all sorts are each other's peers."""
    members: dict[tuple[str, str], list[ObservedSituation]] = {}
    for each in watched:
        members.setdefault((each.situation.scene.hardware.name, each.pool.settings.kind), []).append(each)
    return [
        Pool(
            PoolSettings.model_validate({"name": f"{name} {kind}", "kind": kind}),
            tuple(gpu for each in found for gpu in each.gpus),
        )
        for (name, kind), found in members.items()
    ]


def table(scores: Scores) -> str:
    answers = [*CLASSES, UNKNOWN]
    rows = [["truth", "n", *(name[:9] for name in answers), "precision", "recall", "F1"]]
    for label in CLASSES:
        counts = [scores.identifiable[label, each] for each in answers]
        figures = [f"{value:.3f}" for value in (scores.precision(label), scores.recall(label), scores.f1(label))]
        rows.append([label, str(sum(counts)), *(str(count) if count else "." for count in counts), *figures])
    return common.table(rows)


def unidentifiable_table(scores: Scores) -> str:
    rows = [["unidentifiable", "n", "unknown", "healthy", "right", "false cause"]]
    for label in CLASSES:
        found = {answer: n for (truth, answer), n in scores.unidentifiable.items() if truth == label}
        total, quiet = sum(found.values()), (found.get(UNKNOWN, 0), found.get(HEALTHY, 0) if label != HEALTHY else 0)
        right = found.get(label, 0)
        rows.append([label, *map(str, (total, *quiet, right, total - sum(quiet) - right))])
    return common.table(rows)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--count", type=int, default=500, help="situations of each class")
    parser.add_argument("--seed", type=int, default=HELD_OUT_SEED)
    parser.add_argument("--gpus", type=int, default=1000, help="of the healthy fleet")
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args(argv)
    scores = score_all_classes(arguments.seed, arguments.count, arguments.processes)
    print(table(scores), "\n")
    print(unidentifiable_table(scores), "\n", flush=True)
    alarms = false_alarms_parallel(arguments.seed, arguments.gpus, arguments.processes)
    rate = alarms.per_day_and_thousand
    goals = [
        common.Goal(f"macro F1 at least {GOAL_F1}", scores.macro_f1 >= GOAL_F1, f"{scores.macro_f1:.3f}"),
        common.Goal(
            "false alarms under 1 a day and 1,000 GPUs",
            rate < GOAL_FALSE_ALARMS,
            f"{rate:.2f} on {alarms.gpus} GPUs: {dict(alarms.kinds)}",
        ),
    ]
    print(*goals, sep="\n")
    common.write("diagnosis", _results(arguments, scores, alarms))
    return 1 if common.missed_goals(goals) else 0


def _results(arguments: argparse.Namespace, scores: Scores, alarms: FalseAlarms) -> dict[str, Any]:
    return {
        "seed": arguments.seed,
        "situations_per_class": arguments.count,
        "macro_f1": scores.macro_f1,
        "classes": {
            label: {
                "precision": scores.precision(label),
                "recall": scores.recall(label),
                "f1": scores.f1(label),
                "answers": {found: n for (truth, found), n in sorted(scores.identifiable.items()) if truth == label},
                "answers_where_it_cannot_be_told": {
                    found: n for (truth, found), n in sorted(scores.unidentifiable.items()) if truth == label
                },
            }
            for label in CLASSES
        },
        "invented_ratio_where_it_cannot_be_told": scores.false_cause_ratio,
        "false_alarms": {
            "gpus": alarms.gpus,
            "hours": alarms.days * 24,
            "per_day_and_1000_gpus": alarms.per_day_and_thousand,
            "kinds": dict(alarms.kinds),
        },
        "diagnoses": sorted(DIAGNOSES),
    }


if __name__ == "__main__":
    sys.exit(main())
