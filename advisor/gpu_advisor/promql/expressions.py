"""The expression language of signals: a subset of PromQL without subqueries.

An expression tree is compiled to PromQL for Prometheus, or evaluated over the embedded history; both give the same
number on the same samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

#: Labels of one result, sorted by name, without `__name__` and without empty values.
Labels = tuple[tuple[str, str], ...]

#: Results of one expression at one time. Series without a value are absent; a value may be NaN or infinite if an
#: exporter reports that: callers must check.
Vector = Mapping[Labels, float]

#: Values on a time grid, (Unix time, value), oldest first; grid points without a value are absent.
TimeSeries = tuple[tuple[float, float], ...]

Function = Literal["last", "mean", "min", "max", "quantile", "sum", "rate", "increase", "count"]
AggregateOp = Literal["sum", "avg", "min", "max", "count"]
MatchOp = Literal["=", "!=", "=~", "!~"]
Comparison = Literal["<", "<=", ">", ">="]

#: What a signal says of a quantity, of which thing.
Reduction = Literal["last", "mean", "min", "max", "quantile", "rate", "increase", "coverage", "samples"]
ScopeName = Literal["gpu", "node"]


@dataclass(frozen=True, slots=True)
class Matcher:
    label: str
    op: MatchOp
    value: str


@dataclass(frozen=True, slots=True)
class Selector:
    """A vector selector, reduced over a window.

    `last` has no window and is the newest sample within the lookback delta of 5 minutes, unless a staleness marker
    follows it. All others need `window_seconds`; `quantile` needs `q` in 0..1. `rate` is per second.
    """

    metric: str
    function: Function = "last"
    window_seconds: int | None = None
    q: float | None = None
    matchers: tuple[Matcher, ...] = ()

    def __post_init__(self) -> None:
        if (self.function == "last") != (self.window_seconds is None):
            raise ValueError(f"{self.function}({self.metric}): only 'last' has no window")
        if (self.function == "quantile") != (self.q is not None):
            raise ValueError(f"{self.function}({self.metric}): q is for 'quantile', and required there")


@dataclass(frozen=True, slots=True)
class Aggregate:
    """Aggregate results with equal values of the labels in `by`; other labels are dropped."""

    op: AggregateOp
    by: tuple[str, ...]
    operand: Expression


@dataclass(frozen=True, slots=True)
class Ratio:
    """`numerator / denominator` for results with equal labels; others are dropped, and so are divisions by zero."""

    numerator: Expression
    denominator: Expression


@dataclass(frozen=True, slots=True)
class Affine:
    """`scale * x + offset`, at most `upper`: percent to ratio, a complement, or a share of an expected number."""

    operand: Expression
    scale: float = 1.0
    offset: float = 0.0
    upper: float | None = None


@dataclass(frozen=True, slots=True)
class Sum:
    """`a + b + ...` for label sets that every term has; others are dropped."""

    terms: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Union:
    """PromQL `or`: all results of the first part, and from each later part those with new labels."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class LabelReplace:
    """Copy the label `source`, with `prefix` before its value, to the label `to` where it is present."""

    operand: Expression
    to: str
    source: str
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class ConstantLabel:
    """Set the label `label` of all results to `value`."""

    operand: Expression
    label: str
    value: str


@dataclass(frozen=True, slots=True)
class LabelJoin:
    """Set the label `to` to the values of the labels in `sources`, with `separator` between them."""

    operand: Expression
    to: str
    sources: tuple[str, ...]
    separator: str = "/"


@dataclass(frozen=True, slots=True)
class Filter:
    """The results that compare with `limit` as given; NaN never does."""

    operand: Expression
    op: Comparison
    limit: float


@dataclass(frozen=True, slots=True)
class HistogramQuantile:
    """The q-quantile (0..1) of classic histograms: `operand` has their cumulative buckets, with the label `le`.

    NaN for a histogram without observations, or without its bucket of all.
    """

    q: float
    operand: Expression


Expression = (
    Selector
    | Aggregate
    | Ratio
    | Affine
    | Sum
    | Union
    | LabelReplace
    | LabelJoin
    | ConstantLabel
    | Filter
    | HistogramQuantile
)


def union(*parts: Expression) -> Expression:
    """The union of one or more expressions."""
    return parts[0] if len(parts) == 1 else Union(parts)


