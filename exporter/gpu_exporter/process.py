"""The exporter's own process, under the names that all Prometheus clients use.

https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics
"""

from __future__ import annotations

import os
import time

from gpu_exporter.metrics import FamilySamples, MetricFamily, single_sample

CPU_SECONDS = MetricFamily("process_cpu_seconds_total", "counter", "CPU time of the exporter, user and system.")
RESIDENT_MEMORY = MetricFamily("process_resident_memory_bytes", "gauge", "Resident memory of the exporter.")
VIRTUAL_MEMORY = MetricFamily("process_virtual_memory_bytes", "gauge", "Virtual memory of the exporter.")
VIRTUAL_MEMORY_MAX = MetricFamily(
    "process_virtual_memory_max_bytes", "gauge", "Limit of the exporter's virtual memory, -1 if there is none."
)
OPEN_FILES = MetricFamily("process_open_fds", "gauge", "Open file descriptors of the exporter.")
MAX_FILES = MetricFamily("process_max_fds", "gauge", "Limit of the exporter's open file descriptors.")
START_TIME = MetricFamily("process_start_time_seconds", "gauge", "Start of the exporter, as Unix time.")

UNLIMITED = -1.0


class ProcessCollector:
    """Reads its own /proc, not the host's: in a container the numbers of processes differ."""

    def __init__(self, folder: str = "/proc/self") -> None:
        self._folder = folder
        self._started_at = time.time()

    def collect(self) -> list[FamilySamples]:
        """One sample per family. Raises OSError or ValueError."""
        import resource  # not on Windows

        with open(f"{self._folder}/statm", "rb", buffering=0) as file:
            virtual, resident = map(int, file.read().split()[:2])
        used = os.times()
        soft_memory, _ = resource.getrlimit(resource.RLIMIT_AS)
        soft_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        values = (
            (CPU_SECONDS, used.user + used.system),
            (RESIDENT_MEMORY, resident * resource.getpagesize()),
            (VIRTUAL_MEMORY, virtual * resource.getpagesize()),
            (VIRTUAL_MEMORY_MAX, UNLIMITED if soft_memory == resource.RLIM_INFINITY else soft_memory),
            (OPEN_FILES, len(os.listdir(f"{self._folder}/fd")) - 1),  # without the one that lists them
            (MAX_FILES, soft_files),
            (START_TIME, self._started_at),
        )
        return [single_sample(family, float(value)) for family, value in values]


class PortableProcessCollector:
    """The same through psutil, as far as it knows."""

    def collect(self) -> list[FamilySamples]:
        """One sample per family. Raises ImportError or psutil.Error."""
        import psutil

        process = psutil.Process()
        used, memory = process.cpu_times(), process.memory_info()
        values = (
            (CPU_SECONDS, used.user + used.system),
            (RESIDENT_MEMORY, memory.rss),
            (VIRTUAL_MEMORY, memory.vms),
            (OPEN_FILES, process.num_fds() if hasattr(process, "num_fds") else None),  # not on Windows
            (START_TIME, process.create_time()),
        )
        return [single_sample(family, float(value)) for family, value in values if value is not None]
