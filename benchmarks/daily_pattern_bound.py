"""The least unserved demand if a fleet's daily pattern were known in advance but its bursts were not.

For a given ratio of minutes with too few GPUs, GPU-hours are minimal if each time of the day is sized at the same
quantile of its demand: one more GPU then helps equally at any hour. The quantiles are those of many generated days,
which no policy knows; only reacting to bursts that last longer than a start can do better.
"""

from __future__ import annotations

import numpy as np

from benchmarks.demand import MINUTES_OF_DAY, FleetDemand, generate_demand

DAYS = 120
BLOCK_MINUTES = 10
EXCEEDANCES = (0.12, 0.08, 0.05, 0.03, 0.02, 0.015, 0.01, 0.007, 0.005, 0.0035, 0.0025, 0.0015, 0.001)


def unserved_ratio(of: FleetDemand, gpu_hours_per_oracle_hour: float) -> float:
    """Share of the demand above the sizes, at so many times the GPU-hours of the oracle (demand / 0.9, rounded up)."""
    days = np.array([generate_demand(of, 5000 + seed) for seed in range(DAYS)])
    oracle = np.ceil(days / 0.9).clip(1).mean()
    blocks = days.reshape(DAYS, MINUTES_OF_DAY // BLOCK_MINUTES, BLOCK_MINUTES).swapaxes(0, 1)
    blocks = blocks.reshape(len(blocks), -1)
    spent, unserved = [], []
    for exceedance in EXCEEDANCES:
        sizes = np.ceil(np.quantile(blocks, 1 - exceedance, axis=1)).clip(1)
        spent.append(sizes.mean() / oracle)
        unserved.append(np.maximum(blocks - sizes[:, None], 0).sum() / blocks.sum())
    return float(np.interp(gpu_hours_per_oracle_hour, spent, unserved))
