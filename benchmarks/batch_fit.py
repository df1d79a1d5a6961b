"""Error of the memory predicted for untried batch sizes: `make bench-batch`.

The baselines are a line through the two largest given sizes, and scaling in proportion. The simulated population
(benchmarks/memory) has three parts: `prior`, from which the constants were fitted; `held_out`, other studies of the
same kind; `other`, studies of another kind, recorded and allocated differently. `new families` is the strictest: each
family of models in the other two parts is predicted with constants fitted without that family, so neither the study nor
the kind of model was seen; its 95 % intervals are from resampling studies. `traced`: the fit also knows the step traced
without a GPU, which has the model's tensors and neither the context nor the workspaces; `wrong trace`: it grows a
quarter too fast, as where attention is traced otherwise than the GPU computes it.
"""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from gpu_advisor.calibration.batch_size_advice import safe_sizes
from gpu_advisor.calibration.errors import PointsError
from gpu_advisor.calibration.memory_fit import fit_memory
from gpu_advisor.calibration.points import MeasuredPoint, MeasuredPoints, clean_points
from gpu_advisor.calibration.prior import PRIOR, TRACE_PRIOR, Prior, TracePrior
from gpu_advisor.calibration.traced_memory import TracedMemory

from benchmarks import common
from benchmarks.memory.fit_prior import (
    FIXED_SHARES,
    FLOORS,
    NOISES,
    POWERS,
    TRACED_GROWTHS,
    fit_prior,
    fit_trace_prior,
    read_peaks,
    read_studies,
    read_traces,
)
from benchmarks.memory.population import SIZES

DATASET_SPLITS = ("prior", "held_out", "other")
KNOWN_SIZES = ((8, 16), (8, 16, 32))
GPUS_GIB = (8, 12, 16, 24, 40, 48, 80)
TARGET = 0.85
ERROR_GOALS = {2: 0.04, 4: 0.07, 8: 0.10}
TRACED_ERROR_GOALS = {2: 0.025, 4: 0.045, 8: 0.07}
WRONG_TRACE_RATIO = 1.25
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


@dataclass(frozen=True, slots=True)
class Curves:
    """Models by SIZES, in bytes. `traced`: None where the fit must do without."""

    peaks: np.ndarray
    traced: np.ndarray | None = None

    def known(self, model: int, sizes: Sequence[int]) -> MeasuredPoints:
        """What a fit knows of a model. Raises PointsError for falling memory."""
        trace = None
        if self.traced is not None:
            trace = TracedMemory(tuple(zip(SIZES, map(int, self.traced[model]), strict=True)))
        measured = (MeasuredPoint(size, round(self.peaks[model][SIZES.index(size)])) for size in sizes)
        return clean_points(measured, traced=trace)


def prediction_errors(
    curves: Curves, sizes: tuple[int, ...], prior: Prior = PRIOR, trace_prior: TracePrior = TRACE_PRIOR
) -> tuple[list[PredictionError], int]:
    """A row a model and untried size, and how many models were refused for falling memory."""
    found, refused = [], 0
    last = sizes[-1]
    for model, curve in enumerate(curves.peaks):
        try:
            fit = fit_memory(curves.known(model, sizes), prior, trace_prior)
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


def evaluate_choices(curves: Curves, sizes: tuple[int, ...], near: bool) -> dict[str, float]:
    """Among recorded sizes: how often the recommended one exceeds the target, and how often it is the best.

    With `near`, each model has a target of its own between its memory at the smallest and above that at the largest
    size, so that every choice is a close one; else the GPUs of GPUS_GIB. Cases where no size fits do not count.
    """
    generator = random.Random(1)
    exceeds = best = cases = 0
    for model, curve in enumerate(curves.peaks):
        try:
            fit = fit_memory(curves.known(model, sizes))
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


def priors_without(family: str) -> tuple[Prior, TracePrior]:
    """The priors as fitted without a family's curves."""
    peaks, families = read_peaks("prior")
    kept = np.array([each != family for each in families])
    axes = (FIXED_SHARES, FLOORS, POWERS, NOISES)
    fixed, floors, powers, noises = map(_weighted, axes, fit_prior(peaks[kept]))
    growths, traced_noises = map(
        _weighted, (TRACED_GROWTHS, NOISES), fit_trace_prior(peaks[kept], read_traces("prior")[kept])
    )
    return Prior(fixed, floors, powers, noises), TracePrior(growths, traced_noises)


def _weighted(values: Sequence[float], weights: np.ndarray) -> tuple[tuple[float, float], ...]:
    return tuple(zip(values, map(float, weights), strict=True))


