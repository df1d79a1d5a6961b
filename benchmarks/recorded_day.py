"""Days made of a recorded hour: its fluctuations and bursts, on the pattern of a working day."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from gpu_advisor.backtest.trace import read_csv

from benchmarks.demand import MINUTES_OF_DAY, Demand

MEAN_GPUS, BLOCK_MINUTES = 12.0, 10


def working_day() -> Demand:
    """Shares of the mean demand by minute: a quarter at night, up within two hours, down within three."""
    hours = np.arange(MINUTES_OF_DAY) / 60
    levels = 0.25 + 1.5 / (1 + np.exp(-2.5 * (hours - 8.5))) / (1 + np.exp(1.5 * (hours - 18)))
    return np.asarray(levels / levels.mean())


def recorded_hour(path: Path) -> Demand:
    """One demand a minute of a CSV in the back-test's format; what was not recorded is left out. Raises TraceError."""
    return np.array([value for value in read_csv(path, 60).demand if value is not None])


def day_of(hour: Demand, seed: int) -> Demand:
    """Blocks of ten minutes of the hour, in random order, on the pattern of a working day."""
    blocks = hour[: len(hour) // BLOCK_MINUTES * BLOCK_MINUTES].reshape(-1, BLOCK_MINUTES)
    chosen = np.random.default_rng(seed).integers(0, len(blocks), MINUTES_OF_DAY // BLOCK_MINUTES)
    found: Demand = blocks[chosen].reshape(-1) / hour.mean() * MEAN_GPUS * working_day()
    return found
