"""Joined labels and filters by value: their PromQL, their values, and queries for some of the joined values."""

from __future__ import annotations

import math
from typing import Any

import pytest
from gpu_advisor.promql.compiler import to_promql
from gpu_advisor.promql.expressions import (
    Aggregate,
    Expression,
    Filter,
    LabelJoin,
    Labels,
    Ratio,
    Selector,
    restrict_to_values,
)
from gpu_advisor.sources.algebra import MutableVector, evaluate_expression
from gpu_advisor.sources.matchers import compile_matchers
from gpu_advisor.sources.query_plan import leaves_of
from hypothesis import given
from hypothesis import strategies as st

JOIN = LabelJoin(Selector("m"), "id", ("a", "b"), "~")
parts = st.sampled_from(["", "x", "y", "x~y", "1"])


def evaluate(expression: Expression, series: dict[Labels, float]) -> MutableVector:
    def lookup(part: Expression) -> MutableVector | None:
        if not isinstance(part, Selector):
            return None
        matches = compile_matchers(part.matchers)
        return {labels: value for labels, value in series.items() if matches(dict(labels))}

    return evaluate_expression(expression, lookup)


def test_promql() -> None:
    assert to_promql(JOIN) == 'label_join(m, "id", "~", "a", "b")'
    assert to_promql(Filter(Ratio(Selector("u"), Selector("t")), "<", 1e7)) == "(u / (t != 0)) < 10000000"
    assert to_promql(Ratio(Filter(Selector("u"), ">=", 5), Selector("t"))) == "(u >= 5) / (t != 0)"
    assert to_promql(Aggregate("max", ("id",), Filter(JOIN, "<", 1))) == f"max by (id) ({to_promql(JOIN)} < 1)"


def test_a_missing_label_joins_as_empty() -> None:
    series: dict[Labels, float] = {(("a", "x"), ("b", "1")): 1.0, (("b", "2"),): 2.0}
    assert {dict(labels)["id"]: value for labels, value in evaluate(JOIN, series).items()} == {"x~1": 1.0, "~2": 2.0}


@pytest.mark.parametrize(
    ("op", "kept"), [("<", [1.0]), ("<=", [1.0, 2.0]), (">", [3.0, math.inf]), (">=", [2.0, 3.0, math.inf])]
)
def test_a_filter_keeps_what_compares_and_never_nan(op: Any, kept: list[float]) -> None:
    series: dict[Labels, float] = {(("n", str(n)),): v for n, v in enumerate([1.0, 2.0, 3.0, math.inf, math.nan])}
    assert list(evaluate(Filter(Selector("m"), op, 2.0), series).values()) == kept


def test_a_filter_at_the_top_is_computed_from_what_is_read_anyway() -> None:
    mean = Ratio(
        Aggregate("sum", ("id",), Selector("m", "sum", 60)), Aggregate("sum", ("id",), Selector("m", "count", 60))
    )
    assert list(leaves_of(Filter(mean, "<", 1))) == list(leaves_of(mean))
    inner = Aggregate("max", ("id",), Filter(Selector("m"), "<", 1))
    assert list(leaves_of(inner)) == [inner]


@given(
    st.lists(st.tuples(parts, parts), unique=True), st.lists(st.builds("~".join, st.tuples(parts, parts)), min_size=1)
)
def test_a_query_for_some_joined_values_has_just_these(rows: list[tuple[str, str]], values: list[str]) -> None:
    series: dict[Labels, float] = {
        tuple((name, value) for name, value in (("a", a), ("b", b), ("n", str(n))) if value): float(n)
        for n, (a, b) in enumerate(rows)
    }
    whole = evaluate(JOIN, series)
    wanted = {labels: value for labels, value in whole.items() if dict(labels).get("id", "") in values}
    assert evaluate(restrict_to_values(JOIN, "id", tuple(values)), series) == wanted


def test_a_value_that_is_not_joined_selects_nothing() -> None:
    series: dict[Labels, float] = {(("a", "x"), ("b", "1")): 1.0, (("n", "1"),): 2.0}
    assert evaluate(restrict_to_values(JOIN, "id", ("GPU-1",)), series) == {}