def new_families(sizes: tuple[int, ...]) -> dict[bool, dict[str, list[PredictionError]]]:
    """Errors without and with a trace by study, each family with priors that have not seen it."""
    parts = [(*read_peaks(part), read_traces(part), read_studies(part)) for part in ("held_out", "other")]
    found: dict[bool, dict[str, list[PredictionError]]] = {False: {}, True: {}}
    for family in sorted({name for _, families, *_ in parts for name in families}):
        priors = priors_without(family)
        for peaks, families, traces, studies in parts:
            for study in sorted(set(studies)):
                chosen = [(f, s) == (family, study) for f, s in zip(families, studies, strict=True)]
                for with_trace, by_study in found.items():
                    curves = Curves(peaks[chosen], traces[chosen] if with_trace else None)
                    by_study.setdefault(study, []).extend(prediction_errors(curves, sizes, *priors)[0])
    return found


def with_interval(by_study: dict[str, list[PredictionError]], factor: int, rounds: int = 1000) -> dict[str, float]:
    """The summary, and 95 % intervals of error and coverage: studies are drawn with replacement."""
    generator = np.random.default_rng(1)
    sums = np.array([
        [len(rows), sum(r.error for r in rows), sum(r.inside for r in rows), sum(r.width for r in rows)]
        for rows in ([row for row in each if row.factor == factor] for each in by_study.values()) if rows
    ])  # fmt: skip
    drawn = sums[generator.integers(0, len(sums), (rounds, len(sums)))].sum(axis=1)
    means = drawn[:, 1:] / drawn[:, :1]
    summary = summarize([row for rows in by_study.values() for row in rows], factor)
    for k, name in enumerate(("error", "coverage", "width")):
        summary[f"{name}_low"], summary[f"{name}_high"] = map(float, np.quantile(means[:, k], (0.025, 0.975)))
    return summary


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
        peaks, traces = read_peaks(part)[0], read_traces(part)
        wrong = traces[:, :1] + WRONG_TRACE_RATIO * (traces - traces[:, :1])
        kinds = {"": Curves(peaks), " traced": Curves(peaks, traces), " wrong trace": Curves(peaks, wrong)}
        for sizes, (kind, curves) in itertools.product(KNOWN_SIZES, kinds.items()):
            found, refused = prediction_errors(curves, sizes)
            label = f"{part} {'-'.join(map(str, sizes))}{kind}"
            for factor in sorted({row.factor for row in found}):
                figures = summarize(found, factor)
                results[f"{label} x{factor}"] = {**figures, "refused": refused}
                percent = [f"{100 * figures[name]:.1f} %" for name in list(figures)[1:]]
                table.append([f"{label} x{factor}", str(figures["models"]), *percent])
                if part == "held_out" and kind != " wrong trace":
                    goals += _goals(label, factor, figures, TRACED_ERROR_GOALS if kind else ERROR_GOALS)
            for near in (True, False):
                figures = evaluate_choices(curves, sizes, near)
                name = f"{label} {'close targets' if near else 'GPUs'}"
                results[name] = figures
                shares = [f"{100 * figures[key]:.1f} %" for key in ("exceeds_ratio", "best_ratio")]
                close.append([name, str(figures["cases"]), *shares])
                if part == "held_out" and not near:
                    goals.append(common.Goal(f"{name}: exceeds < 1 %", figures["exceeds_ratio"] < 0.01, shares[0]))
                    if kind != " wrong trace":
                        goals.append(common.Goal(f"{name}: best >= 85 %", figures["best_ratio"] >= 0.85, shares[1]))
    families = [
        ["new families, given sizes, factor", "models", "error (95 %)", "line", "coverage (95 %)", "width (95 %)"]
    ]
    for sizes in KNOWN_SIZES:
        for with_trace, by_study in new_families(sizes).items():
            for factor in sorted({row.factor for rows in by_study.values() for row in rows}):
                figures = with_interval(by_study, factor)
                label = f"{'-'.join(map(str, sizes))}{' traced' if with_trace else ''} x{factor}"
                results[f"new families {label}"] = figures
                shown = {
                    name: f"{figures[name]:.1%} ({figures[f'{name}_low']:.1%} to {figures[f'{name}_high']:.1%})"
                    for name in ("error", "coverage", "width")
                }
                families.append([
                    label, str(figures["models"]), shown["error"], f"{figures['line_error']:.1%}", shown["coverage"],
                    shown["width"],
                ])  # fmt: skip
                if with_trace:
                    goals += _goals(f"new families {label.rpartition(' ')[0]}", factor, figures, TRACED_ERROR_GOALS)
    print(common.table(table), common.table(families), common.table(close), *goals, sep="\n")
    results["goals"] = [str(goal) for goal in goals]
    print(common.write("batch_fit", results))
    return 0


def _goals(label: str, factor: int, figures: dict[str, float], limits: Mapping[int, float]) -> list[common.Goal]:
    error, coverage, width = figures["error"], figures["coverage"], figures["width"]
    limit = limits[factor]
    found = [
        common.Goal(f"{label} x{factor}: error under {100 * limit:g} %", error < limit, f"{error:.1%}"),
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
