"""The page benchmark runs; its figures are checked by `make bench-page`."""

from __future__ import annotations

from benchmarks.page import KINDS, SMOKE, goals, measure


def test_the_benchmark_runs() -> None:
    results = measure(SMOKE)
    assert set(results["answers"]) >= set(KINDS)
    assert all(figure > 0 for answer in results["answers"].values() for figure in answer.values())
    assert all(size > 10_000 for size in results["bytes"].values())
    assert len(goals(results)) == 4
