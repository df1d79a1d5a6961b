"""The embedded history as a source: expressions evaluated here, by Prometheus' rules."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

from gpu_advisor.expressions import Aggregate, AggregateOp, Expression, Labels, Matcher, Ratio, Select, Vector
from gpu_advisor.sources.base import SourceError, SourceErrorKind, Trail
from gpu_advisor.sources.history import History, HistoryError, SeriesSamples
from gpu_advisor.sources.reductions import LOOK_BACK_MS, reduce

MAX_GRID_POINTS = 11_000  # Prometheus' own limit

_Family = tuple[str, tuple[Matcher, ...]]


class EmbeddedSource:
    """A Source over a History. `left_closed=False` gives windows as Prometheus 3 has them."""

    name = "embedded"

    def __init__(self, history: History, *, left_closed: bool = True) -> None:
        self.address = str(history.path)
        self._history = history
        self._left_closed = left_closed

    def instant(self, expressions: Mapping[str, Expression], at: float) -> dict[str, Vector]:
        """As Source.instant. Raises SourceError."""
        at_ms = round(at * 1000)
        samples = self._read(expressions.values(), at_ms, at_ms)
        return {key: _finite(self._evaluate(expression, samples, at_ms)) for key, expression in expressions.items()}

    def range(self, expression: Expression, start: float, end: float, step: float) -> dict[Labels, Trail]:
        """As Source.range. Raises SourceError."""
        start_ms, end_ms, step_ms = round(start * 1000), round(end * 1000), round(step * 1000)
        if end_ms < start_ms or step_ms < 1:
            raise SourceError(SourceErrorKind.QUERY_ERROR, "A range must not end before it starts, nor stand still.")
        if (end_ms - start_ms) // step_ms > MAX_GRID_POINTS:
            raise SourceError(
                SourceErrorKind.QUERY_ERROR, f"A range may have {MAX_GRID_POINTS} points. Use a longer step."
            )
        samples = self._read([expression], start_ms, end_ms)
        trails: dict[Labels, list[tuple[float, float]]] = {}
        for at_ms in range(start_ms, end_ms + 1, step_ms):
            for labels, value in _finite(self._evaluate(expression, samples, at_ms)).items():
                trails.setdefault(labels, []).append((at_ms / 1000, value))
        return {labels: tuple(trail) for labels, trail in trails.items()}

    def close(self) -> None:
        """Nothing to do: whoever opened the history closes it."""

    def _read(
        self, expressions: Iterable[Expression], start_ms: int, end_ms: int
    ) -> dict[_Family, list[SeriesSamples]]:
        """What all selectors need, each family once, as far back as the longest window reaches."""
        reach: dict[_Family, int] = {}
        for select in _selects(expressions):
            family = (select.metric, select.matchers)
            reach[family] = max(reach.get(family, 0), _window_ms(select) or LOOK_BACK_MS)
        try:
            return {
                (metric, matchers): self._history.read(metric, matchers, (start_ms - back) / 1000, end_ms / 1000)
                for (metric, matchers), back in reach.items()
            }
        except HistoryError as error:
            raise SourceError(SourceErrorKind.UNREACHABLE, str(error)) from error

    def _evaluate(
        self, expression: Expression, samples: Mapping[_Family, list[SeriesSamples]], at_ms: int
    ) -> dict[Labels, float]:
        """As Prometheus has it in the middle of an expression: with NaN and infinities."""
        if isinstance(expression, Select):
            return self._reduce(expression, samples[expression.metric, expression.matchers], at_ms)
        if isinstance(expression, Ratio):
            return _divide(
                self._evaluate(expression.top, samples, at_ms), self._evaluate(expression.bottom, samples, at_ms)
            )
        values = self._evaluate(expression.of, samples, at_ms)
        if isinstance(expression, Aggregate):
            return _aggregate(expression.op, expression.by, values)
        return {labels: expression.scale * value + expression.offset for labels, value in values.items()}

    def _reduce(self, select: Select, family: list[SeriesSamples], at_ms: int) -> dict[Labels, float]:
        window_ms = _window_ms(select)
        found = {
            series.labels: reduce(
                select.function,
                series.times_ms,
                series.values,
                at_ms,
                window_ms,
                select.q,
                left_closed=self._left_closed,
            )
            for series in family
        }
        return {labels: value for labels, value in found.items() if value is not None}


def _selects(expressions: Iterable[Expression]) -> Iterator[Select]:
    for expression in expressions:
        if isinstance(expression, Select):
            yield expression
        elif isinstance(expression, Ratio):
            yield from _selects((expression.top, expression.bottom))
        else:
            yield from _selects((expression.of,))


def _window_ms(select: Select) -> int | None:
    return None if select.window_seconds is None else select.window_seconds * 1000


def _finite(values: Mapping[Labels, float]) -> Vector:
    return {labels: value for labels, value in values.items() if math.isfinite(value)}


def _divide(top: Mapping[Labels, float], bottom: Mapping[Labels, float]) -> dict[Labels, float]:
    # One to one: Prometheus refuses two results with equal labels on a side. Here there cannot be two, as a selector
    # names one metric and an aggregation makes one result of equal labels; a mapping holds each key once.
    return {labels: value / bottom[labels] for labels, value in top.items() if bottom.get(labels, 0) != 0}


def _aggregate(op: AggregateOp, by: tuple[str, ...], values: Mapping[Labels, float]) -> dict[Labels, float]:
    groups: dict[Labels, list[float]] = {}
    for labels, value in values.items():
        groups.setdefault(tuple(pair for pair in labels if pair[0] in by), []).append(value)
    return {labels: _combine(op, group) for labels, group in groups.items()}


def _combine(op: AggregateOp, values: list[float]) -> float:
    if op == "count":
        return float(len(values))
    if op == "sum":
        return sum(values)
    if op == "avg":
        return _average(values)
    known = [value for value in values if not math.isnan(value)] or values  # NaN only if there is nothing else
    return min(known) if op == "min" else max(known)


def _average(values: list[float]) -> float:
    """Without the sum, which may overflow where the average does not."""
    average = 0.0
    for count, value in enumerate(values, start=1):
        if math.isinf(average) and not math.isnan(value) and (not math.isinf(value) or (average > 0) == (value > 0)):
            continue
        average += value / count - average / count
    return average
