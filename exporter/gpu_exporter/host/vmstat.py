"""Paging, page faults and out-of-memory kills.

Of the kernel's fields these are the ones that node_exporter exports by default (collector/vmstat_linux.go).
"""

from __future__ import annotations

from gpu_exporter.host.base import HostSettings
from gpu_exporter.host.kernel_files import parse_unsigned, read_file
from gpu_exporter.metrics import FamilySamples, MetricFamily, single_sample


def _vmstat_family(name: str, help_: str) -> MetricFamily:
    """node_exporter leaves the type open; all of these count up."""
    return MetricFamily(f"node_vmstat_{name}", "untyped", help_)


#: By the first word of the line.
FAMILIES = {
    b"pgpgin": _vmstat_family("pgpgin", "Data read from disks, in KiB."),
    b"pgpgout": _vmstat_family("pgpgout", "Data written to disks, in KiB."),
    b"pswpin": _vmstat_family("pswpin", "Pages swapped in."),
    b"pswpout": _vmstat_family("pswpout", "Pages swapped out."),
    b"pgfault": _vmstat_family("pgfault", "Page faults."),
    b"pgmajfault": _vmstat_family("pgmajfault", "Page faults that had to read from a disk."),
    b"oom_kill": _vmstat_family("oom_kill", "Processes killed because memory was exhausted."),
}


class VmstatCollector:
    def __init__(self, settings: HostSettings) -> None:
        self._path = f"{settings.procfs}/vmstat"

    def collect(self) -> list[FamilySamples]:
        """One sample per field. Raises OSError, or ValueError if no line could be parsed."""
        found = {}
        for line in read_file(self._path).split(b"\n"):
            name, _, value = line.partition(b" ")
            family = FAMILIES.get(name)
            if family and value.isdigit():
                found[family] = single_sample(family, parse_unsigned(value))
        if not found:
            raise ValueError(f"{self._path}: has none of the lines {', '.join(key.decode() for key in FAMILIES)}")
        return list(found.values())
