"""Load averages over 1, 5 and 15 minutes: tasks that run or wait for a CPU or a disk."""

from __future__ import annotations

import math

from gpu_exporter.host.base import HostSettings
from gpu_exporter.host.kernel_files import read_file
from gpu_exporter.metrics import FamilySamples, MetricFamily, single_sample

LOAD1 = MetricFamily("node_load1", "gauge", "Load average over 1 minute.")
LOAD5 = MetricFamily("node_load5", "gauge", "Load average over 5 minutes.")
LOAD15 = MetricFamily("node_load15", "gauge", "Load average over 15 minutes.")


class LoadavgCollector:
    def __init__(self, settings: HostSettings) -> None:
        self._path = f"{settings.procfs}/loadavg"

    def collect(self) -> list[FamilySamples]:
        """Three gauges, in tasks. Raises OSError or ValueError."""
        try:
            load1, load5, load15 = map(_parse_load, read_file(self._path).split()[:3])
        except ValueError as error:
            raise ValueError(f"{self._path}: does not start with three load averages: {error}") from error
        return [single_sample(LOAD1, load1), single_sample(LOAD5, load5), single_sample(LOAD15, load15)]


def _parse_load(text: bytes) -> float:
    load = float(text)
    if not 0 <= load < math.inf:
        raise ValueError(f"{text!r} is not a load average")
    return load
