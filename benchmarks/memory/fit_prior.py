"""Learns the priors of `calibration` from the part `prior` of `curves.csv`: python -m benchmarks.memory.fit_prior.

The parameters' shares are those under which the curves, all five sizes of each, are most probable (empirical Bayes),
found by expectation and maximization over the grid (Dempster, Laird and Rubin 1977). Each share gets one curve's worth
of weight beforehand, so that nothing is impossible.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from functools import reduce
from pathlib import Path

import numpy as np
import numpy.typing as npt
from gpu_advisor.calibration import prior_table
from gpu_advisor.calibration.memory_fit import log_shape
from gpu_advisor.calibration.traced_growth import log_growth
from gpu_advisor.calibration.traced_memory import TracedMemory

from benchmarks.memory.generate_curves import CURVES_FILE
from benchmarks.memory.population import SIZES

Array = npt.NDArray[np.float64]

FIXED_SHARES = (0.02, 0.06, 0.12, 0.2, 0.28, 0.36, 0.44, 0.52, 0.6, 0.68, 0.75, 0.82, 0.88, 0.93, 0.97, 0.99)
FLOORS = (0.0, 1.0, 1.5, 2.0, 3.0, 4.0)
POWERS = (0.85, 0.93, 1.0, 1.04, 1.1)
NOISES = (0.001, 0.002, 0.004, 0.008, 0.012, 0.018, 0.027, 0.04, 0.06, 0.1, 0.2)
TRACED_GROWTHS = (0.6, 0.75, 0.85, 0.92, 0.96, 0.98, 1.0, 1.02, 1.05, 1.1, 1.17, 1.25, 1.35, 1.5, 1.7, 2.0, 2.5, 3.2)
REFERENCE = 16
"""The largest measured size that the fixed share and the floor are relative to."""
ROUNDS = 40
MIN_NOISE = 0.02
"""Least share of each noise: sizes that one probe measured shake less than a laboratory's records."""


def read_peaks(part: str, file: Path = CURVES_FILE) -> tuple[Array, list[str]]:
    """Peaks (models by SIZES, bytes) and families of a part."""
    with file.open(newline="", encoding="utf-8") as lines:
        rows = [row for row in csv.DictReader(lines) if row["part"] == part]
    peaks = [[float(row[f"peak_{size}_bytes"]) for size in SIZES] for row in rows]
    return np.array(peaks), [row["family"] for row in rows]


def read_traces(part: str, file: Path = CURVES_FILE) -> Array:
    """The traced peaks of a part, in the order of `read_peaks`."""
    with file.open(newline="", encoding="utf-8") as lines:
        rows = [row for row in csv.DictReader(lines) if row["part"] == part]
    return np.array([[float(row[f"traced_{size}_bytes"]) for size in SIZES] for row in rows])


def read_studies(part: str, file: Path = CURVES_FILE) -> list[str]:
    """The study of each curve of a part, in the order of `read_peaks`."""
    with file.open(newline="", encoding="utf-8") as lines:
        return [row["study"] for row in csv.DictReader(lines) if row["part"] == part]


def fit_prior(peaks: Array) -> list[Array]:
    """The probabilities of fixed share, floor, power and noise."""
    fixed, floor, power = (axis.ravel() for axis in np.meshgrid(FIXED_SHARES, FLOORS, POWERS, indexing="ij"))
    shapes = log_shape(np.array(SIZES) / REFERENCE, fixed, floor, power)
    axes = (len(FIXED_SHARES), len(FLOORS), len(POWERS), len(NOISES))
    return _with_least_noise(_learn([_likelihood(np.log(curve), shapes).reshape(axes) for curve in peaks]))


def fit_trace_prior(peaks: Array, traces: Array) -> list[Array]:
    """The probabilities of growth factor and noise."""
    growths, base = np.array(TRACED_GROWTHS), SIZES.index(REFERENCE)
    found = []
    for curve, traced in zip(peaks, traces, strict=True):
        trace = TracedMemory(tuple(zip(SIZES, map(int, traced), strict=True)))
        shapes = np.stack([log_growth(growths, trace, REFERENCE, curve[base], size) for size in SIZES], axis=1)
        found.append(_likelihood(np.log(curve), shapes))
    return _with_least_noise(_learn(found))


def _learn(likelihoods: Sequence[Array]) -> list[Array]:
    """Probabilities of each axis under which curves of these likelihoods, over the grid, are most probable."""
    shape = likelihoods[0].shape
    weights = [np.full(count, 1 / count) for count in shape]
    for _ in range(ROUNDS):
        joint = reduce(np.multiply.outer, weights)
        total = np.zeros(shape)
        for likelihood in likelihoods:
            posterior = likelihood * joint
            total += posterior / posterior.sum()
        for axis, count in enumerate(shape):
            sums = total.sum(axis=tuple(other for other in range(len(shape)) if other != axis)) + 1.0
            weights[axis] = sums / (len(likelihoods) + count)
    return weights


def _with_least_noise(weights: list[Array]) -> list[Array]:
    noise = np.maximum(weights[-1], MIN_NOISE)
    return [*weights[:-1], noise / noise.sum()]


def _likelihood(logs: Array, shapes: Array) -> Array:
    """Of each shape (row) with each noise (column), relative to the largest."""
    noises = np.array(NOISES)
    residuals = logs - shapes
    squares = ((residuals - residuals.mean(axis=1, keepdims=True)) ** 2).sum(axis=1, keepdims=True)
    log = -(len(logs) - 1) * np.log(noises) - squares / (2 * noises**2)
    likelihood: Array = np.exp(log - log.max())
    return likelihood


def main() -> None:
    peaks, _ = read_peaks("prior")
    lines = [
        '"""Shares of the parameters of the fits among simulated models; written by benchmarks/memory/fit_prior.py.',
        "",
        f"Learnt from {len(peaks)} curves of benchmarks/memory/curves.csv; see docs/calibration.md.",
        '"""',
        "",
    ]
    plain = zip((FIXED_SHARES, FLOORS, POWERS, NOISES), fit_prior(peaks), strict=True)
    traced = zip((TRACED_GROWTHS, NOISES), fit_trace_prior(peaks, read_traces("prior")), strict=True)
    names = ("FIXED_SHARES", "FLOORS", "POWERS", "NOISES", "TRACED_GROWTHS", "TRACED_NOISES")
    for name, (values, weights) in zip(names, (*plain, *traced), strict=True):
        pairs = (f"    ({value}, {weight:.4f})," for value, weight in zip(values, weights, strict=True))
        lines += [f"{name} = (", *pairs, ")"]
    Path(str(prior_table.__file__)).write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
