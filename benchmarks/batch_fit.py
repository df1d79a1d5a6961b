"""Error of the memory predicted for untried batch sizes: `make bench-batch`.

The baselines are a line through the two largest given sizes, and scaling in proportion. The simulated population
(benchmarks/memory) has three parts: `prior`, from which the constants were fitted; `held_out`, other studies of the
same kind; `other`, studies of another kind, recorded and allocated differently.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from gpu_advisor.calibration.batch_size_advice import safe_sizes
from gpu_advisor.calibration.errors import PointsError
from gpu_advisor.calibration.memory_fit import fit_memory
from gpu_advisor.calibration.points import MeasuredPoint, MeasuredPoints, clean_points

from benchmarks import common
from benchmarks.memory.fit_prior import read_peaks
from benchmarks.memory.population import SIZES

DATASET_SPLITS = ("prior", "held_out", "other")
KNOWN_SIZES = ((8, 16), (8, 16, 32))
GPUS_GIB = (8, 12, 16, 24, 40, 48, 80)
TARGET = 0.85
ERROR_GOALS = {2: 0.04, 4: 0.07, 8: 0.10}
COVERAGE_GOAL = (0.85, 0.95)
WIDTH_GOAL = 0.25


@dataclass(frozen=True, slots=True)
class PredictionError:
    """One model at one size: relative errors and the interval, as shares of the truth."""

    factor: int
    error: float
    line: float
    proportion: float
    inside: bool
    width: float


def known_points(curve: Sequence[float], sizes: Sequence[int]) -> MeasuredPoints:
    return clean_points(MeasuredPoint(size, round(curve[SIZES.index(size)])) for size in sizes)


def prediction_errors(peaks: np.ndarray, sizes: tuple[int, ...]) -> tuple[list[PredictionError], int]:
    """A row a model and untried size, and how many models were refused for falling memory."""
    found, refused = [], 0
    last = sizes[-1]
    for curve in peaks:
        try:
            fit = fit_memory(known_points(curve, sizes))
        except PointsError:
            refused += 1
            continue
        at = {size: float(peak) for size, peak in zip(SIZES, curve, strict=True)}
        slope = (at[last] - at[sizes[-2]]) / (last - sizes[-2])
        for size in SIZES[SIZES.index(last) + 1 :]:
            truth, predicted = at[size], fit.predict(size)
            found.append(
                PredictionError(
                    size // last,
                    abs(predicted.peak_memory_bytes / truth - 1),
                    abs((at[last] + slope * (size - last)) / truth - 1),
                    abs(at[last] * size / last / truth - 1),
                    predicted.low <= truth <= predicted.high,
                    (predicted.high - predicted.low) / truth,
                )
            )
    return found, refused


def evaluate_choices(peaks: np.ndarray, sizes: tuple[int, ...], near: bool) -> dict[str, float]:
    """Among recorded sizes: how often the recommended one exceeds the target, and how often it is the best.

    With `near`, each model has a target of its own between its memory at the smallest and above that at the largest
    size, so that every choice is a close one; else the GPUs of GPUS_GIB. Cases where no size fits do not count.
    """
    generator = random.Random(1)
    exceeds = best = cases = 0
    for curve in peaks:
        try:
            fit = fit_memory(known_points(curve, sizes))
        except PointsError:
            continue
        memories = (
            [np.exp(generator.uniform(np.log(curve[0]), np.log(1.2 * curve[-1]))) / TARGET]
            if near
            else [gib * 2.0**30 for gib in GPUS_GIB]
        )
        for memory in memories:
            fitting = [size for size, peak in zip(SIZES, curve, strict=True) if peak <= memory * TARGET]
            if not fitting:
                continue
            safe = safe_sizes(fit, memory * TARGET, SIZES)
            cases += 1
            exceeds += bool(safe) and curve[SIZES.index(safe[-1])] > memory * TARGET
            best += safe[-1:] == fitting[-1:]
    return {"cases": cases, "exceeds_ratio": exceeds / cases, "best_ratio": best / cases}


def summarize(found: Sequence[PredictionError], factor: int) -> dict[str, float]:
    chosen = [row for row in found if row.factor == factor]
    columns = np.array([[r.error, r.line, r.proportion, r.inside, r.width] for r in chosen], dtype=float).mean(axis=0)
    names = ("error", "line_error", "proportion_error", "coverage", "width")
    return {"models": len(chosen), **dict(zip(names, map(float, columns), strict=True))}


def main() -> int:
    results: dict[str, object] = {}
    table = [["part, given sizes, factor", "models", "error", "line", "proportion", "coverage", "width"]]
    close = [["part, given sizes, targets", "cases", "exceeds", "best"]]
    goals = []
    for part in DATASET_SPLITS:
        peaks, _ = read_peaks(part)
        for sizes in KNOWN_SIZES:
            found, refused = prediction_errors(peaks, sizes)
            label = f"{part} {'-'.join(map(str, sizes))}"
            for factor in sorted({row.factor for row in found}):
                figures = summarize(found, factor)
                results[f"{label} x{factor}"] = {**figures, "refused": refused}
                percent = [f"{100 * figures[name]:.1f} %" for name in list(figures)[1:]]
                table.append([f"{label} x{factor}", str(figures["models"]), *percent])
                if part == "held_out":
                    goals += _goals(label, factor, figures)
            for near in (True, False):
                figures = evaluate_choices(peaks, sizes, near)
                name = f"{label} {'close targets' if near else 'GPUs'}"
                results[name] = figures
                shares = [f"{100 * figures[key]:.1f} %" for key in ("exceeds_ratio", "best_ratio")]
                close.append([name, str(figures["cases"]), *shares])
                if part == "held_out" and not near:
                    goals.append(common.Goal(f"{name}: exceeds < 1 %", figures["exceeds_ratio"] < 0.01, shares[0]))
                    goals.append(common.Goal(f"{name}: best >= 85 %", figures["best_ratio"] >= 0.85, shares[1]))
    print(common.table(table), common.table(close), *goals, sep="\n")
    results["goals"] = [str(goal) for goal in goals]
    print(common.write("batch_fit", results))
    return 0


def _goals(label: str, factor: int, figures: dict[str, float]) -> list[common.Goal]:
    error, coverage, width = figures["error"], figures["coverage"], figures["width"]
    limit = ERROR_GOALS[factor]
    found = [
        common.Goal(f"{label} x{factor}: error under {limit:.0%}", error < limit, f"{error:.1%}"),
        common.Goal(
            f"{label} x{factor}: 90 % interval covers 85 to 95 %",
            COVERAGE_GOAL[0] <= coverage <= COVERAGE_GOAL[1],
            f"{coverage:.1%}",
        ),
    ]
    if factor == 8:
        found.append(common.Goal(f"{label} x8: width at most 25 %", width <= WIDTH_GOAL, f"{width:.1%}"))
    return found


if __name__ == "__main__":
    sys.exit(main())
