"""The exporter benchmark runs; its results are checked by `make bench-exporter`."""

from __future__ import annotations

import os

import pytest

from benchmarks.exporter import NODE, NVITOP, OURS, MeasurementPlan, PeerMissingError, measure, ratios, servers
from tests.simulated_nvml.build import NoCompilerError

PLAN = MeasurementPlan(rounds=1, scrapes=2, spaced=0, scrapers=2, scrapes_per_scraper=2, idle_seconds=0.1, warmup=1)


@pytest.mark.servers
def test_the_benchmark_runs(tmp_path):
    try:
        with servers(tmp_path) as running:
            figures = measure(running, PLAN)
    except (PeerMissingError, NoCompilerError) as error:
        if os.environ.get("GPU_ADVISOR_REQUIRE_SERVERS") == "1":
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))
    nvitop, node = ratios(figures, NVITOP), ratios(figures, NODE)
    for kind in ("kept_p50_seconds", "fresh_p50_seconds", "plain_p50_seconds"):
        assert nvitop[kind] > 0
        assert node[kind] > 0
    assert figures[OURS]["concurrent_failures"] == 0
    assert figures[OURS]["gpu_families"] >= figures[NVITOP]["gpu_families"]
