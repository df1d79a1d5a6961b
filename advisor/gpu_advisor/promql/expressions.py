"""The closed language in which signals are computed.

One expression tree is compiled to PromQL for a Prometheus, or evaluated over the embedded history; both give the same
number on the same samples. There is nothing in it that PromQL has not, and no subqueries.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

#: Labels of one result, sorted by name, without `__name__` and without empty values.
Labels = tuple[tuple[str, str], ...]

#: Results of one expression at one time. What has no value is not in it; a value may be NaN or infinite where an
#: exporter says so: whoever takes it for a number has to look.
Vector = Mapping[Labels, float]

#: Values on a time grid, (Unix time, value), oldest first; grid points without a value are not in it.
TimeSeries = tuple[tuple[float, float], ...]

Function = Literal["last", "mean", "min", "max", "quantile", "sum", "rate", "increase", "count"]
AggregateOp = Literal["sum", "avg", "min", "max", "count"]
MatchOp = Literal["=", "!=", "=~", "!~"]


@dataclass(frozen=True, slots=True)
class Matcher:
    label: str
    op: MatchOp
    value: str


@dataclass(frozen=True, slots=True)
class Selector:
    """One series family, reduced over a window.

    `last` has no window and is the newest sample within the look-back of 5 minutes, unless a staleness marker came
    after it. All others need `window_seconds`; `quantile` needs `q` in 0..1. `rate` is per second.
    """

    metric: str
    function: Function = "last"
    window_seconds: int | None = None
    q: float | None = None
    matchers: tuple[Matcher, ...] = ()

    def __post_init__(self) -> None:
        if (self.function == "last") != (self.window_seconds is None):
            raise ValueError(f"{self.function}({self.metric}): 'last' has no window, everything else has one")
        if (self.function == "quantile") != (self.q is not None):
            raise ValueError(f"{self.function}({self.metric}): q goes with 'quantile', and only with it")


@dataclass(frozen=True, slots=True)
class Aggregate:
    """Results with the same values of `by` become one. Other labels go."""

    op: AggregateOp
    by: tuple[str, ...]
    operand: Expression


@dataclass(frozen=True, slots=True)
class Ratio:
    """`numerator / denominator` for results with equal labels; others drop out, and so does a division by zero."""

    numerator: Expression
    denominator: Expression


@dataclass(frozen=True, slots=True)
class Affine:
    """`scale * x + offset`: percent to ratio, or one minus."""

    operand: Expression
    scale: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True, slots=True)
class Sum:
    """`a + b + ...` for results that each of the terms has, with equal labels; others drop out."""

    terms: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Union:
    """All results of the first, and of each later one those whose labels are not there yet."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class LabelReplace:
    """Results that have the label `source` get its value, behind `prefix`, as label `to`; `source` stays."""

    operand: Expression
    to: str
    source: str
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class ConstantLabel:
    """All results with the label `label` set to `value`."""

    operand: Expression
    label: str
    value: str


Expression = Selector | Aggregate | Ratio | Affine | Sum | Union | LabelReplace | ConstantLabel


def union(*parts: Expression) -> Expression:
    """The union of one or more."""
    return parts[0] if len(parts) == 1 else Union(parts)


def restrict_to_values(expression: Expression, label: str, values: tuple[str, ...]) -> Expression:
    """The same expression for those results alone whose `label` has one of the values: what a person pastes to check.

    The condition goes down to the selectors, where the server looks up by it, through renamings to the name and the
    value that the exporter gave.
    """
    if isinstance(expression, Selector):
        return replace(expression, matchers=(*expression.matchers, any_of_values(label, values)))
    if isinstance(expression, LabelReplace) and expression.to == label:
        theirs = tuple(value.removeprefix(expression.prefix) for value in values)
        return replace(expression, operand=restrict_to_values(expression.operand, expression.source, theirs))
    return _with_subexpressions(
        expression, tuple(restrict_to_values(part, label, values) for part in subexpressions(expression))
    )


def any_of_values(label: str, values: tuple[str, ...]) -> Matcher:
    """A matcher for a label that has one of the values."""
    if len(values) == 1:
        return Matcher(label, "=", values[0])
    return Matcher(label, "=~", "|".join(map(_quote_regex, values)))


def subexpressions(expression: Expression) -> tuple[Expression, ...]:
    """What an expression is made of, from left to right."""
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
    return frozenset(select.metric for select in selectors_of(expression))


def _with_subexpressions(expression: Expression, parts: tuple[Expression, ...]) -> Expression:
    """The expression with other parts."""
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
    """Quoted for RE2, whose special characters are fewer than Python's re.escape thinks."""
    return "".join("\\" + c if c in r"\.+*?()|[]{}^$" else c for c in text)
