"""The advisor benchmark runs, and the number of queries does not grow with the fleet; timings: `make bench-advisor`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.advisor import MAX_MIB, MAX_QUERIES, MAX_WINDOWED_QUERIES, FleetResult, goals, measure_size
from tests.servers import require_binary

MINUTES = 5


@pytest.mark.servers
def test_the_number_of_queries_does_not_depend_on_the_number_of_gpus(tmp_path: Path) -> None:
    require_binary("prometheus")
    require_binary("promtool")
    sizes = []
    for gpus in (16, 160):
        folder = tmp_path / str(gpus)
        folder.mkdir()
        sizes.append(measure_size(gpus, folder, rounds=1, seconds=MINUTES * 60, days=1))
    small, large = sizes
    assert large.queries == small.queries <= MAX_QUERIES
    assert large.windowed_queries == small.windowed_queries <= MAX_WINDOWED_QUERIES
    assert large.window_selectors == small.window_selectors
    assert large.advisor_mib < MAX_MIB / 2
    assert large.checks >= 2 * 160


def size(gpus: int, **figures: Any) -> FleetResult:
    usual = {
        "gpus": gpus, "evaluation_seconds": gpus / 4000, "bare_seconds": gpus / 4500, "ratio": 1.1, "queries": 16,
        "windowed_queries": 10, "window_selectors": 48, "advisor_mib": 100.0, "prometheus_peak_mib": 100.0,
        "history_minutes": 60, "advisor_cpu_seconds": 1.0, "prometheus_cpu_seconds": 1.0, "checks": gpus, "advice": 1,
        "one_query_a_gpu_seconds": 1.0,
    }  # fmt: skip
    return FleetResult(**{**usual, **figures})


@pytest.mark.parametrize(
    ("figures", "missed"),
    [
        ({}, []),
        ({"queries": 26}, ["at most 25 queries", "as many whatever"]),
        ({"windowed_queries": 13}, ["over windows"]),
        ({"ratio": 1.31}, ["times the bare"]),
        ({"advisor_mib": 251.0}, ["250 MiB"]),
        ({"evaluation_seconds": 2.9}, ["grows no faster"]),
    ],
)
def test_what_is_missed_is_reported(figures: dict[str, float], missed: list[str]) -> None:
    reported = [goal.text for goal in goals([size(1000), size(10_000, **figures)]) if not goal.met]
    assert len(reported) == len(missed)
    assert all(part in text for part, text in zip(missed, reported, strict=True))
