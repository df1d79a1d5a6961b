"""Kernel statistics: boot time, context switches, interrupts, forks, running and blocked tasks."""

from __future__ import annotations

from gpu_exporter.host.base import HostSettings
from gpu_exporter.host.kernel_files import parse_unsigned, read_file
from gpu_exporter.metrics import FamilySamples, MetricFamily, single_sample

#: By the first word of the line.
FAMILIES = {
    b"btime": MetricFamily("node_boot_time_seconds", "gauge", "Boot time of the node."),
    b"ctxt": MetricFamily("node_context_switches_total", "counter", "Context switches."),
    b"intr": MetricFamily("node_intr_total", "counter", "Interrupts serviced."),
    b"processes": MetricFamily("node_forks_total", "counter", "Processes and threads created."),
    b"procs_running": MetricFamily("node_procs_running", "gauge", "Tasks that run or wait for a CPU."),
    b"procs_blocked": MetricFamily("node_procs_blocked", "gauge", "Tasks blocked on I/O."),
}


class StatCollector:
    def __init__(self, settings: HostSettings) -> None:
        self._path = f"{settings.procfs}/stat"

    def collect(self) -> list[FamilySamples]:
        """One sample per family. Raises OSError, or ValueError if no line could be parsed."""
        found: dict[MetricFamily, FamilySamples] = {}
        for line in read_file(self._path).split(b"\n"):
            word, _, rest = line.partition(b" ")
            family = FAMILIES.get(word)
            if family is None:
                continue
            try:
                # The intr line continues with a count per source: only the sum is used.
                found[family] = single_sample(family, parse_unsigned(rest.partition(b" ")[0]))
            except ValueError:
                continue
        if not found:
            raise ValueError(f"{self._path}: has none of the lines {', '.join(key.decode() for key in FAMILIES)}")
        return list(found.values())
