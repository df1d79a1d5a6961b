"""Learned curves against published ones: three points of each table are given, the others are predicted.

    python -m benchmarks.serving_curves

A point is what the server ran at a time, by Little's law: tokens per second times seconds between tokens. So requests
that only wait do not count. The error is relative, of inter-token latency and of throughput.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from statistics import median

from gpu_advisor.evaluation.serving.facts import CurvePoint
from gpu_advisor.evaluation.serving.step_model import fit_step_model

from benchmarks import common

TABLES = Path(__file__).with_name("serving") / "published_curves.csv"
GIVEN_CONCURRENCIES = (1, 25, 100)
GOAL_ERROR = 0.10


def read_tables() -> dict[str, dict[int, CurvePoint]]:
    found: dict[str, dict[int, CurvePoint]] = {}
    with TABLES.open(encoding="utf-8") as file:
        for row in csv.DictReader(line for line in file if not line.startswith("#")):
            itl, rate = float(row["itl_ms"]) / 1000, float(row["tokens_per_second"])
            found.setdefault(row["table"], {})[int(row["concurrency"])] = CurvePoint(rate * itl, rate, itl)
    return found


def main() -> int:
    errors: list[float] = []
    rows: list[tuple[str, ...]] = []
    for name, points in read_tables().items():
        model = fit_step_model([points[each] for each in GIVEN_CONCURRENCIES])
        assert model is not None
        for concurrency, point in points.items():
            if concurrency in GIVEN_CONCURRENCIES:
                continue
            itl = model.itl(point.concurrency, 0.0)
            rate = model.tokens_per_second(point.concurrency, 0.0)
            of = abs(itl / point.itl_seconds - 1), abs(rate / point.tokens_per_second - 1)
            errors += of
            rows.append((name, str(concurrency), f"{1000 * itl:.1f}", f"{1000 * point.itl_seconds:.1f}",
                         f"{rate:.0f}", f"{point.tokens_per_second:.0f}", f"{max(of):.1%}"))  # fmt: skip
    print(common.table([("table", "concurrency", "ITL ms", "published", "tokens/s", "published", "error"), *rows]))
    middle = median(errors)
    print(f"{len(errors)} held-out values: median error {middle:.1%}, highest {max(errors):.1%}")
    common.write("serving_curves", {"held_out": len(errors), "median_error": round(middle, 4),
                                    "highest_error": round(max(errors), 4)})  # fmt: skip
    goal = common.Goal(f"median error at most {GOAL_ERROR:.0%}", middle <= GOAL_ERROR, f"{middle:.1%}")
    print(goal)
    return 1 if common.missed_goals([goal]) else 0


if __name__ == "__main__":
    sys.exit(main())
