"""The interface of data sources."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from gpu_advisor.promql.expressions import Expression, Labels, Selector, TimeSeries, Vector
from gpu_advisor.promql.query_language import QueryLanguage

#: Raw samples of one series, oldest first, without staleness markers: times (Unix milliseconds, int64) and values
#: (float64), of equal length.
Samples = tuple[NDArray[np.int64], NDArray[np.float64]]

#: Raw samples by series. Series without samples are absent.
SamplesByLabels = Mapping[Labels, Samples]


class SourceErrorKind(str, Enum):
    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    UNAUTHORIZED = "unauthorized"
    BAD_RESPONSE = "bad_answer"
    QUERY_ERROR = "query_error"
    PARTIAL = "partial"


#: Errors of one query: the source as a whole may answer others.
QUERY_ERROR_KINDS = frozenset({SourceErrorKind.QUERY_ERROR, SourceErrorKind.BAD_RESPONSE, SourceErrorKind.PARTIAL})


class SourceError(Exception):
    """The source failed. The message says what happened and how to fix it.

    A partial result is an error too: missing data must not look like absent series.
    """

    def __init__(self, kind: SourceErrorKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind

    @property
    def is_of_query(self) -> bool:
        return self.kind in QUERY_ERROR_KINDS


class Source(Protocol):
    """Evaluates expressions at a pinned time."""

    name: str  # "prometheus" or "embedded"; shown to users
    address: str  # URL or path, without secrets; shown to users

    def instant(self, expressions: Mapping[str, Expression], at: float) -> Mapping[str, Vector]:
        """Each expression at time `at` (Unix time), NaN and infinities included. One query each.

        Raises SourceError.
        """
        ...

    def range(self, expression: Expression, start: float, end: float, step: float) -> Mapping[Labels, TimeSeries]:
        """One expression at start, start + step, ... up to end. One query. Raises SourceError."""
        ...

    def samples(self, selectors: Mapping[str, Selector], at: float) -> Mapping[str, SamplesByLabels]:
        """The raw samples of each selector in its window up to `at` (Unix time); its function is ignored.

        Windows have the edges of the source's range functions. One query each. Raises SourceError, and ValueError for
        a selector without a window.
        """
        ...

    def close(self) -> None:
        """Release connections and files."""
        ...


@runtime_checkable
class PromqlSource(Protocol):
    """A source that evaluates PromQL text, in its own dialect; the embedded one does not."""

    def query_language(self) -> QueryLanguage:
        """What text for people to paste is written in, too. Raises SourceError."""
        ...

    def range_promql(self, promql: str, start: float, end: float, step: float) -> dict[Labels, TimeSeries]:
        """As Source.range. Raises SourceError."""
        ...
