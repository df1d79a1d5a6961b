"""Packets that each CPU took from the network cards' queues.

Columns: net/core/net-procfs.c of the kernel, softnet_seq_show().
"""

from __future__ import annotations

from gpu_exporter.host.base import HostSettings
from gpu_exporter.host.kernel_files import parse_hex, read_file, samples_by_column
from gpu_exporter.metrics import FamilySamples, MetricFamily, MetricType


def _softnet_family(name: str, help_: str, type_: MetricType = "counter") -> MetricFamily:
    return MetricFamily(f"node_softnet_{name}", type_, help_, ("cpu",))


#: By the column of the file. Old kernels have fewer columns.
COLUMNS = {
    0: _softnet_family("processed_total", "Packets processed."),
    1: _softnet_family("dropped_total", "Packets dropped because the CPU's queue was full."),
    2: _softnet_family(
        "times_squeezed_total", "Times that processing stopped with work left: the time or the budget was used up."
    ),
    8: _softnet_family("cpu_collision_total", "Collisions on the lock of a sending device; always 0 on new kernels."),
    9: _softnet_family("received_rps_total", "Times that the CPU was woken to process another CPU's packets."),
    10: _softnet_family("flow_limit_count_total", "Times that the flow limit was reached."),
    11: _softnet_family("backlog_len", "Packets in the CPU's queues.", "gauge"),
}
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
