"""Time of the node, its time zone and its clock sources."""

from __future__ import annotations

import time
from collections.abc import Callable

from gpu_exporter.host.base import HostSettings
from gpu_exporter.host.kernel_files import list_folder, read_label
from gpu_exporter.metrics import FamilySamples, MetricFamily, single_sample

TIME = MetricFamily("node_time_seconds", "gauge", "Time of the node when it was scraped, as Unix time.")
ZONE_OFFSET = MetricFamily(
    "node_time_zone_offset_seconds", "gauge", "Offset of the node's time zone from UTC.", ("time_zone",)
)
SOURCE_AVAILABLE = MetricFamily(
    "node_time_clocksource_available_info", "gauge", "Clock sources available, always 1.", ("device", "clocksource")
)
SOURCE_CURRENT = MetricFamily(
    "node_time_clocksource_current_info", "gauge", "Clock source in use, always 1.", ("device", "clocksource")
)


class TimeCollector:
    """`node_time_seconds` is read at the scrape: dashboards compare it with the time of the scrape."""

    def __init__(self, settings: HostSettings, clock: Callable[[], float] = time.time) -> None:
        self._folder = f"{settings.sysfs}/devices/system/clocksource"
        self._clock = clock

    def collect(self) -> list[FamilySamples]:
        """Time zone and clock sources; the sources are absent where sysfs is not mounted."""
        local = time.localtime(self._clock())
        found = [FamilySamples(ZONE_OFFSET, (((local.tm_zone,), float(local.tm_gmtoff)),))]
        available: list[tuple[tuple[str, ...], float]] = []
        current: list[tuple[tuple[str, ...], float]] = []
        for name in list_folder(self._folder, r"clocksource\d+"):
            folder, number = f"{self._folder}/{name}", name.removeprefix("clocksource")
            sources = read_label(f"{folder}/available_clocksource").split()
            available += [((number, source), 1.0) for source in sources]
            if source := read_label(f"{folder}/current_clocksource"):
                current.append(((number, source), 1.0))
        pairs = ((SOURCE_AVAILABLE, available), (SOURCE_CURRENT, current))
        return found + [FamilySamples(family, tuple(rows)) for family, rows in pairs if rows]

    def collect_at_scrape(self) -> list[FamilySamples]:
        """The time now."""
        return [single_sample(TIME, self._clock())]