def restrict_to_values(expression: Expression, label: str, values: tuple[str, ...]) -> Expression:
    """The expression restricted to results whose `label` has one of the values.

    The condition is pushed down to the selectors, where the server can use its index, and translated back through label
    replacements to the exporter's label and value.
    """
    if isinstance(expression, Selector):
        return replace(expression, matchers=(*expression.matchers, any_of_values(label, values)))
    if isinstance(expression, LabelReplace) and expression.to == label:
        originals = tuple(value.removeprefix(expression.prefix) for value in values)
        return replace(expression, operand=restrict_to_values(expression.operand, expression.source, originals))
    if isinstance(expression, LabelJoin) and expression.to == label:
        return _restrict_join(expression, values)
    return _with_subexpressions(
        expression, tuple(restrict_to_values(part, label, values) for part in subexpressions(expression))
    )


def _restrict_join(join: LabelJoin, values: tuple[str, ...]) -> Expression:
    """The join restricted to these joined values: one part for each combination of all sources but the last."""
    last_values: dict[tuple[str, ...], dict[str, None]] = {}
    for value in values:
        for parts in _splits(value, join.separator, len(join.sources)):
            last_values.setdefault(parts[:-1], {})[parts[-1]] = None
    if not last_values:  # none of the values is a joined one: no label is empty and something else
        empty = restrict_to_values(join.operand, join.sources[-1], ("",))
        return replace(join, operand=restrict_to_values(empty, join.sources[-1], (join.separator,)))
    restricted = []
    for others, lasts in last_values.items():
        operand = restrict_to_values(join.operand, join.sources[-1], tuple(lasts))
        for source, value in zip(join.sources, others, strict=False):
            operand = restrict_to_values(operand, source, (value,))
        restricted.append(replace(join, operand=operand))
    return union(*restricted)


def _splits(text: str, separator: str, count: int) -> Iterator[tuple[str, ...]]:
    """All ways in which `count` texts may have been joined to this one."""
    if count == 1:
        yield (text,)
        return
    pieces = text.split(separator)
    for end in range(1, len(pieces) - count + 2):
        for rest in _splits(separator.join(pieces[end:]), separator, count - 1):
            yield (separator.join(pieces[:end]), *rest)


def with_matchers(expression: Expression, matchers: tuple[Matcher, ...]) -> Expression:
    """The expression with further matchers on each selector."""
    if not matchers:
        return expression
    if isinstance(expression, Selector):
        return replace(expression, matchers=(*expression.matchers, *matchers))
    return _with_subexpressions(expression, tuple(with_matchers(part, matchers) for part in subexpressions(expression)))


def any_of_values(label: str, values: tuple[str, ...]) -> Matcher:
    """A matcher for any of the values of a label."""
    if len(values) == 1:
        return Matcher(label, "=", values[0])
    return Matcher(label, "=~", "|".join(map(_quote_regex, values)))


def none_of_values(label: str, values: tuple[str, ...]) -> Matcher:
    """A matcher for all other values of a label, and for none."""
    return Matcher(label, "!~", "|".join(map(_quote_regex, values)))


def subexpressions(expression: Expression) -> tuple[Expression, ...]:
    """The direct subexpressions, from left to right."""
    if isinstance(expression, Selector):
        return ()
    if isinstance(expression, Ratio):
        return (expression.numerator, expression.denominator)
    if isinstance(expression, Sum):
        return expression.terms
    if isinstance(expression, Union):
        return expression.parts
    return (expression.operand,)


def selectors_of(expression: Expression) -> Iterator[Selector]:
    """All selectors, from left to right."""
    if isinstance(expression, Selector):
        yield expression
    for part in subexpressions(expression):
        yield from selectors_of(part)


def metrics_of(expression: Expression) -> frozenset[str]:
    """The names of all series that an expression reads."""
    return frozenset(selector.metric for selector in selectors_of(expression))


def _with_subexpressions(expression: Expression, parts: tuple[Expression, ...]) -> Expression:
    """The expression with its subexpressions replaced."""
    if isinstance(expression, Ratio):
        return Ratio(*parts)
    if isinstance(expression, Sum):
        return Sum(parts)
    if isinstance(expression, Union):
        return Union(parts)
    if isinstance(expression, Selector):
        return expression
    return replace(expression, operand=parts[0])


def _quote_regex(text: str) -> str:
    """Quote for RE2, which has fewer special characters than Python's re.escape quotes."""
    return "".join("\\" + c if c in r"\.+*?()|[]{}^$" else c for c in text)
