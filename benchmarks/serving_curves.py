"""Learned curves against published ones: three points of each table are given, the others are predicted.

    python -m benchmarks.serving_curves

A point is what the server ran at a time, by Little's law: tokens per second times seconds between tokens. So requests
that only wait do not count. The error is relative, of inter-token latency and of throughput. Given are the points whose
concurrency is nearest to 1, 25 and 100, as ratios.
"""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Iterable
from pathlib import Path
from statistics import median

from gpu_advisor.evaluation.serving.facts import CurvePoint
from gpu_advisor.evaluation.serving.step_model import fit_step_model

from benchmarks import common

TABLES = Path(__file__).with_name("serving") / "published_curves.csv"
GIVEN_CONCURRENCIES = (1, 25, 100)
GOAL_ERROR = 0.10


Tables = dict[tuple[str, str], dict[int, CurvePoint]]


def read_tables() -> Tables:
    """Points by concurrency, of each table and the GPUs that its source names."""
    found: Tables = {}
    with TABLES.open(encoding="utf-8") as file:
        for row in csv.DictReader(line for line in file if not line.startswith("#")):
            itl, rate = float(row["itl_ms"]) / 1000, float(row["tokens_per_second"])
            found.setdefault((row["table"], row["gpus"]), {})[int(row["concurrency"])] = CurvePoint(
                rate * itl, rate, itl
            )
    return found


def given_of(concurrencies: Iterable[int]) -> tuple[int, ...]:
    left, found = set(concurrencies), []
    for wanted in GIVEN_CONCURRENCIES:
        found.append(min(left, key=lambda each: abs(math.log(each / wanted))))
        left.remove(found[-1])
    return tuple(found)


def main() -> int:
    errors: list[float] = []
    confirmed: list[float] = []
    rows: list[tuple[str, ...]] = []
    tables = read_tables()
    for (name, gpus), points in tables.items():
        given = given_of(points)
        model = fit_step_model([points[each] for each in given])
        assert model is not None
        for concurrency, point in points.items():
            if concurrency in given:
                continue
            itl = model.itl(point.concurrency, 0.0)
            rate = model.tokens_per_second(point.concurrency, 0.0)
            of = abs(itl / point.itl_seconds - 1), abs(rate / point.tokens_per_second - 1)
            errors += of
            confirmed += of if gpus else ()
            rows.append((name, gpus, str(concurrency), f"{1000 * itl:.1f}", f"{1000 * point.itl_seconds:.1f}",
                         f"{rate:.0f}", f"{point.tokens_per_second:.0f}", f"{max(of):.1%}"))  # fmt: skip
    print(
        common.table([("table", "GPUs", "concurrency", "ITL ms", "published", "tokens/s", "published", "error"), *rows])
    )
    middle, named = median(errors), [each for each in tables if each[1]]
    print(f"{len(errors)} held-out values: median error {middle:.1%}, highest {max(errors):.1%}")
    names = ", ".join(f"{name} on {gpus}" for name, gpus in named)
    print(f"of them {len(confirmed)} of {names}, as their sources say: median error {median(confirmed):.1%}")
    common.write("serving_curves", {
        "held_out": len(errors), "median_error": round(middle, 4), "highest_error": round(max(errors), 4),
        "gpus_named": {"tables": len(named), "held_out": len(confirmed), "median_error": round(median(confirmed), 4)},
    })  # fmt: skip
    goal = common.Goal(f"median error at most {GOAL_ERROR:.0%}", middle <= GOAL_ERROR, f"{middle:.1%}")
    print(goal)
    return 1 if common.missed_goals([goal]) else 0


if __name__ == "__main__":
    sys.exit(main())
