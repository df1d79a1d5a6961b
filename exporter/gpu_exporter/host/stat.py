"""Kernel statistics: boot time, context switches, interrupts, forks, running and blocked tasks."""

from __future__ import annotations

from gpu_exporter.host.base import HostSettings
from gpu_exporter.host.kernel_files import parse_unsigned, read_file
from gpu_exporter.metrics import FamilySamples, MetricFamily, single_sample

BOOT_TIME = MetricFamily("node_boot_time_seconds", "gauge", "Boot time of the node.")
CONTEXT_SWITCHES = MetricFamily("node_context_switches_total", "counter", "Context switches.")
INTERRUPTS = MetricFamily("node_intr_total", "counter", "Interrupts serviced.")
FORKS = MetricFamily("node_forks_total", "counter", "Processes and threads created.")
RUNNING = MetricFamily("node_procs_running", "gauge", "Tasks that run or wait for a CPU.")
BLOCKED = MetricFamily("node_procs_blocked", "gauge", "Tasks blocked on I/O.")

#: By the first word of the line.
FAMILIES = {
    b"btime": BOOT_TIME,
    b"ctxt": CONTEXT_SWITCHES,
    b"intr": INTERRUPTS,
    b"processes": FORKS,
    b"procs_running": RUNNING,
    b"procs_blocked": BLOCKED,
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
