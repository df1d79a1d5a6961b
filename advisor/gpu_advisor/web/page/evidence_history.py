"""History behind the charts: range queries with the evidence's own expressions, bounded in time and in number."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field
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

Points = tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class EvidenceSeries:
    """Values at equal steps from `start` to `end` (Unix times); None for gaps. `why`: reason if there are no points."""

    start: float
    end: float
    points: Points = ()
    why: str = ""


@dataclass(frozen=True, slots=True)
class RangeRequest:
    """An expression at `points` equal steps from `start` to `end` (Unix times)."""

    expression: Expression
    start: float
    end: float
    points: int

    @property
    def step(self) -> float:
        return (self.end - self.start) / self.points


@dataclass(frozen=True, slots=True)
class RangeResult:
    """The series of a request by their labels; `why` is the reason if there are none."""

    request: RangeRequest
    series: Mapping[Labels, Points] = field(default_factory=dict)
    why: str = ""

    def first(self) -> EvidenceSeries:
        """The series of an expression that has one."""
        points = next(iter(self.series.values()), ())
        return EvidenceSeries(self.request.start, self.request.end, points, self.why)


class EvidenceHistory:
    """Reads and caches series: the history up to an evaluation is immutable."""

    def __init__(self, query_range: RangeQuery | None) -> None:
        self._query_range = query_range
        self._cache: dict[RangeRequest, RangeResult] = {}
        self._cache_lock = threading.Lock()
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="curves")

    def of(self, evidence: Sequence[Evidence], up: bool) -> list[EvidenceSeries | None]:
        """A series for each piece of evidence, in order; None without a query. `up`: whether the source is."""
        results = self.read([_request(each) for each in evidence], up)
        return [each.first() if each else None for each in results]

    def read(self, requests: Sequence[RangeRequest | None], up: bool) -> list[RangeResult | None]:
        """A result for each request, in order; None for those beyond the limit of a page."""
        deadline = time.monotonic() + CHART_TIMEOUT_SECONDS
        started = [self._start(each, up, number) for number, each in enumerate(requests)]
        return [
            each if each is None or isinstance(each, RangeResult) else self._wait(*each, deadline) for each in started
        ]

    def _start(
        self, request: RangeRequest | None, up: bool, number: int
    ) -> RangeResult | tuple[Future[RangeResult], RangeRequest] | None:
        if request is None:
            return None
        with self._cache_lock:
            cached = self._cache.get(request)
        if cached is not None:
            return cached
        if self._query_range is None or number >= MAX_CHARTS_PER_PAGE:
            return None
        if not up:
            return RangeResult(request, why="No chart: the data source is down.")
        return self._pool.submit(self._read, self._query_range, request), request

    def _wait(self, future: Future[RangeResult], request: RangeRequest, deadline: float) -> RangeResult:
        try:
            return future.result(max(0.0, deadline - time.monotonic()))
        except FutureTimeoutError:
            future.cancel()
            why = f"No chart: the query took longer than {CHART_TIMEOUT_SECONDS:g} s. Reload the page to try again."
            return RangeResult(request, why=why)
        except SourceError as error:
            return RangeResult(request, why=str(error))

    def _read(self, query_range: RangeQuery, request: RangeRequest) -> RangeResult:
        """Raises SourceError."""
        start, step = request.start, request.step
        series: dict[Labels, Points] = {}
        for labels, samples in query_range(request.expression, start, request.end, step).items():
            near = {round((at - start) / step): value for at, value in samples if isfinite(value)}
            if near:
                series[labels] = tuple(near.get(index) for index in range(request.points + 1))
        result = RangeResult(request, series, "" if series else "No chart: no samples in this period.")
        with self._cache_lock:
            self._cache[request] = result
            while len(self._cache) > MAX_CACHED_SERIES:
                del self._cache[next(iter(self._cache))]
        return result


def _request(evidence: Evidence) -> RangeRequest | None:
    if evidence.expression is None or evidence.value is None:
        return None
    selection = evidence.things
    expression = evidence.expression if selection is None else select_or_average(evidence.expression, *selection)
    start, end, _ = time_range(evidence)
    return RangeRequest(expression, start, end, POINTS)


def time_range(evidence: Evidence) -> tuple[float, float, float]:
    """Start, end and step of the chart's query, in seconds."""
    length = min(max(MIN_RANGE_SECONDS, WINDOWS * (evidence.window_seconds or 0)), MAX_RANGE_SECONDS)
    return evidence.at - length, evidence.at, length / POINTS
