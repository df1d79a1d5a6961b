"""Small runs of the benchmarks, with slack; the full ones: `make bench-monitor`, `make bench-loaders`."""

from __future__ import annotations

import torch

from benchmarks.loaders import DATA, compare
from benchmarks.monitor import GOAL_RATIO, OverheadPlan, measure


def test_the_monitor_is_next_to_nothing_of_a_step():
    cost = measure(OverheadPlan(pairs=10, steps=15, reports=5))
    assert cost.ratio < 3 * GOAL_RATIO


def test_workers_chosen_are_near_the_best_for_data_that_is_waited_for():
    outcome = compare(DATA["I/O-bound"], max_workers=3, seconds=0.2, rounds=2)
    assert outcome.ratio > 0.6
    assert isinstance(DATA["I/O-bound"][0], torch.Tensor)
