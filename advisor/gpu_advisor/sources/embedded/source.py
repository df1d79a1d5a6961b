"""The embedded history as a source: evaluates expressions by Prometheus' rules."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import chain

from gpu_advisor.promql.expressions import Expression, Labels, Matcher, Selector, TimeSeries, Vector, selectors_of
from gpu_advisor.sources.algebra import MutableVector, ResultLookup, evaluate_expression
from gpu_advisor.sources.base import Samples, SourceError, SourceErrorKind
from gpu_advisor.sources.embedded.history import History
from gpu_advisor.sources.embedded.history_file import HistoryError
from gpu_advisor.sources.embedded.history_rows import SeriesSamples
from gpu_advisor.sources.reductions import LOOKBACK_DELTA_MS, PROMETHEUS_3, RangeRules, reduce, window

MAX_GRID_POINTS = 11_000  # Prometheus' own limit

_SeriesKey = tuple[str, tuple[Matcher, ...]]


class EmbeddedSource:
    """A Source over a History."""

    name = "embedded"

    def __init__(self, history: History, rules: RangeRules = PROMETHEUS_3) -> None:
        self.address = str(history.path)
        self._history = history
        self._rules = rules

    def instant(self, expressions: Mapping[str, Expression], at: float) -> dict[str, Vector]:
        """As Source.instant. Raises SourceError."""
        at_ms = round(at * 1000)
        samples = self._read(expressions.values(), at_ms, at_ms)
        known = self._lookup_at(samples, at_ms)
        return {key: evaluate_expression(expression, known) for key, expression in expressions.items()}

    def range(self, expression: Expression, start: float, end: float, step: float) -> dict[Labels, TimeSeries]:
        """As Source.range. Raises SourceError."""
        start_ms, end_ms, step_ms = round(start * 1000), round(end * 1000), round(step * 1000)
        if end_ms < start_ms or step_ms < 1:
            raise SourceError(
                SourceErrorKind.QUERY_ERROR,
                "A range must not end before it starts, and its step must be at least 1 ms.",
            )
        if (end_ms - start_ms) // step_ms > MAX_GRID_POINTS:
            raise SourceError(
                SourceErrorKind.QUERY_ERROR, f"A range may have at most {MAX_GRID_POINTS} points. Use a longer step."
            )
        samples = self._read([expression], start_ms, end_ms)
        series_by_labels: dict[Labels, list[tuple[float, float]]] = {}
        for at_ms in range(start_ms, end_ms + 1, step_ms):
            for labels, value in evaluate_expression(expression, self._lookup_at(samples, at_ms)).items():
                if math.isfinite(value):
                    series_by_labels.setdefault(labels, []).append((at_ms / 1000, value))
        return {labels: tuple(points) for labels, points in series_by_labels.items()}

    def samples(self, selectors: Mapping[str, Selector], at: float) -> dict[str, dict[Labels, Samples]]:
        """As Source.samples. Raises SourceError."""
        at_ms = round(at * 1000)
        if unlimited := [each.metric for each in selectors.values() if each.window_seconds is None]:
            raise ValueError(f"raw samples of {', '.join(unlimited)} need a window")
        families = self._read(selectors.values(), at_ms, at_ms)
        return {
            key: self._samples_in_window(families[select.metric, select.matchers], at_ms, _window_ms(select) or 0)
            for key, select in selectors.items()
        }

    def close(self) -> None:
        """Do nothing: the owner of the history closes it."""

    def _read(
        self, expressions: Iterable[Expression], start_ms: int, end_ms: int
    ) -> dict[_SeriesKey, list[SeriesSamples]]:
        """The samples that all selectors need, each metric once, as far back as its longest window."""
        lookback_ms: dict[_SeriesKey, int] = {}
        for select in chain.from_iterable(map(selectors_of, expressions)):
            family = (select.metric, select.matchers)
            lookback_ms[family] = max(lookback_ms.get(family, 0), _window_ms(select) or LOOKBACK_DELTA_MS)
        try:
            return {
                (metric, matchers): self._history.read(metric, matchers, (start_ms - back) / 1000, end_ms / 1000)
                for (metric, matchers), back in lookback_ms.items()
            }
        except HistoryError as error:
            raise SourceError(SourceErrorKind.UNREACHABLE, str(error)) from error

    def _samples_in_window(self, family: list[SeriesSamples], at_ms: int, window_ms: int) -> dict[Labels, Samples]:
        found = {
            series.labels: window(series.times_ms, series.values, at_ms, window_ms, self._rules) for series in family
        }
        return {labels: samples for labels, samples in found.items() if samples[0].size}

    def _lookup_at(self, samples: Mapping[_SeriesKey, list[SeriesSamples]], at_ms: int) -> ResultLookup:
        def known(expression: Expression) -> MutableVector | None:
            if not isinstance(expression, Selector):
                return None
            return self._reduce(expression, samples[expression.metric, expression.matchers], at_ms)

        return known

    def _reduce(self, select: Selector, family: list[SeriesSamples], at_ms: int) -> dict[Labels, float]:
        window_ms = _window_ms(select)
        found = {
            series.labels: reduce(
                select.function,
                series.times_ms,
                series.values,
                at_ms,
                window_ms,
                select.q,
                rules=self._rules,
            )
            for series in family
        }
        return {labels: value for labels, value in found.items() if value is not None}


def _window_ms(select: Selector) -> int | None:
    return None if select.window_seconds is None else select.window_seconds * 1000
