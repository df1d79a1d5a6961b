"""The host collectors, under node_exporter's names."""

from __future__ import annotations

import sys
from collections.abc import Callable

from gpu_exporter.host.arp import ArpCollector
from gpu_exporter.host.base import HostCollector, HostSettings
from gpu_exporter.host.bonding import BondingCollector
from gpu_exporter.host.clock import TimeCollector
from gpu_exporter.host.cpu import CpuCollector
from gpu_exporter.host.cpufreq import CpufreqCollector
from gpu_exporter.host.diskstats import DiskstatsCollector
from gpu_exporter.host.edac import EdacCollector
from gpu_exporter.host.filesystem import FilesystemCollector
from gpu_exporter.host.hwmon import HwmonCollector
from gpu_exporter.host.infiniband import InfinibandCollector
from gpu_exporter.host.kernel_limits import ConntrackCollector, EntropyCollector, FilefdCollector, KernelHungCollector
from gpu_exporter.host.loadavg import LoadavgCollector
from gpu_exporter.host.mdadm import MdadmCollector
from gpu_exporter.host.meminfo import MeminfoCollector
from gpu_exporter.host.meminfo_numa import MeminfoNumaCollector
from gpu_exporter.host.netclass import NetclassCollector
from gpu_exporter.host.netdev import NetdevCollector
from gpu_exporter.host.netstat import NetstatCollector
from gpu_exporter.host.nvme import NvmeCollector
from gpu_exporter.host.power_supply import PowerSupplyCollector
from gpu_exporter.host.pressure import PressureCollector
from gpu_exporter.host.schedstat import SchedstatCollector
from gpu_exporter.host.sockstat import SockstatCollector
from gpu_exporter.host.softnet import SoftnetCollector
from gpu_exporter.host.stat import StatCollector
from gpu_exporter.host.thermal import ThermalZoneCollector
from gpu_exporter.host.timex import TimexCollector
from gpu_exporter.host.udp_queues import UdpQueuesCollector
from gpu_exporter.host.uname import UnameCollector
from gpu_exporter.host.vmstat import VmstatCollector

#: By node_exporter's name of the collector.
COLLECTORS: dict[str, Callable[[HostSettings], HostCollector]] = {
    "arp": ArpCollector,
    "bonding": BondingCollector,
    "conntrack": ConntrackCollector,
    "cpu": CpuCollector,
    "cpufreq": CpufreqCollector,
    "diskstats": DiskstatsCollector,
    "edac": EdacCollector,
    "entropy": EntropyCollector,
    "filefd": FilefdCollector,
    "filesystem": FilesystemCollector,
    "hwmon": HwmonCollector,
    "infiniband": InfinibandCollector,
    "kernel_hung": KernelHungCollector,
    "loadavg": LoadavgCollector,
    "mdadm": MdadmCollector,
    "meminfo": MeminfoCollector,
    "meminfo_numa": MeminfoNumaCollector,
    "netclass": NetclassCollector,
    "netdev": NetdevCollector,
    "netstat": NetstatCollector,
    "nvme": NvmeCollector,
    "powersupplyclass": PowerSupplyCollector,
    "pressure": PressureCollector,
    "schedstat": SchedstatCollector,
    "sockstat": SockstatCollector,
    "softnet": SoftnetCollector,
    "stat": StatCollector,
    "thermal_zone": ThermalZoneCollector,
    "time": TimeCollector,
    "timex": TimexCollector,
    "udp_queues": UdpQueuesCollector,
    "uname": UnameCollector,
    "vmstat": VmstatCollector,
}

#: Minimum intervals: what the kernel updates less often, changes rarely or is expensive to read. Divisors of a minute,
#: so that scrapes at the usual intervals of 15, 30 and 60 s find values of the same age each time.
MIN_INTERVAL_SECONDS: dict[str, float] = {
    "loadavg": 5.0,  # the kernel's own interval
    "infiniband": 5.0,
    "netstat": 5.0,
    "schedstat": 5.0,
    "sockstat": 5.0,
    "softnet": 5.0,
    "vmstat": 5.0,
    "arp": 15.0,
    "bonding": 15.0,
    "conntrack": 15.0,
    "cpufreq": 15.0,
    "edac": 15.0,
    "entropy": 15.0,
    "filefd": 15.0,
    "filesystem": 15.0,
    "hwmon": 15.0,
    "kernel_hung": 15.0,
    "mdadm": 15.0,
    "meminfo_numa": 15.0,
    "netclass": 15.0,
    "powersupplyclass": 15.0,
    "thermal_zone": 15.0,
    "timex": 15.0,
    "udp_queues": 15.0,
    "nvme": 60.0,
    "time": 60.0,
    "uname": 60.0,
}

#: Collectors that ask hardware, a firmware or a remote server, and may wait for it: each has a thread of its own. The
#: others read the kernel's memory and share one.
MAY_BLOCK = frozenset(
    (
        "bonding", "cpufreq", "edac", "filesystem", "hwmon", "infiniband", "netclass", "nvme", "powersupplyclass",
        "thermal_zone",
    )
)  # fmt: skip


def collectors_of(system: str = sys.platform) -> dict[str, Callable[[HostSettings], HostCollector]]:
    """The host collectors of an operating system, named as in sys.platform: elsewhere than on Linux those of psutil."""
    if system == "linux":
        return COLLECTORS
    from gpu_exporter.host import portable  # needs psutil, which Linux does without

    return portable.COLLECTORS
