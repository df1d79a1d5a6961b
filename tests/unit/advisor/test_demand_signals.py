"""Demand signals and recorded demand: what a query's answer is worth, and which steps of a pool's past count."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from gpu_advisor.backtest.recorded_demand import find_serving_pool, read_recorded_demand
from gpu_advisor.backtest.trace import TraceError
from gpu_advisor.evaluation.history import step_bounds
from gpu_advisor.evaluation.recommendation import Reason
from gpu_advisor.observation.demand import read_demand_signals
from gpu_advisor.promql.expressions import Labels, TimeSeries
from gpu_advisor.promql.query_language import PROMQL, QueryLanguage
from gpu_advisor.settings import Settings
from gpu_advisor.sources.base import QUERY_ERROR_KINDS, SourceError, SourceErrorKind

from tests.unit.advisor.builders import AT, ExporterTarget, FakeSource, GpuSpec, labels

POOLS = Settings.model_validate(
    {
        "pools": [
            {"name": "web", "kind": "serving", "gpus_per_replica": 2, "match": {"node": "a"},
             "demand": {"query": "sum(waiting)", "per_replica": 10}},
            {"name": "batch", "kind": "training"},
        ]
    }
)  # fmt: skip


class PromqlAnswers(FakeSource):
    """Answers every query with these series, or fails."""

    def __init__(self, answer: Mapping[Labels, TimeSeries] | SourceError) -> None:
        super().__init__([])
        self.answer = answer
        self.asked: list[tuple[object, ...]] = []

    def range_promql(self, promql: str, start: float, end: float, step: float) -> Mapping[Labels, TimeSeries]:
        self.asked.append((promql, start, end, step))
        if isinstance(self.answer, SourceError):
            raise self.answer
        return self.answer

    def query_language(self) -> QueryLanguage:
        return PROMQL


SERIES: TimeSeries = ((AT - 60, 0.0), (AT, 3.0))


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({(): SERIES}, None),
        ({labels(x="y"): SERIES}, None),
        ({(): ((AT, 0.0),)}, None),
        ({}, Reason.NO_DATA),
        ({(): SERIES, labels(x="y"): SERIES}, Reason.CONFLICTING),
        ({(): (*SERIES, (AT + 60, -0.5))}, Reason.CONFLICTING),
        *((SourceError(kind, "no"), Reason.CONFLICTING) for kind in sorted(QUERY_ERROR_KINDS)),
    ],
)
def test_what_an_answer_is_worth(answer: Mapping[Labels, TimeSeries] | SourceError, reason: Reason | None) -> None:
    source = PromqlAnswers(answer)
    found = read_demand_signals(source, POOLS.pools, AT + 17, POOLS.evaluation)
    assert set(found) == {"web"}
    assert (found["web"].promql, found["web"].reason) == ("sum(waiting)", reason)
    assert found["web"].series == (next(iter(answer.values())) if reason is None else ())  # type: ignore[union-attr]
    assert bool(found["web"].message) is (reason is not None)
    assert source.asked == [("sum(waiting)", *step_bounds(AT + 17, POOLS.evaluation), POOLS.evaluation.step_seconds)]


@pytest.mark.parametrize("kind", sorted(set(SourceErrorKind) - QUERY_ERROR_KINDS))
def test_a_source_that_fails_fails_all(kind: SourceErrorKind) -> None:
    with pytest.raises(SourceError):
        read_demand_signals(PromqlAnswers(SourceError(kind, "no")), POOLS.pools, AT, POOLS.evaluation)


def test_a_source_without_promql_has_no_signals() -> None:
    found = read_demand_signals(FakeSource([]), POOLS.pools, AT, POOLS.evaluation)
    assert found["web"].reason is Reason.UNSUPPORTED


# Recorded demand


def test_a_pool_to_replay_is_a_serving_one() -> None:
    assert find_serving_pool(POOLS, "web").name == "web"
    for name in ("batch", "nobody"):
        with pytest.raises(TraceError, match=r"there are web|did you mean web"):
            find_serving_pool(POOLS, name)
    with pytest.raises(TraceError, match="none"):
        find_serving_pool(Settings(), "web")


def recorded(points: Mapping[int, float], since: int, interval: int = 60, at: float = AT) -> list[float | None]:
    """Demand of two GPUs, both with these utilizations by minutes before AT."""
    trail = tuple((AT - 60 * ago, value) for ago, value in sorted(points.items(), reverse=True))
    source = FakeSource([ExporterTarget("a:1", [GpuSpec(f"GPU-{i}", 0.5, node="a", trail=trail) for i in range(2)])])
    trace = read_recorded_demand(source, POOLS, POOLS.pools[0], since, interval, at)
    assert trace.interval_seconds == interval
    return list(trace.demand)


@pytest.mark.parametrize(
    ("points", "since", "demand"),
    [
        ({2: 0.2, 1: 0.4, 0: 0.6}, 180, [0.2, 0.4, 0.6]),  # replicas of two GPUs
        ({2: 0.2, 1: 0.4, 0: 0.6}, 120, [0.4, 0.6]),
        ({2: 0.2, 1: 0.4, 0: 0.6}, 600, [0.2, 0.4, 0.6]),  # before the first one nothing was recorded
        ({3: 0.2, 0: 0.6}, 600, [0.2, None, None, 0.6]),
        ({3: 0.2, 2: 0.4}, 600, [0.2, 0.4, None, None]),
        ({1: 0.0}, 600, [0.0, None]),
    ],
)
def test_recorded_steps_from_the_first_one_on(
    points: Mapping[int, float], since: int, demand: list[float | None]
) -> None:
    assert recorded(points, since) == [None if each is None else pytest.approx(each) for each in demand]
    assert recorded(points, since, at=AT + 59) == recorded(points, since)


def test_without_a_recorded_step_there_is_no_trace() -> None:
    with pytest.raises(TraceError, match="web"):
        recorded({9: 0.5}, 300)
    assert recorded({4: 0.5}, 300) == [0.5, None, None, None, None]
