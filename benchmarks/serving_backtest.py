"""Replicas of a language model over a week of requests: the advisor's sizing next to other policies.

    python -m benchmarks.serving_backtest [--seed 1] [--shape NAME ...] [--recorded FILE ...] [--few] [--processes N]

The requests and the fleet are those of benchmarks/serving/week.py, and of benchmarks/serving/shapes.py; a recorded
trace is repeated with noise. A five-minute window meets the objectives if 95 % of its requests get their first token
and their inter-token latency within them. All policies have the same start-up time, minimum and maximum. The other
autoscalers are in benchmarks/serving/autoscalers.py: each with its best target of the whole week, which is known only
afterwards, and with the one that was best on the first days, on the days after these. Without --shape, results are
written.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

from gpu_advisor.evaluation.scaling.sizing import SizingDecision
from gpu_advisor.settings import EvaluationSettings

from benchmarks import common
from benchmarks.serving import shapes, week
from benchmarks.serving.advisor_policy import Advisor, Oracle
from benchmarks.serving.autoscalers import Policy, autoscalers
from benchmarks.serving.draw import interval
from benchmarks.serving.outcomes import Days, Outcome, Outcomes, hours_at, nearest, replay

GOAL_MET, GOAL_SAVING = 0.99, 0.20

#: The days that an operator has seen when the targets are set.
PAST_DAYS = 3

#: Other objectives, for the advisor's own frontier over the week; and the headroom that it has without history.
OTHER_OBJECTIVES, UNTUNED = ("98%", "99.7%"), "advisor, not tuned"

#: The targets of --few, which takes a third of the time.
FEW = frozenset({
    "llm-d's saturation", "HPA queue 1", "HPA queue 0.1, 1 fewer in 600 s", "HPA queue 1, 1 fewer in 600 s",
    *(f"HPA running {target}" for target in (20, 25, 30, 40, 46, 50)),
})  # fmt: skip

#: Families of autoscalers, by the beginning of their names.
FAMILIES = {"HPA on the queue": "HPA queue ", "HPA on running requests": "HPA running "}


@dataclass(frozen=True)
class Comparison:
    """All policies over one week, and what the advisor's GPU-hours were for."""

    days: Mapping[str, Days]
    account: Sequence[tuple[str, float]]

    def outcomes(self, first: int = 0, last: int = week.DAYS) -> dict[str, Outcome]:
        return {name: each.outcome(first, last) for name, each in self.days.items()}


def policies(rates: list[float], objectives: Iterable[str], few: bool) -> dict[str, Policy]:
    by_hand = EvaluationSettings(headroom_deviations=EvaluationSettings().headroom_deviations)
    others = {f"advisor, {slo} of windows": Advisor(slo=slo) for slo in objectives}
    rivals = {name: each for name, each in autoscalers().items() if name in FEW or not few}
    return {"oracle": Oracle(rates), "advisor": Advisor(), **others, UNTUNED: Advisor(by_hand), **rivals}


def compare(seed: int, few: bool, shape: str, rates: list[float]) -> Comparison:
    counts = list(week.arrivals(seed, rates))
    tried = policies(rates, () if few or shape != "week" else OTHER_OBJECTIVES, few)
    days = {name: replay(policy, counts) for name, policy in tried.items()}
    advisor = tried["advisor"]
    assert isinstance(advisor, Advisor)
    return Comparison(days, account(advisor.decisions, rates, days["advisor"].outcome().gpu_hours))


def of_family(found: Outcomes, family: str) -> dict[str, Outcome]:
    return {name: each for name, each in found.items() if name.startswith(FAMILIES[family])}


def best_of(found: Comparison) -> dict[str, tuple[str, Outcome]]:
    """By family: the target that is best afterwards, over all days."""
    whole = found.outcomes()
    names = {family: nearest(of_family(whole, family), GOAL_MET) for family in FAMILIES}
    return {family: (name, whole[name]) for family, name in names.items()}


def tuned_on_the_past(found: Comparison) -> dict[str, tuple[str, Outcome]]:
    """By family: the target that was best on the first days, and what it gives on the others."""
    past, later = found.outcomes(0, PAST_DAYS), found.outcomes(PAST_DAYS)
    names = {family: nearest(of_family(past, family), GOAL_MET) for family in FAMILIES}
    return {family: (name, later[name]) for family, name in names.items()}


def account(decided: Sequence[SizingDecision], rates: Sequence[float], used: float) -> list[tuple[str, float]]:
    """GPU-hours of the advisor, step by step from the demand to what it used."""
    busiest = week.MAX_NUM_SEQS / interval(week.COST, week.LOAD, week.MAX_NUM_SEQS)
    true = [max(week.MIN_REPLICAS, rate * week.LOAD.output / busiest) for rate in rates]
    hours = week.STEP_SECONDS / 3600
    sizes = [
        ("the demand, at the objective, in parts of replicas", hours * sum(true)),
        ("room for the requests of a moment, by the learned curve", _hours(each.level for each in decided)),
        ("rises until a new replica serves", _hours(each.expected for each in decided)),
        ("headroom for errors of the forecast", _hours(each.needed for each in decided)),
        ("whole replicas", _hours(math.ceil(each.needed or 0.0) for each in decided)),
        ("scaled down late: stabilization, small changes", used),
    ]
    return [(sizes[0][0], sizes[0][1]), *((name, after - before) for (_, before), (name, after) in pairwise(sizes))]


def _hours(replicas: Iterable[float | None]) -> float:
    """Of a decision a step of the demand's history."""
    step = EvaluationSettings().step_seconds
    return sum(max(week.MIN_REPLICAS, each or 0.0) for each in replicas) * step / 3600


