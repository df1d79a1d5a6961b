"""The closed language in which signals are computed.

One expression tree is compiled to PromQL for a Prometheus, or evaluated over the embedded history; both give the same
number on the same samples. There is nothing in it that PromQL has not, and no subqueries.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

#: Labels of one result, sorted by name, without `__name__` and without empty values.
Labels = tuple[tuple[str, str], ...]

#: Results of one expression at one time. A value that is missing, NaN or infinite is not in it.
Vector = Mapping[Labels, float]

Function = Literal["last", "mean", "min", "max", "quantile", "rate", "increase", "count"]
AggregateOp = Literal["sum", "avg", "min", "max", "count"]
MatchOp = Literal["=", "!=", "=~", "!~"]


@dataclass(frozen=True, slots=True)
class Matcher:
    label: str
    op: MatchOp
    value: str


@dataclass(frozen=True, slots=True)
class Select:
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
    of: Expression


@dataclass(frozen=True, slots=True)
class Ratio:
    """`top / bottom` for results with equal labels; others drop out, and so does a division by zero."""

    top: Expression
    bottom: Expression


@dataclass(frozen=True, slots=True)
class Affine:
    """`scale * x + offset`: percent to ratio, or one minus."""

    of: Expression
    scale: float = 1.0
    offset: float = 0.0


Expression = Select | Aggregate | Ratio | Affine


def narrowed(expression: Expression, *matchers: Matcher) -> Expression:
    """The same expression for those things alone that match: what a person pastes to check one number."""
    if isinstance(expression, Select):
        return replace(expression, matchers=(*expression.matchers, *matchers))
    if isinstance(expression, Ratio):
        return Ratio(narrowed(expression.top, *matchers), narrowed(expression.bottom, *matchers))
    return replace(expression, of=narrowed(expression.of, *matchers))


def metrics_of(expression: Expression) -> frozenset[str]:
    """The names of all series that an expression reads."""
    if isinstance(expression, Select):
        return frozenset({expression.metric})
    if isinstance(expression, Ratio):
        return metrics_of(expression.top) | metrics_of(expression.bottom)
    return metrics_of(expression.of)
