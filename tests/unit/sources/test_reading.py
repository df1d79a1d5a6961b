"""Many signals in few queries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from gpu_advisor.observation.compile import compile_signals
from gpu_advisor.observation.evaluate import DOWN_TARGET_LOOKBACK_SECONDS, HistoryCaches, evaluate
from gpu_advisor.promql.expressions import (
    Affine,
    Aggregate,
    Expression,
    Labels,
    Ratio,
    Selector,
    TimeSeries,
    Union,
    Vector,
    selectors_of,
)
from gpu_advisor.settings import PoolSettings, Settings
from gpu_advisor.sources import algebra
from gpu_advisor.sources.base import SamplesByLabels
from gpu_advisor.sources.exporters.dialect import ExporterDialect
from gpu_advisor.sources.exporters.mapping_files import mappings
from gpu_advisor.sources.matchers import compile_matchers
from gpu_advisor.sources.prometheus.combined_queries import INDEX_LABEL
from gpu_advisor.sources.query_plan import MAX_INSTANT_QUERIES, MAX_WINDOW_QUERIES, leaves_of, plan_queries
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.advisor.builders import AT, ExporterTarget, FakeSource, GpuSpec


class RecordingSource(FakeSource):
    """A FakeSource that keeps each query that it was sent."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.asked: list[Expression] = []

    def instant(self, expressions: Mapping[str, Expression], at: float) -> Mapping[str, Vector]:
        self.asked += expressions.values()
        return super().instant(expressions, at)

    def range(self, expression: Expression, start: float, end: float, step: float) -> Mapping[Labels, TimeSeries]:
        self.asked.append(expression)
        return super().range(expression, start, end, step)

    def samples(self, selectors: Mapping[str, Selector], at: float) -> Mapping[str, SamplesByLabels]:
        self.asked += selectors.values()
        return super().samples(selectors, at)


def fleet(nodes: int, silent: bool = False) -> list[ExporterTarget]:
    targets = [
        ExporterTarget(f"n{n}:1", [GpuSpec(f"GPU-{n}-{i}", 0.3, node=f"n{n}", index=str(i)) for i in range(8)])
        for n in range(nodes)
    ]
    targets[0].up = not silent
    return targets


@pytest.mark.parametrize("silent", [False, True])
def test_the_number_of_queries_does_not_depend_on_the_fleet(silent: bool) -> None:
    settings = Settings(pools=[PoolSettings(name="s", kind="serving")])
    counted = set()
    for nodes in (2, 30):
        source = RecordingSource(fleet(nodes, silent), settings)
        evaluation = evaluate(source, settings, AT)
        assert len(evaluation.facts.gpus) == 8 * (nodes - silent)  # nobody was seen before the silence
        assert evaluation.queries == len(source.asked)
        counted.add(evaluation.queries)
    [queries] = counted
    assert queries <= 25


@pytest.mark.parametrize(("down", "looked_for"), [("gpu", True), ("web", False)])
def test_former_gpus_are_looked_for_in_jobs_with_a_target_down(down: str, looked_for: bool) -> None:
    """All GPUs of a fleet would be read three times for one web server that is down."""
    targets = [*fleet(2), ExporterTarget("w:80", job="web"), ExporterTarget("v:80", job="web")]
    next(each for each in targets if each.job == down).up = False
    source = RecordingSource(targets)
    evaluation = evaluate(source, Settings(), AT)
    former = [each for query in source.asked for each in selectors_of(query) if each.metric == "gpu_info"][2:]
    assert len(former) >= len(DOWN_TARGET_LOOKBACK_SECONDS)
    for each in former:
        is_read = compile_matchers(each.matchers)
        assert is_read({"job": "gpu"}) is looked_for
        assert is_read({"job": "web"})
        assert is_read({})
    assert len(evaluation.facts.gpus) == (8 if looked_for else 16)


def test_each_piece_of_a_range_counts() -> None:
    settings = Settings(pools=[PoolSettings(name="s", kind="serving")])
    source, caches, counted = RecordingSource(fleet(2), settings), HistoryCaches(), []
    for at in (AT, AT, AT + 60):
        source.asked.clear()
        evaluation = evaluate(source, settings, at, caches)
        assert evaluation.queries == len(source.asked)
        counted.append(evaluation.queries)
    first, same, later = counted
    assert first > same <= later <= 25


