"""Thermal zones and cooling devices.

Kernel document: Documentation/driver-api/thermal/sysfs-api.rst.
"""

from __future__ import annotations

from gpu_exporter.host.base import HostSettings
from gpu_exporter.host.kernel_files import list_folder, read_file, read_label, read_number, samples_by_column
from gpu_exporter.metrics import FamilySamples, MetricFamily

ZONE_TEMPERATURE = MetricFamily(
    "node_thermal_zone_temp", "gauge", "Temperature of the zone, in degrees Celsius.", ("zone", "type")
)
COOLING_STATE = MetricFamily(
    "node_cooling_device_cur_state", "gauge", "Current state of the cooling device.", ("name", "type")
)
COOLING_STATE_MAX = MetricFamily(
    "node_cooling_device_max_state", "gauge", "Highest state of the cooling device.", ("name", "type")
)
DEGREES_PER_MILLIDEGREE = 0.001


class ThermalZoneCollector:
    def __init__(self, settings: HostSettings) -> None:
        self._folder = f"{settings.sysfs}/class/thermal"

    def collect(self) -> list[FamilySamples]:
        """Gauges by zone and device, without those that cannot be read; empty on a node without any."""
        zones: dict[tuple[str, ...], list[float | None]] = {}
        for name in list_folder(self._folder, r"thermal_zone\d+"):
            folder = f"{self._folder}/{name}"
            labels = (name.removeprefix("thermal_zone"), read_label(f"{folder}/type"))
            zones[labels] = [_read_temperature(f"{folder}/temp")]
        devices: dict[tuple[str, ...], list[float | None]] = {}
        for name in list_folder(self._folder, r"cooling_device\d+"):
            folder = f"{self._folder}/{name}"
            labels = (name.removeprefix("cooling_device"), read_label(f"{folder}/type"))
            devices[labels] = [read_number(f"{folder}/cur_state"), read_number(f"{folder}/max_state")]
        return [
            *samples_by_column((ZONE_TEMPERATURE,), zones),
            *samples_by_column((COOLING_STATE, COOLING_STATE_MAX), devices),
        ]


def _read_temperature(path: str) -> float | None:
    """In degrees Celsius; may be negative. None if it cannot be read: disabled zones return EAGAIN or EINVAL."""
    try:
        return int(read_file(path)) * DEGREES_PER_MILLIDEGREE
    except (OSError, ValueError):
        return None
