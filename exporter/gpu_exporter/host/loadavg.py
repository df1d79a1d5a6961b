"""Load averages: how many tasks run, wait for a CPU or wait for a disk, averaged over 1, 5 and 15 minutes."""

from __future__ import annotations

import math

from gpu_exporter.host.base import HostSettings
from gpu_exporter.host.files import read
from gpu_exporter.metrics import Family, Samples, one

LOAD1 = Family("node_load1", "gauge", "Load average over 1 minute.")
LOAD5 = Family("node_load5", "gauge", "Load average over 5 minutes.")
LOAD15 = Family("node_load15", "gauge", "Load average over 15 minutes.")


class LoadavgCollector:
    def __init__(self, settings: HostSettings) -> None:
        self._path = f"{settings.procfs}/loadavg"

    def collect(self) -> list[Samples]:
        """Three gauges, in tasks. Raises OSError or ValueError."""
        try:
            load1, load5, load15 = map(_load, read(self._path).split()[:3])
        except ValueError as error:
            raise ValueError(f"{self._path}: does not start with three load averages: {error}") from error
        return [one(LOAD1, load1), one(LOAD5, load5), one(LOAD15, load15)]


def _load(text: bytes) -> float:
    load = float(text)
    if not 0 <= load < math.inf:
        raise ValueError(f"{text!r} is not a load average")
    return load
