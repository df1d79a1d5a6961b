"""Mains, batteries and UPS.

Kernel document: ABI/testing/sysfs-class-power: microamperes, microvolts, microwatts, tenths of a degree.
"""

from __future__ import annotations

from gpu_exporter.host.base import HostSettings
from gpu_exporter.host.kernel_files import list_folder, read_file, samples_by_column
from gpu_exporter.metrics import FamilySamples, MetricFamily

MICRO, TENTH = 1e-6, 0.1

#: File -> node_exporter's name and the factor to its unit.
FILES: dict[str, tuple[str, float]] = {
    "online": ("online", 1),
    "present": ("present", 1),
    "capacity": ("capacity", 1),
    "cycle_count": ("cyclecount", 1),
    "time_to_empty_now": ("time_to_empty_seconds", 1),
    "time_to_full_now": ("time_to_full_seconds", 1),
    "current_now": ("current_ampere", MICRO),
    "voltage_now": ("voltage_volt", MICRO),
    "voltage_min_design": ("voltage_min_design", MICRO),
    "voltage_max_design": ("voltage_max_design", MICRO),
    "power_now": ("power_watt", MICRO),
    "energy_now": ("energy_watthour", MICRO),
    "energy_full": ("energy_full", MICRO),
    "energy_full_design": ("energy_full_design", MICRO),
    "charge_now": ("charge_ampere", MICRO),
    "charge_full": ("charge_full", MICRO),
    "charge_full_design": ("charge_full_design", MICRO),
    "temp": ("temp_celsius", TENTH),
}
FAMILIES = tuple(
    MetricFamily(f"node_power_supply_{name}", "gauge", f"File {file} of the power supply.", ("power_supply",))
    for file, (name, _) in FILES.items()
)


class PowerSupplyCollector:
    def __init__(self, settings: HostSettings) -> None:
        self._folder = f"{settings.sysfs}/class/power_supply"

    def collect(self) -> list[FamilySamples]:
        """Gauges by power supply, without those that it does not have; empty on a node that reports none."""
        rows: dict[tuple[str, ...], list[float | None]] = {}
        for name in list_folder(self._folder):
            folder = f"{self._folder}/{name}"
            rows[(name,)] = [_read_scaled(f"{folder}/{file}", scale) for file, (_, scale) in FILES.items()]
        return samples_by_column(FAMILIES, rows)


def _read_scaled(path: str, scale: float) -> float | None:
    """May be negative, as a current is while discharging; None if it cannot be read."""
    try:
        return round(int(read_file(path)) * scale, 9)
    except (OSError, ValueError):
        return None
