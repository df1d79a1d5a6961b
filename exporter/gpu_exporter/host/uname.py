"""Kernel, architecture and name of the node."""

from __future__ import annotations

import os

from gpu_exporter.host.base import HostSettings
from gpu_exporter.host.kernel_files import label_value, read_file
from gpu_exporter.metrics import FamilySamples, MetricFamily

INFO = MetricFamily(
    "node_uname_info",
    "gauge",
    "System information of the node as returned by uname, always 1.",
    ("sysname", "release", "version", "machine", "nodename", "domainname"),
)


class UnameCollector:
    def __init__(self, settings: HostSettings) -> None:
        # Python's uname lacks the NIS domain.
        self._nodename = settings.nodename
        self._domainname_path = f"{settings.procfs}/sys/kernel/domainname"

    def collect(self) -> list[FamilySamples]:
        """One sample; the domain name is empty if it cannot be read. Raises OSError."""
        name = os.uname()
        labels = (
            name.sysname,
            name.release,
            name.version,
            name.machine,
            self._nodename or name.nodename,
            self._domain(),
        )
        return [FamilySamples(INFO, ((tuple(label_value(os.fsencode(text)) for text in labels), 1),))]

    def _domain(self) -> str:
        try:
            return os.fsdecode(read_file(self._domainname_path).strip())
        except OSError:
            return ""
