"""The host families that psutil knows, for systems without /proc: macOS, Windows, BSD.

Names, labels and units are those of the Linux collectors, so that the same dashboards work. What psutil does not report
on a system is absent. psutil is only a dependency where it is used: on Linux it is not even imported.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterable
from typing import Any

from gpu_exporter.host import cpu, cpufreq, diskstats, filesystem, loadavg, netclass, netdev, stat, uname
from gpu_exporter.host.base import HostCollector, HostSettings
from gpu_exporter.host.clock import TimeCollector
from gpu_exporter.host.kernel_files import DeviceFilter, compile_exclude_pattern, label_value, samples_by_column
from gpu_exporter.metrics import FamilySamples, MetricFamily, single_sample

#: Field of psutil -> mode. Windows calls them interrupt and dpc (deferred procedure calls).
CPU_MODES = {
    "user": "user", "nice": "nice", "system": "system", "idle": "idle", "iowait": "iowait", "irq": "irq",
    "softirq": "softirq", "steal": "steal", "interrupt": "irq", "dpc": "softirq",
}  # fmt: skip
GUEST_MODES = {"guest": "user", "guest_nice": "nice"}

#: Field of psutil -> our family and the factor to its unit: psutil has times in milliseconds.
DISK_FIELDS: dict[str, tuple[MetricFamily, float]] = {
    field: (diskstats.FAMILIES[name], diskstats.SECONDS_PER_MILLISECOND if "_time" in field else 1)
    for field, name in {
        "read_count": "reads_completed_total",
        "read_merged_count": "reads_merged_total",
        "read_bytes": "read_bytes_total",
        "read_time": "read_time_seconds_total",
        "write_count": "writes_completed_total",
        "write_merged_count": "writes_merged_total",
        "write_bytes": "written_bytes_total",
        "write_time": "write_time_seconds_total",
        "busy_time": "io_time_seconds_total",
    }.items()
}
NETWORK_FIELDS = {
    "bytes_recv": netdev.RECEIVE_COLUMNS[b"bytes"],
    "packets_recv": netdev.RECEIVE_COLUMNS[b"packets"],
    "errin": netdev.RECEIVE_COLUMNS[b"errs"],
    "dropin": netdev.RECEIVE_COLUMNS[b"drop"],
    "bytes_sent": netdev.TRANSMIT_COLUMNS[b"bytes"],
    "packets_sent": netdev.TRANSMIT_COLUMNS[b"packets"],
    "errout": netdev.TRANSMIT_COLUMNS[b"errs"],
    "dropout": netdev.TRANSMIT_COLUMNS[b"drop"],
}


def _memory_family(field: str) -> MetricFamily:
    return MetricFamily(f"node_memory_{field}_bytes", "gauge", f"Memory: {field}.")


VIRTUAL_MEMORY_FIELDS = {
    field: _memory_family(name)
    for field, name in {
        "total": "MemTotal", "available": "MemAvailable", "free": "MemFree", "active": "Active",
        "inactive": "Inactive", "buffers": "Buffers", "cached": "Cached", "shared": "Shmem",
    }.items()
}  # fmt: skip
SWAP_FIELDS = {"total": _memory_family("SwapTotal"), "free": _memory_family("SwapFree")}

HERTZ_PER_MEGAHERTZ = 1e6

#: What psutil raises for a value that a system does not have: its own errors are for processes.
FAILURES = (OSError, RuntimeError, SystemError, NotImplementedError, AttributeError)


class PortableCollector:
    """A collector of one function. `read` gets psutil, which is imported when the collector is created."""

    def __init__(self, read: Callable[[Any], list[FamilySamples]]) -> None:
        try:
            import psutil
        except ImportError as error:
            raise OSError(f"psutil is not installed, and {sys.platform} has no /proc: pip install psutil") from error
        self._psutil = psutil
        self._read = read

    def collect(self) -> Iterable[FamilySamples]:
        """Raises OSError or psutil.Error."""
        return self._read(self._psutil)


def _cpu(psutil: Any) -> list[FamilySamples]:
    times: list[tuple[tuple[str, ...], float]] = []
    guests: list[tuple[tuple[str, ...], float]] = []
    for number, fields in enumerate(psutil.cpu_times(percpu=True)):
        of = fields._asdict()
        times += [((str(number), mode), of[field]) for field, mode in CPU_MODES.items() if field in of]
        guests += [((str(number), mode), of[field]) for field, mode in GUEST_MODES.items() if field in of]
    pairs = ((cpu.CPU_SECONDS, times), (cpu.GUEST_SECONDS, guests))
    return [FamilySamples(family, tuple(rows)) for family, rows in pairs if rows]


def _cpufreq(psutil: Any) -> list[FamilySamples]:
    rows: dict[tuple[str, ...], list[float | None]] = {}
    try:
        found = psutil.cpu_freq(percpu=True)
    except FAILURES:  # on Apple's chips, by version of psutil and generation (giampaolo/psutil#1892, #2841)
        found = None
    for number, of in enumerate(found or ()):
        values = (of.current, of.min, of.max)  # 0: unknown
        rows[(str(number),)] = [value * HERTZ_PER_MEGAHERTZ if value else None for value in values]
    return samples_by_column([cpufreq.FILES[f"scaling_{name}_freq"] for name in ("cur", "min", "max")], rows)


def _loadavg(psutil: Any) -> list[FamilySamples]:
    families = (loadavg.LOAD1, loadavg.LOAD5, loadavg.LOAD15)
    return [single_sample(family, value) for family, value in zip(families, psutil.getloadavg(), strict=True)]


def _meminfo(psutil: Any) -> list[FamilySamples]:
    of = psutil.virtual_memory()._asdict()
    found = [single_sample(family, float(of[name])) for name, family in VIRTUAL_MEMORY_FIELDS.items() if name in of]
    try:
        swap = psutil.swap_memory()
    except FAILURES:  # on Windows without performance counters (giampaolo/psutil#2458)
        return found
    return found + [single_sample(family, float(getattr(swap, name))) for name, family in SWAP_FIELDS.items()]


def _stat(psutil: Any) -> list[FamilySamples]:
    counts = psutil.cpu_stats()
    return [
        single_sample(stat.FAMILIES[b"btime"], float(psutil.boot_time())),
        single_sample(stat.FAMILIES[b"ctxt"], float(counts.ctx_switches)),
        single_sample(stat.FAMILIES[b"intr"], float(counts.interrupts)),
    ]


def _uname(nodename: str) -> list[FamilySamples]:
    name = platform.uname()
    labels = (name.system, name.release, name.version, name.machine, nodename or name.node, "")
    return [FamilySamples(uname.INFO, ((labels, 1),))]


def _diskstats(psutil: Any, devices: DeviceFilter) -> list[FamilySamples]:
    rows: dict[tuple[str, ...], list[float | None]] = {}
    for name, counters in (psutil.disk_io_counters(perdisk=True) or {}).items():
        labels, of = devices.labels(os.fsencode(name)), counters._asdict()
        if labels is not None:
            scaled = [(of.get(field), scale) for field, (_, scale) in DISK_FIELDS.items()]
            rows[labels] = [None if value is None else value * scale for value, scale in scaled]
    return samples_by_column([family for family, _ in DISK_FIELDS.values()], rows)


def _netdev(psutil: Any, devices: DeviceFilter) -> list[FamilySamples]:
    rows: dict[tuple[str, ...], list[float | None]] = {}
    for name, counters in psutil.net_io_counters(pernic=True).items():
        labels = devices.labels(os.fsencode(name))
        if labels is not None:
            rows[labels] = [float(getattr(counters, field)) for field in NETWORK_FIELDS]
    return samples_by_column(list(NETWORK_FIELDS.values()), rows)


def _netclass(psutil: Any, devices: DeviceFilter) -> list[FamilySamples]:
    rows: dict[tuple[str, ...], list[float | None]] = {}
    for name, interface in psutil.net_if_stats().items():
        labels = devices.labels(os.fsencode(name))
        if labels is not None:
            speed = interface.speed * netclass.BYTES_PER_MEGABIT if interface.speed else None  # 0: unknown
            rows[labels] = [float(interface.isup), speed, float(interface.mtu)]
    mtu = netclass.CONFIGURATION_FILES["mtu"]
    return samples_by_column((netclass.UP, netclass.SPEED, mtu), rows)


class PortableFilesystemCollector(PortableCollector):
    """Local and network file systems, in a thread of its own: a network drive may not respond."""

    def __init__(self, settings: HostSettings) -> None:
        self._mount_points = compile_exclude_pattern(settings.mount_points_exclude, "mount_points_exclude")
        self._types = compile_exclude_pattern(settings.fs_types_exclude, "fs_types_exclude")
        super().__init__(self._collect)

    def _collect(self, psutil: Any) -> list[FamilySamples]:
        rows: dict[tuple[str, ...], list[float | None]] = {}
        for part in psutil.disk_partitions(all=False):
            excluded = (self._mount_points and self._mount_points.search(part.mountpoint)) or (
                self._types and self._types.search(part.fstype)
            )
            if excluded:
                continue
            readonly = float("ro" in part.opts.split(","))
            labels = tuple(label_value(os.fsencode(text)) for text in (part.device, part.mountpoint, part.fstype))
            try:
                usage = psutil.disk_usage(part.mountpoint)
            except OSError:  # such as a drive without a disk
                rows[labels] = [None, None, None, readonly, 1.0]
                continue
            rows[labels] = [float(usage.total), float(usage.total - usage.used), float(usage.free), readonly, 0.0]
        families = (
            filesystem.SIZE,
            filesystem.FREE,
            filesystem.AVAILABLE,
            filesystem.READONLY,
            filesystem.DEVICE_ERROR,
        )
        return samples_by_column(families, rows)


def _for_disks(settings: HostSettings) -> PortableCollector:
    devices = DeviceFilter(settings.disk_exclude, "disk_exclude")
    return PortableCollector(lambda psutil: _diskstats(psutil, devices))


def _for_network(settings: HostSettings, read: Callable[[Any, DeviceFilter], list[FamilySamples]]) -> PortableCollector:
    devices = DeviceFilter(settings.net_exclude, "net_exclude")
    return PortableCollector(lambda psutil: read(psutil, devices))


def _without_settings(read: Callable[[Any], list[FamilySamples]]) -> Callable[[HostSettings], PortableCollector]:
    return lambda _: PortableCollector(read)


def _for_uname(settings: HostSettings) -> PortableCollector:
    return PortableCollector(lambda _: _uname(settings.nodename))


#: By the names of the Linux collectors, which have the same families and more.
COLLECTORS: dict[str, Callable[[HostSettings], HostCollector]] = {
    "cpu": _without_settings(_cpu),
    "cpufreq": _without_settings(_cpufreq),
    "diskstats": _for_disks,
    "filesystem": PortableFilesystemCollector,
    "loadavg": _without_settings(_loadavg),
    "meminfo": _without_settings(_meminfo),
    "netclass": lambda settings: _for_network(settings, _netclass),
    "netdev": lambda settings: _for_network(settings, _netdev),
    "stat": _without_settings(_stat),
    "time": TimeCollector,
    "uname": _for_uname,
}
