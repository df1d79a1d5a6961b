"""The training benchmarks run; `make bench-monitor` and `make bench-loaders` check their results."""

from __future__ import annotations

import math

from benchmarks.loaders import DATA, compare
from benchmarks.monitor import OverheadPlan, measure


def test_the_monitor_benchmark_runs():
    cost = measure(OverheadPlan(pairs=2, steps=5, reports=2))
    assert (len(cost.plain), len(cost.monitored), len(cost.reports)) == (8, 8, 2)
    assert math.isfinite(cost.ratio)


def test_the_loader_benchmark_runs():
    result = compare(DATA["I/O-bound"], 1.0, max_workers=1, seconds=0.02, rounds=1, pairs=2)
    assert list(result.rates) == [0, 1]
    assert {result.chosen, result.best} <= {0, 1}
    assert result.ratio > 0
