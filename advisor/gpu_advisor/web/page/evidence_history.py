"""The past of a piece of evidence: its own query, asked over a range, so that the last point is the value it shows."""

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

#: Asks the source for an expression from start to end (seconds since 1970) by steps of so many seconds.
RangeQuery = Callable[[Expression, float, float, float], Mapping[Labels, TimeSeries]]

#: A curve shows so many windows of its query, an hour at least and a day at most.
WINDOWS = 4
MIN_RANGE_SECONDS, MAX_RANGE_SECONDS = 3600.0, 86400.0
POINTS = 48

#: Curves on one page, and how long (seconds) a page waits for all of them: it is whole without.
MAX_CHARTS_PER_PAGE = 12
CHART_TIMEOUT_SECONDS = 3.0

#: Curves that are kept: those of the last evaluations somebody looked at.
MAX_CACHED_SERIES = 256


@dataclass(frozen=True, slots=True)
class EvidenceSeries:
    """Values on a grid from `start` to `end` (seconds since 1970); None where there was no value. `why` says why there
    are no points at all, with the mend."""

    start: float
    end: float
    points: tuple[float | None, ...] = ()
    why: str = ""


Key = tuple[float, Expression]


class EvidenceHistory:
    """Reads curves of a source, few at a time, and keeps them: a past does not change within an evaluation."""

    def __init__(self, query_range: RangeQuery | None) -> None:
        self._query_range = query_range
        self._cache: dict[Key, EvidenceSeries] = {}
        self._cache_lock = threading.Lock()
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="curves")

    def of(self, evidence: Sequence[Evidence], up: bool) -> list[EvidenceSeries | None]:
        """A curve for each, in order; None where there is no query. `up`: whether the source answers at present."""
        deadline = time.monotonic() + CHART_TIMEOUT_SECONDS
        begun = [self._begin(each, up, number) for number, each in enumerate(evidence)]
        return [
            each if each is None or isinstance(each, EvidenceSeries) else self._wait(*each, deadline) for each in begun
        ]

    def _begin(
        self, evidence: Evidence, up: bool, number: int
    ) -> EvidenceSeries | tuple[Future[EvidenceSeries], EvidenceSeries] | None:
        if evidence.expression is None or evidence.value is None:
            return None
        things = evidence.things
        expression = evidence.expression if things is None else select_or_average(evidence.expression, *things)
        start, end, step = time_range(evidence)
        with self._cache_lock:
            kept = self._cache.get((end, expression))
        if kept is not None:
            return kept
        empty = EvidenceSeries(start, end)
        if self._query_range is None or number >= MAX_CHARTS_PER_PAGE:
            return None
        if not up:
            return EvidenceSeries(start, end, why="The data source does not answer now, so its past cannot be shown.")
        return self._pool.submit(self._read, self._query_range, expression, start, end, step), empty

    def _wait(self, future: Future[EvidenceSeries], empty: EvidenceSeries, deadline: float) -> EvidenceSeries:
        try:
            return future.result(max(0.0, deadline - time.monotonic()))
        except FutureTimeoutError:
            future.cancel()
            seconds = f"{CHART_TIMEOUT_SECONDS:g} s"
            return EvidenceSeries(
                empty.start, empty.end, why=f"The data source took longer than {seconds}: load it again."
            )
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
            curve = EvidenceSeries(start, end, why="The data source has no samples of it in this time.")
        with self._cache_lock:
            self._cache[end, expression] = curve
            while len(self._cache) > MAX_CACHED_SERIES:
                del self._cache[next(iter(self._cache))]
        return curve


def time_range(evidence: Evidence) -> tuple[float, float, float]:
    """From when to when, and by what step."""
    length = min(max(MIN_RANGE_SECONDS, WINDOWS * (evidence.window_seconds or 0)), MAX_RANGE_SECONDS)
    return evidence.at - length, evidence.at, length / POINTS
