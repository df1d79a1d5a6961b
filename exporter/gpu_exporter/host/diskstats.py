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


def _disk_family(name: str, help_: str) -> MetricFamily:
    return MetricFamily(f"node_disk_{name}", "counter" if name.endswith("_total") else "gauge", help_, ("device",))


READS = _disk_family("reads_completed_total", "Reads completed.")
READS_MERGED = _disk_family("reads_merged_total", "Reads merged with an adjacent one.")
READ_BYTES = _disk_family("read_bytes_total", "Bytes read.")
READ_TIME = _disk_family("read_time_seconds_total", "Time spent on reads, summed over all of them.")
WRITES = _disk_family("writes_completed_total", "Writes completed.")
WRITES_MERGED = _disk_family("writes_merged_total", "Writes merged with an adjacent one.")
WRITTEN_BYTES = _disk_family("written_bytes_total", "Bytes written.")
WRITE_TIME = _disk_family("write_time_seconds_total", "Time spent on writes, summed over all of them.")
IO_NOW = _disk_family("io_now", "I/O requests in progress.")
IO_TIME = _disk_family("io_time_seconds_total", "Time during which at least one I/O request was in progress.")
IO_TIME_WEIGHTED = _disk_family(
    "io_time_weighted_seconds_total", "Time spent on I/O, weighted by the number of requests in progress."
)
DISCARDS = _disk_family("discards_completed_total", "Discards completed.")
DISCARDS_MERGED = _disk_family("discards_merged_total", "Discards merged with an adjacent one.")
DISCARDED_SECTORS = _disk_family("discarded_sectors_total", "512-byte sectors discarded.")
DISCARD_TIME = _disk_family("discard_time_seconds_total", "Time spent on discards, summed over all of them.")
FLUSHES = _disk_family("flush_requests_total", "Flush requests completed.")
FLUSH_TIME = _disk_family("flush_requests_time_seconds_total", "Time spent on flush requests, summed over all of them.")

#: The kernel counts 512-byte sectors, whatever the sector size of the device, and milliseconds.
SECTOR_BYTES = 512.0
SECONDS_PER_MILLISECOND = 0.001

#: In the order of the columns after the device's name.
COLUMNS: tuple[tuple[MetricFamily, float], ...] = (
    (READS, 1), (READS_MERGED, 1), (READ_BYTES, SECTOR_BYTES), (READ_TIME, SECONDS_PER_MILLISECOND),
    (WRITES, 1), (WRITES_MERGED, 1), (WRITTEN_BYTES, SECTOR_BYTES), (WRITE_TIME, SECONDS_PER_MILLISECOND),
    (IO_NOW, 1), (IO_TIME, SECONDS_PER_MILLISECOND), (IO_TIME_WEIGHTED, SECONDS_PER_MILLISECOND),
    (DISCARDS, 1), (DISCARDS_MERGED, 1), (DISCARDED_SECTORS, 1), (DISCARD_TIME, SECONDS_PER_MILLISECOND),
    (FLUSHES, 1), (FLUSH_TIME, SECONDS_PER_MILLISECOND),
)  # fmt: skip
FAMILIES = tuple(family for family, _ in COLUMNS)
SCALES = tuple(scale for _, scale in COLUMNS)
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
        return [*samples_by_column(FAMILIES, rows), *self._infos.value()]
