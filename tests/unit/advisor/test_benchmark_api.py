"""The API benchmark runs; its figures are checked by `make bench-api`."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.api import SMOKE, goals, measure


def test_the_benchmark_runs() -> None:
    results = measure(replace(SMOKE, clients=2, requests=2, rounds=1))
    assert set(results["answers"]) == {"page of 100", "static file", "static, same bytes"}
    assert all(figure > 0 for answer in results["answers"].values() for figure in answer.values())
    assert results["page_bytes"] > 100_000
    assert len(goals(results)) == 2
