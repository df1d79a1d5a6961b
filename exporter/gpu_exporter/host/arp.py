"""Entries of the ARP table by network device."""

from __future__ import annotations

from gpu_exporter.host.base import HostSettings
from gpu_exporter.host.kernel_files import DeviceFilter, read_file, samples_by_column
from gpu_exporter.metrics import FamilySamples, MetricFamily

ENTRIES = MetricFamily("node_arp_entries", "gauge", "Entries of the ARP table.", ("device",))
#: Address, hardware type, flags, hardware address, mask, device.
COLUMNS = 6


class ArpCollector:
    def __init__(self, settings: HostSettings) -> None:
        self._path = f"{settings.net}/arp"
        self._devices = DeviceFilter(settings.net_exclude, "net_exclude")

    def collect(self) -> list[FamilySamples]:
        """Counts by device; empty if the table is. Raises OSError."""
        counts: dict[tuple[str, ...], list[float]] = {}
        for line in read_file(self._path).split(b"\n")[1:]:
            fields = line.split()
            labels = self._devices.labels(fields[-1]) if len(fields) == COLUMNS else None
            if labels is not None:
                counts.setdefault(labels, [0.0])[0] += 1
        return samples_by_column((ENTRIES,), counts)
