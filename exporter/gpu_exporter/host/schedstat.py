"""Time that tasks ran and waited on each CPU.

Kernel document: Documentation/scheduler/sched-stats.rst.
"""

from __future__ import annotations

from gpu_exporter.host.base import HostSettings
from gpu_exporter.host.kernel_files import parse_unsigned, read_file, samples_by_column
from gpu_exporter.metrics import FamilySamples, MetricFamily

RUNNING = MetricFamily(
    "node_schedstat_running_seconds_total", "counter", "Time that tasks ran on the CPU.", ("cpu",)
)  # fmt: skip
WAITING = MetricFamily(
    "node_schedstat_waiting_seconds_total", "counter", "Time that tasks waited for the CPU.", ("cpu",)
)
TIMESLICES = MetricFamily("node_schedstat_timeslices_total", "counter", "Time slices run on the CPU.", ("cpu",))
#: The last three of the nine fields after the CPU's name.
FIELDS = slice(7, 10)
SECONDS_PER_NANOSECOND = 1e-9


class SchedstatCollector:
    def __init__(self, settings: HostSettings) -> None:
        self._path = f"{settings.procfs}/schedstat"

    def collect(self) -> list[FamilySamples]:
        """Counters by CPU; empty on kernels without scheduler statistics. Raises ValueError."""
        try:
            lines = read_file(self._path).split(b"\n")
        except FileNotFoundError:
            return []
        rows: dict[tuple[str, ...], tuple[float, float, float]] = {}
        for line in lines:
            fields = line.split()
            if len(fields) < FIELDS.stop or not fields[0].startswith(b"cpu") or not fields[0][3:].isdigit():
                continue
            running, waiting, slices = map(parse_unsigned, fields[FIELDS])
            nanosecond = SECONDS_PER_NANOSECOND
            rows[(fields[0][3:].decode(),)] = (running * nanosecond, waiting * nanosecond, slices)
        return samples_by_column((RUNNING, WAITING, TIMESLICES), rows)
