"""What the kernel counts as a whole: boot time, context switches, interrupts, forks, running and blocked tasks."""

from __future__ import annotations

from gpu_exporter.host.base import HostSettings
from gpu_exporter.host.files import read, unsigned
from gpu_exporter.metrics import Family, Samples, one

BOOT_TIME = Family("node_boot_time_seconds", "gauge", "When the node was booted, in seconds since 1970.")
CONTEXT_SWITCHES = Family("node_context_switches_total", "counter", "Context switches since boot.")
INTERRUPTS = Family("node_intr_total", "counter", "Interrupts serviced since boot.")
FORKS = Family("node_forks_total", "counter", "Processes and threads created since boot.")
RUNNING = Family("node_procs_running", "gauge", "Tasks that run or wait for a CPU.")
BLOCKED = Family("node_procs_blocked", "gauge", "Tasks that wait for input or output to finish.")

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

    def collect(self) -> list[Samples]:
        """One sample a family. Raises OSError, or ValueError if no line could be understood."""
        found: dict[Family, Samples] = {}
        for line in read(self._path).split(b"\n"):
            word, _, rest = line.partition(b" ")
            family = FAMILIES.get(word)
            if family is None:
                continue
            try:
                # The interrupts' line goes on with a count for each source: only the sum is wanted.
                found[family] = one(family, unsigned(rest.partition(b" ")[0]))
            except ValueError:
                continue
        if not found:
            raise ValueError(f"{self._path}: has none of the lines {', '.join(key.decode() for key in FAMILIES)}")
        return list(found.values())
