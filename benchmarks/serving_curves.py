"""Learned curves against published ones: three points of each table are given, the others are predicted.

    python -m benchmarks.serving_curves

A point is what the server ran at a time, by Little's law: tokens per second times seconds between tokens. So requests
that only wait do not count. The error is relative, of inter-token latency and of throughput. The form of the curve was
chosen by some of the tables; the others were divided from them beforehand and looked at once, when it was chosen.

Three points are given in several ways (CHOICES). "In reach" are the points that the advisor projects to: at most a
factor beyond the loads given (projection.MOST_STEP), which span a factor (projection.MIN_SPAN). "Covered" is the share
of points whose inter-token latency lies in the interval that the advisor projects from the given point nearest to them.
"""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

from gpu_advisor.evaluation.serving.facts import CurvePoint
from gpu_advisor.evaluation.serving.projection import MIN_SPAN, MOST_STEP, LoadChange, project
from gpu_advisor.evaluation.serving.step_model import fit_step_model

from benchmarks import common

TABLES = Path(__file__).with_name("serving") / "published_curves.csv"
SPREAD_CONCURRENCIES = (1, 25, 100)
GOAL_ERROR = 0.10
HELD_OUT = "held out"

Points = Mapping[int, CurvePoint]
Choice = Callable[[Sequence[int]], tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Table:
    """A published table: its points by concurrency, the GPUs that its source names (or none), and its set."""

    name: str
    gpus: str
    kind: str
    points: Points


@dataclass(frozen=True, slots=True)
class Prediction:
    """A point that was not given: relative errors of inter-token latency and throughput."""

    table: Table
    concurrency: int
    errors: tuple[float, float]
    in_reach: bool
    covered: bool


def read_tables() -> list[Table]:
    found: dict[tuple[str, str, str], dict[int, CurvePoint]] = {}
    with TABLES.open(encoding="utf-8") as file:
        for row in csv.DictReader(line for line in file if not line.startswith("#")):
            itl, rate = float(row["itl_ms"]) / 1000, float(row["tokens_per_second"])
            points = found.setdefault((row["table"], row["gpus"], row["set"]), {})
            points[int(row["concurrency"])] = CurvePoint(rate * itl, rate, itl)
    return [Table(*key, points) for key, points in found.items()]


def spread(concurrencies: Sequence[int]) -> tuple[int, ...]:
    """Those nearest, as ratios, to SPREAD_CONCURRENCIES."""
    left, found = set(concurrencies), []
    for wanted in SPREAD_CONCURRENCIES:
        found.append(min(left, key=lambda each: abs(math.log(each / wanted))))
        left.remove(found[-1])
    return tuple(found)


CHOICES: Mapping[str, Choice] = {
    "near 1, 25 and 100": spread,
    "the three lowest": lambda each: tuple(each[:3]),
    "lowest, middle, highest": lambda each: (each[0], each[len(each) // 2], each[-1]),
    "the three highest": lambda each: tuple(each[-3:]),
}


def predict(table: Table, choice: Choice) -> Iterator[Prediction]:
    given = choice(sorted(table.points))
    known = [table.points[each] for each in given]
    model = fit_step_model(known)
    assert model is not None
    loads = [each.concurrency for each in known]
    span = max(loads) / min(loads)
    for concurrency, point in table.points.items():
        if concurrency not in given:
            load = point.concurrency
            errors = (
                abs(model.itl(load, 0.0) / point.itl_seconds - 1),
                abs(model.tokens_per_second(load, 0.0) / point.tokens_per_second - 1),
            )
            nearest = min(known, key=lambda each: abs(math.log(each.concurrency / load)))
            change = LoadChange(nearest.concurrency, load, nearest.itl_seconds, 0.0)
            low, high = project(model, span, change).intervals["itl_seconds"]
            in_reach = span >= MIN_SPAN and min(loads) <= MOST_STEP * load <= MOST_STEP**2 * max(loads)
            yield Prediction(table, concurrency, errors, in_reach, low <= point.itl_seconds <= high)


def _figures(predictions: Sequence[Prediction]) -> dict[str, float]:
    errors = [error for each in predictions for error in each.errors]
    return {
        "tables": len({each.table.name for each in predictions}),
        "held_out": len(errors),
        "median_error": round(median(errors), 4),
        "p90_error": round(common.percentile(errors, 0.9), 4),
        "highest_error": round(max(errors), 4),
        "covered": round(mean(each.covered for each in predictions), 3),
    }


def _row(kind: str, name: str, which: str, figures: Mapping[str, float]) -> tuple[str, ...]:
    shares = (f"{figures[each]:.1%}" for each in ("median_error", "p90_error", "highest_error", "covered"))
    return kind, name, which, f"{figures['tables']:.0f}", f"{figures['held_out']:.0f}", *shares


def main() -> int:
    tables = [each for each in read_tables() if len(each.points) > 3]
    results: dict[str, dict[str, dict[str, float]]] = {}
    rows = []
    for kind in ("chosen", HELD_OUT):
        for name, choice in CHOICES.items():
            found = [one for each in tables if each.kind == kind for one in predict(each, choice)]
            in_reach = [each for each in found if each.in_reach]
            results.setdefault(kind, {})[name] = _figures(in_reach)
            rows += [_row(kind, name, "in reach", _figures(in_reach)), _row(kind, name, "all", _figures(found))]
    print(common.table([("set", "given", "points", "tables", "values", "median", "p90", "highest", "covered"), *rows]))
    found = [one for each in tables for one in predict(each, spread)]
    by_table = [
        (
            table.kind,
            table.name,
            table.gpus,
            f"{median(error for each in found if each.table is table for error in each.errors):.1%}",
        )
        for table in tables
    ]
    print(common.table([("set", "table", "GPUs", "median error"), *by_table]))
    named = _figures([each for each in found if each.table.gpus])
    held = _figures([each for each in found if each.table.kind == HELD_OUT])
    common.write("serving_curves", {"in_reach": results, "gpus_named": named, "held_out_all": held})
    goals = [
        common.Goal(f"median error at most {GOAL_ERROR:.0%}, of tables that were held out",
                    held["median_error"] <= GOAL_ERROR, f"{held['median_error']:.1%}"),
        common.Goal(f"median error at most {GOAL_ERROR:.0%}, of those whose sources name the GPUs",
                    named["median_error"] <= GOAL_ERROR, f"{named['median_error']:.1%}"),
    ]  # fmt: skip
    print(*goals, sep="\n")
    return 1 if common.missed_goals(goals) else 0


if __name__ == "__main__":
    sys.exit(main())
