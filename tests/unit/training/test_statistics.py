from __future__ import annotations

import math

import numpy as np
import pytest
from gpu_advisor.training.running_statistics import RunningStatistics
from hypothesis import given
from hypothesis import strategies as st


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200))
def test_same_as_all_at_once(values):
    running = RunningStatistics()
    for value in values:
        running.add(value)
    found = running.statistics()
    assert found is not None
    assert (found.count, found.min, found.max, running.last) == (len(values), min(values), max(values), values[-1])
    assert found.mean == pytest.approx(np.mean(values), abs=1e-6)
    assert found.std == pytest.approx(np.std(values), abs=1e-4)


def test_small_spread_of_large_numbers_is_kept():
    """A plain sum of squares would lose all precision here."""
    running = RunningStatistics()
    for value in (1e9, 1e9 + 1, 1e9 + 2):
        running.add(value)
    found = running.statistics()
    assert found is not None
    assert found.std == pytest.approx(math.sqrt(2 / 3))


def test_nonfinite_values_are_only_counted():
    running = RunningStatistics()
    assert running.statistics() is None
    running.add(math.nan)
    assert running.statistics() is None
    running.add(2.0)
    running.add(math.inf)
    found = running.statistics()
    assert found is not None
    assert (found.count, found.mean, found.max, running.nonfinite, running.last) == (1, 2.0, 2.0, 2, math.inf)
