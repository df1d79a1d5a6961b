"""Ranges are read once, in pieces; the results are those of the source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from gpu_advisor.promql.expressions import Expression, Labels, Selector, TimeSeries, Vector
from gpu_advisor.sources.base import SamplesByLabels, Source, SourceError, SourceErrorKind
from gpu_advisor.sources.counting import CountingSource, count_queries
from gpu_advisor.sources.prometheus import range_cache
from gpu_advisor.sources.prometheus.range_cache import LATE_SAMPLE_SECONDS, MAX_STEPS_PER_QUERY, RangeCache
from hypothesis import given
from hypothesis import strategies as st

STEP = 60.0
X = Selector("x")


@dataclass
class FakeRangeSource:
    """Two series over time, one of which has gaps; and what was asked for."""

    name: str = "recorded"
    address: str = "memory"
    asked: list[tuple[float, float]] = field(default_factory=list)
    fails_from: float | None = None

    def instant(self, expressions: Mapping[str, Expression], at: float) -> Mapping[str, Vector]:
        return {}

    def range(self, expression: Expression, start: float, end: float, step: float) -> Mapping[Labels, TimeSeries]:
        self.asked.append((start, end))
        if self.fails_from is not None and end >= self.fails_from:
            raise SourceError(SourceErrorKind.TIMEOUT, "too slow")
        times = [start + step * index for index in range(int((end - start) // step) + 1)]
        gappy = tuple((at, at / 7) for at in times if at // step % 5)
        return {(("a", "1"),): tuple((at, at * 2) for at in times), **({(("a", "2"),): gappy} if gappy else {})}

    def samples(self, selectors: Mapping[str, Selector], at: float) -> Mapping[str, SamplesByLabels]:
        return {key: {(("at", f"{at:g}"),): (np.array([1]), np.array([2.0]))} for key in selectors}

    def close(self) -> None:
        pass


def cached(source: FakeRangeSource) -> CountingSource:
    return count_queries(source, RangeCache())


spans = st.tuples(st.integers(0, 400), st.integers(0, 60))


@given(st.lists(spans, min_size=1, max_size=6))
def test_what_is_remembered_is_what_the_source_would_tell(asked: list[tuple[int, int]]) -> None:
    source: Source = cached(FakeRangeSource())
    for first, count in asked:
        grid = (first * STEP, (first + count) * STEP, STEP)
        assert source.range(X, *grid) == FakeRangeSource().range(X, *grid)
        assert source.range(Selector("y"), *grid) == FakeRangeSource().range(X, *grid)


def test_only_the_new_end_is_asked_for() -> None:
    recorded = FakeRangeSource()
    source = cached(recorded)
    source.range(X, 0, 239 * STEP, STEP)
    assert source.queries == len(recorded.asked) == 240 / MAX_STEPS_PER_QUERY
    assert [end - start for start, end in recorded.asked] == [(MAX_STEPS_PER_QUERY - 1) * STEP] * len(recorded.asked)
    recorded.asked.clear()
    source.range(X, STEP, 240 * STEP, STEP)
    [(start, end)] = recorded.asked
    assert (240 * STEP - start, end) == (LATE_SAMPLE_SECONDS, 240 * STEP)


def test_what_came_before_a_failure_is_not_asked_for_again() -> None:
    recorded = FakeRangeSource(fails_from=100 * STEP)
    source = cached(recorded)
    with pytest.raises(SourceError):
        source.range(X, 0, 239 * STEP, STEP)
    recorded.asked.clear()
    recorded.fails_from = None
    source.range(X, 0, 239 * STEP, STEP)
    assert recorded.asked[0][0] >= (100 - MAX_STEPS_PER_QUERY) * STEP


def test_times_off_the_grid_are_not_remembered() -> None:
    recorded = FakeRangeSource()
    source = cached(recorded)
    for _ in range(2):
        source.range(X, 7, 1000, STEP)
    assert len(recorded.asked) == 2


def test_raw_samples_are_not_remembered() -> None:
    source = cached(FakeRangeSource())
    for at in (60.0, 120.0):
        assert list(source.samples({"x": Selector("x", "count", 60)}, at)["x"]) == [(("at", f"{at:g}"),)]


@pytest.mark.parametrize("limit", [1, 100, 300])
def test_samples_kept_have_a_limit_and_the_last_range_stays(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """Sets of idle GPUs change: each is a range of its own."""
    monkeypatch.setattr(range_cache, "MAX_CACHED_SAMPLES", limit)
    cache: Any = RangeCache()
    source = count_queries(FakeRangeSource(), cache)
    kept = []
    for number in range(40):
        source.range(Selector(f"set_{number}"), 60.0, 60.0 * (1 + number % 9) + LATE_SAMPLE_SECONDS, 60.0)
        sizes = [sum(map(len, steps.values())) for steps in cache._ranges.values()]
        kept.append(sum(sizes))
        assert kept[-1] <= max(limit, sizes[-1])
        assert next(reversed(cache._ranges))[0] == Selector(f"set_{number}")
    assert max(kept) > limit / 2
