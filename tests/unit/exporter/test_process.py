"""process_*: the exporter's own process."""

from __future__ import annotations

import os
import resource
import time

import pytest
from gpu_exporter.process import ProcessCollector


def test_values_of_this_process() -> None:
    before = time.time()
    found = {samples.family.name: samples.rows[0][1] for samples in ProcessCollector().collect()}
    assert found["process_resident_memory_bytes"] == pytest.approx(
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, rel=0.9
    )
    assert found["process_virtual_memory_bytes"] > found["process_resident_memory_bytes"]
    assert found["process_max_fds"] == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert found["process_start_time_seconds"] == pytest.approx(before, abs=60)
    assert 0 < found["process_cpu_seconds_total"] <= sum(os.times()[:2])
    opened = open(os.devnull)  # noqa: SIM115
    after = {samples.family.name: samples.rows[0][1] for samples in ProcessCollector().collect()}
    opened.close()
    assert after["process_open_fds"] == found["process_open_fds"] + 1