def _cell(each: Outcome) -> str:
    return f"{each.met:.2%}, {each.gpu_hours:.0f}"


def print_comparison(title: str, found: Comparison) -> None:
    whole = found.outcomes()
    rows = [(name, f"{each.met:.2%}", f"{each.gpu_hours:.0f}") for name, each in whole.items()]
    print(f"\n{title}\n{common.table([('policy', 'windows met', 'GPU-hours'), *rows])}", flush=True)
    explained = ((name, f"{hours:+.0f}") for name, hours in found.account)
    print(common.table([("the advisor's GPU-hours are for", ""), *explained]))
    frontier = [each for name, each in whole.items() if name.startswith("advisor") and name != UNTUNED]
    for family, (name, rival) in best_of(found).items():
        hours = hours_at(frontier, rival.met)
        same = "beyond its own frontier" if hours is None else f"{hours:.0f} by its own frontier"
        print(f"{family}: {name} has {_cell(rival)} GPU-hours; for the same share, the advisor: {same}")


def print_table(found: Mapping[str, Comparison]) -> None:
    """All shapes: the share of windows met, and GPU-hours."""
    print(f"\nAll days: windows met, GPU-hours; targets that come nearest to {GOAL_MET:.0%} afterwards")
    rows = []
    for shape, each in found.items():
        whole = each.outcomes()
        rivals = [f"{_cell(rival)} ({name})" for name, rival in best_of(each).values()]
        ours = [_cell(whole[name]) for name in ("oracle", "advisor", UNTUNED)]
        rows.append((shape, *ours, *rivals, _cell(whole["llm-d's saturation"])))
    print(common.table([("shape", "oracle", "advisor", UNTUNED, *FAMILIES, "llm-d"), *rows]))
    print(f"\nDays {PAST_DAYS + 1} to {week.DAYS}: targets as set by days 1 to {PAST_DAYS}")
    rows = []
    for shape, each in found.items():
        later = each.outcomes(PAST_DAYS)
        rivals = [f"{_cell(rival)} ({name})" for name, rival in tuned_on_the_past(each).values()]
        rows.append((shape, _cell(later["oracle"]), _cell(later["advisor"]), *rivals))
    print(common.table([("shape", "oracle", "advisor", *FAMILIES), *rows]))


def saving_to(found: Comparison, family: str) -> float | None:
    """The share of the GPU-hours of the cheapest that meets the goal that the advisor saves; None if none meets it."""
    _, rival = best_of(found)[family]
    return 1 - found.outcomes()["advisor"].gpu_hours / rival.gpu_hours if rival.met >= GOAL_MET else None


def goals(found: Mapping[str, Comparison]) -> list[common.Goal]:
    checked = []
    for shape, each in found.items():
        ours, saving = each.outcomes()["advisor"], saving_to(each, "HPA on the queue")
        figure = "no HPA on the queue meets it" if saving is None else f"{saving:.0%}"
        checked += [
            common.Goal(f"{shape}: {GOAL_MET:.0%} of the windows met", ours.met >= GOAL_MET, f"{ours.met:.2%}"),
            common.Goal(f"{shape}: {GOAL_SAVING:.0%} fewer GPU-hours than HPA on the queue",
                        saving is None or saving >= GOAL_SAVING, figure),
        ]  # fmt: skip
    return checked


def _documents(found: Outcomes) -> dict[str, dict[str, float]]:
    return {name: {"met": round(each.met, 5), "gpu_hours": round(each.gpu_hours, 1)} for name, each in found.items()}


def _document(found: Comparison) -> dict[str, object]:
    return {
        "saving_ratio": saving_to(found, "HPA on the queue"),
        "saving_ratio_running": saving_to(found, "HPA on running requests"),
        "account_gpu_hours": {name: round(hours, 1) for name, hours in found.account},
        "policies": _documents(found.outcomes()),
        "later_days": _documents(found.outcomes(PAST_DAYS)),
        "tuned_on_the_past": {family: name for family, (name, _) in tuned_on_the_past(found).items()},
    }


def weeks(options: argparse.Namespace) -> dict[str, list[float]]:
    """Requests per second in each step, by the name of the shape."""
    chosen = options.shape or list(shapes.SHAPES)
    found = {shape: shapes.SHAPES[shape](options.seed) for shape in chosen}
    for path in options.recorded:
        found[f"recorded: {path.stem}"] = shapes.recorded_hours(options.seed, shapes.read_demand(path))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--shape", action="append", choices=sorted(shapes.SHAPES), help="default: all")
    parser.add_argument("--recorded", type=Path, action="append", default=[], help="a trace of the back-test")
    parser.add_argument("--few", action="store_true", help="few targets of the other autoscalers")
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    drawn = weeks(options)
    with ProcessPoolExecutor(options.processes) as pool:
        compared = pool.map(partial(compare, options.seed, options.few), drawn, drawn.values())
        found = {}
        for shape, each in zip(drawn, compared, strict=True):
            print_comparison(shape, each)
            found[shape] = each
    print_table(found)
    checked = goals(found)
    print(*checked, sep="\n")
    if not options.shape:
        documents = {shape: _document(each) for shape, each in found.items()}
        common.write(
            "serving_backtest",
            {"seed": options.seed, "past_days": PAST_DAYS, "few_targets": options.few, "shapes": documents},
        )
    return 1 if common.missed_goals(checked) else 0


if __name__ == "__main__":
    sys.exit(main())
