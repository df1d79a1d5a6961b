"""Which series a report's numbers are read from, by the length of its steps."""

from __future__ import annotations

import pytest
from gpu_advisor.promql.compiler import to_promql
from gpu_advisor.promql.expressions import metrics_of
from gpu_advisor.report import series
from gpu_advisor.report.series import COVERAGE, CPU, IDLE_COVERAGE, IDLE_UTILIZATION, MEMORY, UTILIZATION
from gpu_advisor.sources.exporters.dialect import ExporterDialect
from gpu_advisor.sources.exporters.mapping_files import mappings

NAMED = {mapping.name: mapping for mapping in mappings()}
OWN, CPU_DIALECT = (
    ExporterDialect(NAMED["gpu-exporter"]),
    next(ExporterDialect(mapping) for mapping in mappings() if mapping.scope == "node"),
)
DCGM = ExporterDialect(NAMED["dcgm-exporter"], interval_seconds=30.0)


@pytest.mark.parametrize(("step", "idle"), [(300, True), (1799, True), (1800, False), (3600, False)])
def test_idleness_is_read_apart_where_a_step_is_shorter_than_half_an_hour(step: int, idle: bool) -> None:
    parts = series.gpu_parts(step)
    assert ({IDLE_UTILIZATION, IDLE_COVERAGE} <= {*parts}) is idle
    assert {UTILIZATION, COVERAGE, MEMORY} <= {*parts}
    assert set(series.recorded(step)) == {*parts}


@pytest.mark.parametrize(
    ("step", "utilization", "memory"),
    [
        (300, "gpu:utilization_ratio:mean5m", "avg_over_time(gpu:memory_used_ratio:last[5m])"),
        (1800, "gpu:utilization_ratio:mean30m", "avg_over_time(gpu:memory_used_ratio:last[30m])"),
        (3599, "gpu:utilization_ratio:mean30m", "avg_over_time(gpu:memory_used_ratio:last[3599s])"),
        (3600, "avg_over_time(gpu:utilization_ratio:mean1h[1h])", "avg_over_time(gpu:memory_used_ratio:mean1h[1h])"),
        (21600, "avg_over_time(gpu:utilization_ratio:mean1h[6h])", "avg_over_time(gpu:memory_used_ratio:mean1h[6h])"),
    ],
)
def test_the_recorded_series_nearest_to_the_step(step: int, utilization: str, memory: str) -> None:
    found = series.recorded(step)
    assert (to_promql(found[UTILIZATION]), to_promql(found[MEMORY])) == (utilization, memory)
    if step == 300:  # a GPU that has a mean was observed
        assert to_promql(found[COVERAGE]) == "0 * gpu:utilization_ratio:mean5m + 1"
        assert to_promql(found[IDLE_COVERAGE]) == "gpu:utilization_coverage_ratio:mean30m"
    assert to_promql(series.recorded_cpu_expression(step)).startswith("avg_over_time(node:cpu_ratio:mean5m[")


@pytest.mark.parametrize(
    ("interval", "part", "step", "window"),
    [
        (None, UTILIZATION, 300, "5m"),
        (60.0, UTILIZATION, 300, "5m"),
        (200.0, UTILIZATION, 300, "500s"),  # two scrapes at least
        (0.5, UTILIZATION, 300, "5m"),
        (None, IDLE_UTILIZATION, 300, "30m"),
        (None, IDLE_COVERAGE, 300, "30m"),
        (900.0, IDLE_UTILIZATION, 300, "2250s"),
        (None, MEMORY, 7200, "2h"),
    ],
)
def test_windows_of_the_exporters_own_series(interval: float | None, part: str, step: int, window: str) -> None:
    dialect = ExporterDialect(OWN.mapping, interval_seconds=interval)
    assert f"[{window}]" in to_promql(series.raw([part], [dialect], "gpu", step)[part])


def test_parts_are_of_their_scope_and_only_those_that_an_exporter_gives() -> None:
    found = series.raw([UTILIZATION, CPU], [OWN, CPU_DIALECT, DCGM], "gpu", 3600)
    assert list(found) == [UTILIZATION]
    assert metrics_of(found[UTILIZATION]) > metrics_of(series.raw([UTILIZATION], [OWN], "gpu", 3600)[UTILIZATION])
    assert list(series.raw([CPU], [OWN, CPU_DIALECT], "node", 3600)) == [CPU]
    assert series.raw([CPU], [OWN], "gpu", 3600) == {}


def test_without_a_coverage_a_value_counts_as_observed() -> None:
    """A gauge's coverage needs its scrape interval."""
    known = series.raw([COVERAGE], [DCGM], "gpu", 3600)[COVERAGE]
    unknown = series.raw([COVERAGE], [ExporterDialect(DCGM.mapping)], "gpu", 3600)[COVERAGE]
    assert "count_over_time" in to_promql(known)
    assert "0 * " in to_promql(unknown)
    assert "+ 1" in to_promql(unknown)
