"""Disk I/O statistics by device, and what kind of device it is.

Kernel document: Documentation/admin-guide/iostats.rst.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from gpu_exporter.host.base import HostSettings
from gpu_exporter.host.disk_properties import DiskProperties
from gpu_exporter.host.kernel_files import DeviceFilter, SlowlyRead, parse_unsigned, read_file, samples_by_column
from gpu_exporter.metrics import FamilySamples, MetricFamily

#: The kernel counts 512-byte sectors, whatever the sector size of the device, and milliseconds.
SECTOR_BYTES = 512.0
SECONDS_PER_MILLISECOND = 0.001

#: In the order of the columns after the device's name: node_exporter's name, scale to its unit, HELP.
COLUMNS: tuple[tuple[str, float, str], ...] = (
    ("reads_completed_total", 1, "Reads completed."),
    ("reads_merged_total", 1, "Reads merged with an adjacent one."),
    ("read_bytes_total", SECTOR_BYTES, "Bytes read."),
    ("read_time_seconds_total", SECONDS_PER_MILLISECOND, "Time spent on reads, summed over all of them."),
    ("writes_completed_total", 1, "Writes completed."),
    ("writes_merged_total", 1, "Writes merged with an adjacent one."),
    ("written_bytes_total", SECTOR_BYTES, "Bytes written."),
    ("write_time_seconds_total", SECONDS_PER_MILLISECOND, "Time spent on writes, summed over all of them."),
    ("io_now", 1, "I/O requests in progress."),
    ("io_time_seconds_total", SECONDS_PER_MILLISECOND,
     "Time during which at least one I/O request was in progress."),
    ("io_time_weighted_seconds_total", SECONDS_PER_MILLISECOND,
     "Time spent on I/O, weighted by the number of requests in progress."),
    ("discards_completed_total", 1, "Discards completed."),
    ("discards_merged_total", 1, "Discards merged with an adjacent one."),
    ("discarded_sectors_total", 1, "512-byte sectors discarded."),
    ("discard_time_seconds_total", SECONDS_PER_MILLISECOND, "Time spent on discards, summed over all of them."),
    ("flush_requests_total", 1, "Flush requests completed."),
    ("flush_requests_time_seconds_total", SECONDS_PER_MILLISECOND,
     "Time spent on flush requests, summed over all of them."),
)  # fmt: skip
FAMILIES = {
    name: MetricFamily(f"node_disk_{name}", "counter" if name.endswith("_total") else "gauge", help_, ("device",))
    for name, _, help_ in COLUMNS
}
SCALES = tuple(scale for _, scale, _ in COLUMNS)
#: Without discards (Linux 4.18) and flushes (5.5). Shorter lines have other columns and are not disks.
MIN_COLUMNS = 11

PROPERTIES_INTERVAL_SECONDS = 60.0


class DiskstatsCollector:
    def __init__(self, settings: HostSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = f"{settings.procfs}/diskstats"
        self._devices = DeviceFilter(settings.disk_exclude, "disk_exclude")
        self._properties = DiskProperties(settings.sysfs, settings.udev_data)
        #: Major and minor number of each disk, by labels.
        self._numbers: dict[tuple[str], tuple[str, str]] = {}
        self._infos = SlowlyRead(lambda: self._properties.read(self._numbers), PROPERTIES_INTERVAL_SECONDS, clock)

    def collect(self) -> list[FamilySamples]:
        """Counters and properties by device; empty on a node without disks.

        Raises OSError, or ValueError if no line could be parsed.
        """
        rows: dict[tuple[str, ...], list[float]] = {}
        numbers: dict[tuple[str], tuple[str, str]] = {}
        lines = parsed = 0
        for line in read_file(self._path).split(b"\n"):
            fields = line.split()
            if not fields:
                continue
            lines += 1
            if len(fields) < 3 + MIN_COLUMNS or not fields[0].isdigit():
                continue
            labels = self._devices.labels(fields[2])
            if labels is not None:
                try:
                    values = list(map(parse_unsigned, fields[3 : 3 + len(SCALES)]))
                except ValueError:
                    continue
                rows[labels] = [value * scale for value, scale in zip(values, SCALES, strict=False)]
                numbers[labels] = (fields[0].decode(), fields[1].decode("ascii", "replace"))
            parsed += 1
        if lines and not parsed:
            raise ValueError(f"{self._path}: no line could be parsed")
        if numbers != self._numbers:  # a disk was added or removed
            self._numbers = numbers
            self._infos.expire()
        return [*samples_by_column(tuple(FAMILIES.values()), rows), *self._infos.value()]
