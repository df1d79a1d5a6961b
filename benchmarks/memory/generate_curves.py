"""Draws studies and writes their curves to `curves.csv`: python -m benchmarks.memory.generate_curves (minutes).

A study is kept for the prior if a line through its sizes 8 and 16, and scaling in proportion, miss the memory at 128
about as much as they do for a recorded set of 1,017 image models (11.5 and 115 % on average; at 32 and 64 they miss by
4.9 and 8.2, 36 and 73 %): so much is known of how real recordings behave, and nothing of a single model. Kept studies
go by turns to the part `prior`, which the constants are learnt from, and to `held_out`. Studies of another kind are all
kept, as `other`.
"""

from __future__ import annotations

import csv
import random
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.memory.population import SIZES, MemoryCurve, Study, draw, draw_other, generate_curves

CURVES_FILE = Path(__file__).with_name("curves.csv")
STUDIES, MODELS, OTHERS, OTHER_MODELS = 48, 60, 10, 60
LINE_AT_128 = (0.075, 0.18)
PROPORTION_AT_128 = (0.60, 1.90)


def misses(peaks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean relative errors at 32, 64 and 128 of a line through 8 and 16, and of scaling 16 in proportion."""
    sizes = np.array(SIZES[2:], dtype=float)
    at8, at16 = peaks[:, :1], peaks[:, 1:2]
    line = at16 + (at16 - at8) / 8 * (sizes - 16)
    truth = peaks[:, 2:]
    return np.abs(line / truth - 1).mean(axis=0), np.abs(at16 * sizes / 16 / truth - 1).mean(axis=0)


def like_recorded(found: list[MemoryCurve]) -> bool:
    """Whether a study misses at 128 about as the recorded set does."""
    line, proportion = misses(np.array([curve.peaks for curve in found], dtype=float))
    within = LINE_AT_128[0] <= line[-1] <= LINE_AT_128[1]
    return bool(within and PROPORTION_AT_128[0] <= proportion[-1] <= PROPORTION_AT_128[1])


def _study(job: tuple[str, int]) -> tuple[Study, list[MemoryCurve]]:
    kind, number = job
    generator = random.Random(f"{kind} {number}")
    study = (draw_other if kind == "other" else draw)(generator)
    return study, generate_curves(study, OTHER_MODELS if kind == "other" else MODELS, seed=generator.randrange(1 << 30))


def main() -> None:
    jobs = [("recorded", number) for number in range(STUDIES)] + [("other", number) for number in range(OTHERS)]
    kept = 0
    with ProcessPoolExecutor(2) as pool, CURVES_FILE.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        kinds = (f"{kind}_{size}_bytes" for kind in ("peak", "traced") for size in SIZES)
        writer.writerow(["part", "study", "family", *kinds])
        for (kind, number), (_, found) in zip(jobs, pool.map(_study, jobs), strict=True):
            if kind == "other":
                part = "other"
            elif like_recorded(found):
                part, kept = ("prior", "held_out")[kept % 2], kept + 1
            else:
                continue
            writer.writerows([part, f"{kind}-{number}", curve.family, *curve.peaks, *curve.traced] for curve in found)


if __name__ == "__main__":
    main()
