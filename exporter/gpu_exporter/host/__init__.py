"""The host collectors, under node_exporter's names."""

from __future__ import annotations

from collections.abc import Callable

from gpu_exporter.host.base import HostCollector, HostSettings
from gpu_exporter.host.cpu import CpuCollector
from gpu_exporter.host.diskstats import DiskstatsCollector
from gpu_exporter.host.filesystem import FilesystemCollector
from gpu_exporter.host.infiniband import InfinibandCollector
from gpu_exporter.host.loadavg import LoadavgCollector
from gpu_exporter.host.meminfo import MeminfoCollector
from gpu_exporter.host.netclass import NetclassCollector
from gpu_exporter.host.netdev import NetdevCollector
from gpu_exporter.host.pressure import PressureCollector
from gpu_exporter.host.stat import StatCollector
from gpu_exporter.host.uname import UnameCollector

COLLECTORS: dict[str, Callable[[HostSettings], HostCollector]] = {
    "cpu": CpuCollector,
    "diskstats": DiskstatsCollector,
    "filesystem": FilesystemCollector,
    "infiniband": InfinibandCollector,
    "loadavg": LoadavgCollector,
    "meminfo": MeminfoCollector,
    "netclass": NetclassCollector,
    "netdev": NetdevCollector,
    "pressure": PressureCollector,
    "stat": StatCollector,
    "uname": UnameCollector,
}

#: Minimum intervals of collectors that are expensive and whose values rarely change.
MIN_INTERVAL_SECONDS: dict[str, float] = {"filesystem": 5.0, "netclass": 5.0, "uname": 60.0}