def reads_window(leaf: Expression) -> bool:
    return any(select.window_seconds for select in selectors_of(leaf))


def test_the_budget_holds_for_all_mappings_at_once() -> None:
    settings = Settings()
    every = plan_queries(compile_signals([ExporterDialect(mapping, (), 15.0) for mapping in mappings()], settings))
    assert len(every.combined) <= MAX_WINDOW_QUERIES + MAX_INSTANT_QUERIES
    assert sum(any(map(reads_window, query)) for query in every.combined) <= MAX_WINDOW_QUERIES


def test_what_several_signals_read_is_read_once() -> None:
    busy, seen = (Aggregate("sum", ("uuid",), Selector(name, "rate", 300)) for name in ("busy", "seen"))
    total = Aggregate("max", ("uuid",), Selector("total"))
    found = plan_queries(
        {"share": Ratio(busy, seen), "coverage": seen, "rest": Affine(Ratio(busy, seen), -1, 1), "total": total}
    )
    assert [set(pack) for pack in found.combined] == [{busy, seen}, {total}]
    assert [sum(map(reads_window, query)) for query in found.combined] == [2, 0]


def test_a_union_is_one_leaf_where_the_server_can_do_it() -> None:
    plain = Union((Aggregate("max", ("uuid",), Selector("a")), Aggregate("max", ("uuid",), Selector("b"))))
    assert list(leaves_of(plain)) == [plain]
    mixed = Union((Ratio(Selector("a"), Selector("b")), Selector("c")))
    assert list(leaves_of(mixed)) == [Selector("a"), Selector("b"), Selector("c")]


VALUES: dict[str, algebra.MutableVector] = {
    name: {(("uuid", str(n)),): value * n for n in range(4)} for name, value in (("a", 1.0), ("b", 2.5), ("c", -3.0))
}


class TableSource:
    """A source that has a table of series."""

    name = address = "table"

    def instant(self, expressions: Mapping[str, Expression], at: float) -> Mapping[str, Vector]:
        return {key: algebra.evaluate_expression(expression, selectors_in) for key, expression in expressions.items()}

    def range(
        self, expression: Expression, start: float, end: float, step: float
    ) -> Mapping[Labels, tuple[tuple[float, float], ...]]:
        return {}

    def samples(self, selectors: Mapping[str, Selector], at: float) -> Mapping[str, SamplesByLabels]:
        return {}

    def close(self) -> None: ...


def selectors_in(expression: Expression) -> algebra.MutableVector | None:
    return VALUES.get(expression.metric, {}) if isinstance(expression, Selector) else None


def expressions() -> st.SearchStrategy[Expression]:
    leaf = st.sampled_from([Selector("a"), Selector("b"), Selector("c", "mean", 60), Selector("d")])
    return st.recursive(
        leaf,
        lambda inner: st.one_of(
            st.builds(Ratio, inner, inner),
            st.builds(Affine, inner, st.sampled_from([0.01, -1.0]), st.sampled_from([0.0, 1.0])),
            st.builds(Aggregate, st.sampled_from(["max", "sum"]), st.just(("uuid",)), inner),
            st.lists(inner, min_size=1, max_size=3).map(lambda parts: Union(tuple(parts))),
        ),
        max_leaves=8,
    )


@given(st.dictionaries(st.text(max_size=3), expressions(), max_size=12), st.integers(1, 9))
def test_packing_changes_no_number(asked: dict[str, Expression], leaves_in_a_pack: int) -> None:
    wanted = {key: algebra.evaluate_expression(expression, selectors_in) for key, expression in asked.items()}
    found = plan_queries(asked, leaves_in_a_pack).read(TableSource(), AT)
    assert found == wanted
    assert all(name != INDEX_LABEL for vector in found.values() for labels in vector for name, _ in labels)


def test_a_union_of_what_is_read_anyway_is_split() -> None:
    """Coverage reads the samples of GPUs; their number is that of GPUs, or of MIG slices."""
    gpus, slices, others = (Selector(metric, "count", 60) for metric in ("gpus", "slices", "others"))
    plan = plan_queries({"coverage": gpus, "samples": Union((gpus, slices)), "others": Union((others, slices))})
    [leaves] = plan.combined
    assert leaves == (gpus, slices, Union((others, slices)))
