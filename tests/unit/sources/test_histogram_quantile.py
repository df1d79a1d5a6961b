"""histogram_quantile in the expression language: as Prometheus computes it, and as it is written."""

from __future__ import annotations

import math

import pytest
from gpu_advisor.promql.compiler import to_promql
from gpu_advisor.promql.expressions import Aggregate, HistogramQuantile, Labels, Matcher, Selector, with_matchers
from gpu_advisor.sources.algebra import bucket_quantile, evaluate_expression
from gpu_advisor.sources.query_plan import leaves_of
from hypothesis import given
from hypothesis import strategies as st

INF = math.inf
BUCKETS = Aggregate("sum", ("instance", "le"), Selector("ttft_seconds_bucket", "rate", 300))


@pytest.mark.parametrize(
    ("q", "buckets", "expected"),
    [
        (0.5, [(1.0, 5.0), (2.0, 10.0), (INF, 10.0)], 1.0),
        (0.75, [(1.0, 5.0), (2.0, 10.0), (INF, 10.0)], 1.5),
        (0.1, [(1.0, 5.0), (INF, 5.0)], 0.1),  # the first bucket begins at zero
        (0.9, [(1.0, 5.0), (INF, 10.0)], 1.0),  # beyond the last finite bound: that bound
        (0.5, [(-1.0, 5.0), (INF, 5.0)], -1.0),
        (0.5, [(1.0, 5.0), (2.0, 4.0), (INF, 10.0)], 1.0),  # scraped apart: made to grow
        (-0.1, [(1.0, 5.0), (INF, 5.0)], -INF),
        (1.1, [(1.0, 5.0), (INF, 5.0)], INF),
    ],
)
def test_worked_examples(q: float, buckets: list[tuple[float, float]], expected: float) -> None:
    assert bucket_quantile(q, buckets) == pytest.approx(expected)


@pytest.mark.parametrize("buckets", [[(INF, 5.0)], [(1.0, 5.0), (2.0, 5.0)], [(1.0, 0.0), (INF, 0.0)]])
def test_no_observations_or_no_last_bucket_is_no_number(buckets: list[tuple[float, float]]) -> None:
    assert math.isnan(bucket_quantile(0.95, buckets))


def test_least_quantile_of_an_empty_first_bucket_is_no_number() -> None:
    assert math.isnan(bucket_quantile(0.0, [(1.0, 0.0), (2.0, 3.0), (INF, 3.0)]))


@given(st.lists(st.floats(0.001, 50), min_size=1, max_size=60), st.floats(0.01, 1))
def test_lies_in_the_bucket_of_the_observed_quantile(values: list[float], q: float) -> None:
    bounds = (0.1, 1.0, 5.0, 20.0, 100.0, INF)
    buckets = [(bound, float(sum(value <= bound for value in values))) for bound in bounds]
    rank = max(1, math.ceil(q * len(values)))
    exact = sorted(values)[rank - 1]
    upper = next(bound for bound in bounds if exact <= bound)
    below = max((bound for bound in bounds if bound < upper), default=0.0)
    assert below - 1e-9 <= bucket_quantile(q, buckets) <= upper + 1e-9


def test_expression_groups_by_all_labels_but_the_bound_and_is_read_by_the_server() -> None:
    def row(instance: str, le: str) -> Labels:
        return (("instance", instance), ("le", le))

    known = {row("a", "1"): 2.0, row("a", "+Inf"): 4.0, row("b", "1.0"): 4.0, row("b", "+Inf"): 4.0}
    expression = HistogramQuantile(0.5, BUCKETS)
    found = evaluate_expression(expression, lambda part: dict(known) if part is BUCKETS else None)
    assert found == {(("instance", "a"),): 1.0, (("instance", "b"),): 0.5}
    assert list(leaves_of(expression)) == [expression]
    assert (
        to_promql(with_matchers(expression, (Matcher("model_name", "=", "m"),)))
        == 'histogram_quantile(0.5, sum by (instance, le) (rate(ttft_seconds_bucket{model_name="m"}[5m])))'
    )
