"""Engines that limit the length of a query: many idle GPUs and pods are read all the same."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from gpu_advisor.evaluation.owners import GpuOwner
from gpu_advisor.observation.activity import MAX_GPUS, STEP_SECONDS, read_activity
from gpu_advisor.observation.controllers import controller_selectors
from gpu_advisor.observation.evaluate import POD_LEAVES_PER_QUERY
from gpu_advisor.observation.owners import MAX_PODS_BY_NAME, pod_start_selectors
from gpu_advisor.promql.compiler import to_promql
from gpu_advisor.promql.expressions import Expression, Labels, Selector, TimeSeries, Vector
from gpu_advisor.sources.base import SourceError, SourceErrorKind
from gpu_advisor.sources.query_plan import plan_queries

AT = 1_800_000_000.0

#: VictoriaMetrics' -search.maxQueryLen.
LIMIT_BYTES = 16 * 1024


class ShortQuerySource:
    """Answers with 0.5 for each uuid that is named, as long as a query is not too long; counts the queries."""

    name = address = "short"

    def __init__(self, limit: int = LIMIT_BYTES) -> None:
        self.limit, self.queries = limit, 0

    def _named(self, expression: Expression) -> list[Labels]:
        text = to_promql(expression)
        self.queries += 1
        if len(text) > self.limit:
            raise SourceError(SourceErrorKind.QUERY_ERROR, "too long query")
        found = {part.strip('"') for part in text.replace("|", '"').split('"') if part.strip('"').startswith("GPU-")}
        return [(("uuid", uuid),) for uuid in sorted(found)]

    def range(self, expression: Expression, start: float, end: float, step: float) -> dict[Labels, TimeSeries]:
        return dict.fromkeys(self._named(expression), ((start, 0.5), (end, 0.5)))

    def instant(self, expressions: Mapping[str, Expression], at: float) -> dict[str, Vector]:
        return {name: dict.fromkeys(self._named(each), 0.5) for name, each in expressions.items()}


@pytest.mark.parametrize("count", [0, 1, 100, 101, 430, 2000, MAX_GPUS])
def test_activity_of_many_gpus_is_read_in_pieces_where_a_query_is_too_long(count: int) -> None:
    uuids = {f"GPU-{number:032x}": f"GPU-{number:032x}" for number in range(count)}
    utilization = Selector("busy", "mean", STEP_SECONDS)
    short, long = ShortQuerySource(), ShortQuerySource(10**9)
    found = read_activity(short, utilization, uuids, AT)  # type: ignore[arg-type]
    assert found == read_activity(long, utilization, uuids, AT)  # type: ignore[arg-type]
    assert found is not None
    assert set(found) == set(uuids)
    assert long.queries == 2


@pytest.mark.parametrize("count", [1, MAX_PODS_BY_NAME, MAX_PODS_BY_NAME + 1, 5000])
def test_queries_of_pods_stay_short(count: int) -> None:
    owners = [GpuOwner(f"team-{number % 10}", f"{'p' * 50}-{number:010}-abc", "") for number in range(count)]
    selectors = {**pod_start_selectors(owners), **controller_selectors(owners)}
    assert len(selectors) == 6
    for selector in selectors.values():
        assert selector is not None
        assert len(to_promql(selector)) < LIMIT_BYTES / 2
    plan = plan_queries({name: each for name, each in selectors.items() if each}, POD_LEAVES_PER_QUERY)
    assert len(plan.queries) == 3
    assert all(len(to_promql(query)) < LIMIT_BYTES for query in plan.queries.values())
