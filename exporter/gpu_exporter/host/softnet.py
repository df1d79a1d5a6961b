"""Packets that each CPU took from the network cards' queues.

Columns: net/core/net-procfs.c of the kernel, softnet_seq_show().
"""

from __future__ import annotations

from gpu_exporter.host.base import HostSettings
from gpu_exporter.host.kernel_files import parse_hex, read_file, samples_by_column
from gpu_exporter.metrics import FamilySamples, MetricFamily, MetricType


def _softnet_family(name: str, type_: MetricType, help_: str) -> MetricFamily:
    return MetricFamily(f"node_softnet_{name}", type_, help_, ("cpu",))


PROCESSED = _softnet_family("processed_total", "counter", "Packets processed.")
DROPPED = _softnet_family("dropped_total", "counter", "Packets dropped because the CPU's queue was full.")
SQUEEZED = _softnet_family(
    "times_squeezed_total",
    "counter",
    "Times that processing stopped with work left: the time or the budget was used up.",
)
COLLISIONS = _softnet_family(
    "cpu_collision_total", "counter", "Collisions on the lock of a sending device; always 0 on new kernels."
)
RPS = _softnet_family("received_rps_total", "counter", "Times that the CPU was woken to process another CPU's packets.")
FLOW_LIMIT = _softnet_family("flow_limit_count_total", "counter", "Times that the flow limit was reached.")
BACKLOG = _softnet_family("backlog_len", "gauge", "Packets in the CPU's queues.")

#: Column of the file -> family. Old kernels have fewer columns.
COLUMNS = {0: PROCESSED, 1: DROPPED, 2: SQUEEZED, 8: COLLISIONS, 9: RPS, 10: FLOW_LIMIT, 11: BACKLOG}
#: The number of the CPU, on new kernels: those that are offline have no line.
CPU_COLUMN = 12
MIN_COLUMNS = 3


class SoftnetCollector:
    def __init__(self, settings: HostSettings) -> None:
        self._path = f"{settings.net}/softnet_stat"

    def collect(self) -> list[FamilySamples]:
        """Counters by CPU. Raises OSError, or ValueError if no line could be parsed."""
        rows: dict[tuple[str, ...], list[float | None]] = {}
        for number, line in enumerate(read_file(self._path).splitlines()):
            try:
                fields = list(map(parse_hex, line.split()))
            except ValueError:
                continue
            if len(fields) < MIN_COLUMNS:
                continue
            cpu = int(fields[CPU_COLUMN]) if len(fields) > CPU_COLUMN else number
            rows[(str(cpu),)] = [fields[column] if column < len(fields) else None for column in COLUMNS]
        if not rows:
            raise ValueError(f"{self._path}: no line could be parsed")
        return samples_by_column(tuple(COLUMNS.values()), rows)
