"""History of a piece of evidence: a range query with its own expression, whose last point is the value shown."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from math import isfinite

from gpu_advisor.evaluation.recommendation import Evidence
from gpu_advisor.evaluation.signals import select_or_average
from gpu_advisor.promql.expressions import Expression, Labels, TimeSeries
from gpu_advisor.sources.base import SourceError

log = logging.getLogger(__name__)

#: Queries an expression from start to end (Unix times), with a step in seconds.
RangeQuery = Callable[[Expression, float, float, float], Mapping[Labels, TimeSeries]]

#: A chart covers this many windows of its query, within the limits below.
WINDOWS = 4
MIN_RANGE_SECONDS, MAX_RANGE_SECONDS = 3600.0, 86400.0
POINTS = 48

#: Charts on one page, and how long a page waits for all of them: it is useful without.
MAX_CHARTS_PER_PAGE = 12
CHART_TIMEOUT_SECONDS = 3.0

#: Cached series, of the last evaluations that somebody viewed.
MAX_CACHED_SERIES = 256


@dataclass(frozen=True, slots=True)
class EvidenceSeries:
    """Values at equal steps from `start` to `end` (Unix times); None for gaps. `why`: reason if there are no points."""

    start: float
    end: float
    points: tuple[float | None, ...] = ()
    why: str = ""


Key = tuple[float, Expression]


class EvidenceHistory:
    """Reads and caches the series of evidence: the history up to an evaluation is immutable."""

    def __init__(self, query_range: RangeQuery | None) -> None:
        self._query_range = query_range
        self._cache: dict[Key, EvidenceSeries] = {}
        self._cache_lock = threading.Lock()
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="curves")

    def of(self, evidence: Sequence[Evidence], up: bool) -> list[EvidenceSeries | None]:
        """A series for each piece of evidence, in order; None without a query. `up`: whether the source is."""
        deadline = time.monotonic() + CHART_TIMEOUT_SECONDS
        started = [self._start(each, up, number) for number, each in enumerate(evidence)]
        return [
            each if each is None or isinstance(each, EvidenceSeries) else self._wait(*each, deadline)
            for each in started
        ]

    def _start(
        self, evidence: Evidence, up: bool, number: int
    ) -> EvidenceSeries | tuple[Future[EvidenceSeries], EvidenceSeries] | None:
        if evidence.expression is None or evidence.value is None:
            return None
        selection = evidence.things
        expression = evidence.expression if selection is None else select_or_average(evidence.expression, *selection)
        start, end, step = time_range(evidence)
        with self._cache_lock:
            cached = self._cache.get((end, expression))
        if cached is not None:
            return cached
        empty = EvidenceSeries(start, end)
        if self._query_range is None or number >= MAX_CHARTS_PER_PAGE:
            return None
        if not up:
            return EvidenceSeries(start, end, why="No chart: the data source is down.")
        return self._pool.submit(self._read, self._query_range, expression, start, end, step), empty

    def _wait(self, future: Future[EvidenceSeries], empty: EvidenceSeries, deadline: float) -> EvidenceSeries:
        try:
            return future.result(max(0.0, deadline - time.monotonic()))
        except FutureTimeoutError:
            future.cancel()
            why = f"No chart: the query took longer than {CHART_TIMEOUT_SECONDS:g} s. Reload the page to try again."
            return EvidenceSeries(empty.start, empty.end, why=why)
        except SourceError as error:
            return EvidenceSeries(empty.start, empty.end, why=str(error))

    def _read(
        self, query_range: RangeQuery, expression: Expression, start: float, end: float, step: float
    ) -> EvidenceSeries:
        """Raises SourceError."""
        found = dict(next(iter(query_range(expression, start, end, step).values()), ()))
        near = {round((at - start) / step): value for at, value in found.items() if isfinite(value)}
        curve = EvidenceSeries(start, end, tuple(near.get(index) for index in range(POINTS + 1)))
        if not near:
            curve = EvidenceSeries(start, end, why="No chart: no samples in this period.")
        with self._cache_lock:
            self._cache[end, expression] = curve
            while len(self._cache) > MAX_CACHED_SERIES:
                del self._cache[next(iter(self._cache))]
        return curve


def time_range(evidence: Evidence) -> tuple[float, float, float]:
    """Start, end and step of the chart's query, in seconds."""
    length = min(max(MIN_RANGE_SECONDS, WINDOWS * (evidence.window_seconds or 0)), MAX_RANGE_SECONDS)
    return evidence.at - length, evidence.at, length / POINTS
