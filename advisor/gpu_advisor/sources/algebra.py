"""What becomes of vectors inside an expression, by Prometheus' rules. Pure.

The embedded source computes with it, and so does whoever has the answers to parts of an expression already.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from gpu_advisor.promql.expressions import (
    Aggregate,
    AggregateOp,
    Expression,
    Labels,
    Ratio,
    Renamed,
    Select,
    Sum,
    Tagged,
    Union,
)
from gpu_advisor.sources.base import SourceError, SourceErrorKind

Values = dict[Labels, float]

#: The answer to a part of an expression that is known from elsewhere; None for one that is to be computed.
Known = Callable[[Expression], Values | None]


def evaluate(expression: Expression, known: Known) -> Values:
    """As Prometheus has it in the middle of an expression: with NaN and infinities. All selectors must be known.

    Raises SourceError where Prometheus would refuse.
    """
    found = known(expression)
    if found is not None:
        return found
    if isinstance(expression, Select):
        raise SourceError(SourceErrorKind.QUERY_ERROR, f"{expression.metric} was not read: nothing is known of it.")
    if isinstance(expression, Ratio):
        return _divide(evaluate(expression.top, known), evaluate(expression.bottom, known))
    if isinstance(expression, Sum):
        return _add([evaluate(term, known) for term in expression.terms])
    if isinstance(expression, Union):
        united: Values = {}
        for part in expression.parts:
            for labels, value in evaluate(part, known).items():
                united.setdefault(labels, value)
        return united
    values = evaluate(expression.of, known)
    if isinstance(expression, Aggregate):
        return _aggregate(expression.op, expression.by, values)
    if isinstance(expression, Renamed):
        return _distinct(values, {_renamed(labels, expression): value for labels, value in values.items()})
    if isinstance(expression, Tagged):
        tagged = {_with(labels, expression.label, expression.value): value for labels, value in values.items()}
        return _distinct(values, tagged)
    return {labels: expression.scale * value + expression.offset for labels, value in values.items()}


def _distinct(before: Values, after: Values) -> Values:
    if len(after) < len(before):
        raise SourceError(SourceErrorKind.QUERY_ERROR, "Two results would have the same labels. Rename others.")
    return after


def _renamed(labels: Labels, rename: Renamed) -> Labels:
    source = dict(labels).get(rename.source)
    return labels if source is None else _with(labels, rename.to, rename.prefix + source)


def _with(labels: Labels, name: str, value: str) -> Labels:
    others = [pair for pair in labels if pair[0] != name]
    return tuple(sorted([*others, (name, value)] if value else others))


def _divide(top: Mapping[Labels, float], bottom: Mapping[Labels, float]) -> Values:
    # One to one: Prometheus refuses two results with equal labels on a side. Here there cannot be two, as a selector
    # names one metric and an aggregation makes one result of equal labels; a mapping holds each key once.
    return {labels: value / bottom[labels] for labels, value in top.items() if bottom.get(labels, 0) != 0}


def _add(terms: list[Values]) -> Values:
    first, *others = terms
    return {
        labels: sum((term[labels] for term in others), value)
        for labels, value in first.items()
        if all(labels in term for term in others)
    }


def _aggregate(op: AggregateOp, by: tuple[str, ...], values: Mapping[Labels, float]) -> Values:
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
