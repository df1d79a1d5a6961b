"""Evaluate expressions over vectors by Prometheus' rules. Pure.

Used by the embedded source, and by query plans, which have the results of some subexpressions already.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence

from gpu_advisor.promql.expressions import (
    Aggregate,
    AggregateOp,
    Comparison,
    ConstantLabel,
    Expression,
    Filter,
    HistogramQuantile,
    LabelJoin,
    LabelReplace,
    Labels,
    Ratio,
    Selector,
    Sum,
    Union,
)
from gpu_advisor.sources.base import SourceError, SourceErrorKind

MutableVector = dict[Labels, float]

#: The known result of a subexpression; None for one to be computed.
ResultLookup = Callable[[Expression], MutableVector | None]

_COMPARISONS: dict[Comparison, Callable[[float, float], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


def evaluate_expression(expression: Expression, lookup: ResultLookup) -> MutableVector:
    """The result, with NaN and infinities as in Prometheus. `lookup` must know all selectors.

    Raises SourceError where Prometheus would reject the query.
    """
    found = lookup(expression)
    if found is not None:
        return found
    if isinstance(expression, Selector):
        raise SourceError(SourceErrorKind.QUERY_ERROR, f"{expression.metric} was not read.")
    if isinstance(expression, Ratio):
        return _divide(
            evaluate_expression(expression.numerator, lookup), evaluate_expression(expression.denominator, lookup)
        )
    if isinstance(expression, Sum):
        return _add([evaluate_expression(term, lookup) for term in expression.terms])
    if isinstance(expression, Union):
        united: MutableVector = {}
        for part in expression.parts:
            for labels, value in evaluate_expression(part, lookup).items():
                united.setdefault(labels, value)
        return united
    values = evaluate_expression(expression.operand, lookup)
    if isinstance(expression, Aggregate):
        return _aggregate(expression.op, expression.by, values)
    if isinstance(expression, LabelReplace):
        return _distinct(values, {_replace_label(labels, expression): value for labels, value in values.items()})
    if isinstance(expression, ConstantLabel):
        tagged = {_with(labels, expression.label, expression.value): value for labels, value in values.items()}
        return _distinct(values, tagged)
    if isinstance(expression, LabelJoin):
        return _distinct(values, {_join_labels(labels, expression): value for labels, value in values.items()})
    if isinstance(expression, Filter):
        compare = _COMPARISONS[expression.op]
        return {labels: value for labels, value in values.items() if compare(value, expression.limit)}
    if isinstance(expression, HistogramQuantile):
        return _histogram_quantiles(expression.q, values)
    scaled = {labels: expression.scale * value + expression.offset for labels, value in values.items()}
    upper = expression.upper
    return scaled if upper is None else {labels: upper if value > upper else value for labels, value in scaled.items()}


def _distinct(before: MutableVector, after: MutableVector) -> MutableVector:
    if len(after) < len(before):
        raise SourceError(
            SourceErrorKind.QUERY_ERROR, "Two results would have the same labels. Keep a label that distinguishes them."
        )
    return after


def _replace_label(labels: Labels, rename: LabelReplace) -> Labels:
    source = dict(labels).get(rename.source)
    return labels if source is None else _with(labels, rename.to, rename.prefix + source)


def _join_labels(labels: Labels, join: LabelJoin) -> Labels:
    values = dict(labels)
    return _with(labels, join.to, join.separator.join(values.get(source, "") for source in join.sources))


def _with(labels: Labels, name: str, value: str) -> Labels:
    others = [pair for pair in labels if pair[0] != name]
    return tuple(sorted([*others, (name, value)] if value else others))


def _divide(numerator: Mapping[Labels, float], denominator: Mapping[Labels, float]) -> MutableVector:
    # One to one: Prometheus rejects two results with equal labels on one side. That cannot happen here: a selector
    # names one metric, an aggregation merges equal labels, and a mapping has each key once.
    return {
        labels: value / denominator[labels] for labels, value in numerator.items() if denominator.get(labels, 0) != 0
    }


def _add(terms: list[MutableVector]) -> MutableVector:
    first, *others = terms
    return {
        labels: sum((term[labels] for term in others), value)
        for labels, value in first.items()
        if all(labels in term for term in others)
    }


def _histogram_quantiles(q: float, values: Mapping[Labels, float]) -> MutableVector:
    """The quantile of each histogram, by its labels without `le`; series without a bucket's bound are left out."""
    histograms: dict[Labels, dict[float, float]] = {}
    for labels, value in values.items():
        bound = next((text for name, text in labels if name == "le"), "")
        try:
            upper = float(bound)
        except ValueError:
            continue
        key = tuple(pair for pair in labels if pair[0] != "le")
        buckets = histograms.setdefault(key, {})
        buckets[upper] = buckets.get(upper, 0.0) + value  # "1" and "1.0" are one bucket
    return {labels: bucket_quantile(q, sorted(buckets.items())) for labels, buckets in histograms.items()}


def bucket_quantile(q: float, buckets: Sequence[tuple[float, float]]) -> float:
    """The q-quantile of cumulative buckets (upper bound, count), linear within a bucket, as Prometheus has it.

    Source: promql/quantile.go, bucketQuantile. NaN without observations or without a last bucket of infinite bound.
    """
    if len(buckets) < 2 or buckets[-1][0] != math.inf or math.isnan(q):
        return math.nan
    if not 0 <= q <= 1:
        return math.copysign(math.inf, q)
    counts, highest = [], 0.0
    for _, count in buckets:  # rates of buckets that were scraped apart may decrease a little
        highest = max(highest, count)
        counts.append(highest)
    if counts[-1] == 0:
        return math.nan
    rank = q * counts[-1]
    index = next((at for at, count in enumerate(counts[:-1]) if count >= rank), len(counts) - 1)
    if index == len(counts) - 1:
        return buckets[-2][0]
    end, start, below = buckets[index][0], 0.0, 0.0
    if index:
        start, below = buckets[index - 1][0], counts[index - 1]
    elif end <= 0:
        return end
    within = counts[index] - below
    return start + (end - start) * ((rank - below) / within) if within else math.nan


def _aggregate(op: AggregateOp, by: tuple[str, ...], values: Mapping[Labels, float]) -> MutableVector:
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
    numbers = [value for value in values if not math.isnan(value)] or values  # NaN only if all are
    return min(numbers) if op == "min" else max(numbers)


def _average(values: list[float]) -> float:
    """The average without a sum, which may overflow where the average does not."""
    average = 0.0
    for count, value in enumerate(values, start=1):
        if math.isinf(average) and not math.isnan(value) and (not math.isinf(value) or (average > 0) == (value > 0)):
            continue
        average += value / count - average / count
    return average
