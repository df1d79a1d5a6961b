"""State of each network interface: operational state, carrier, speed, MTU."""

from __future__ import annotations

import os

from gpu_exporter.host.base import HostSettings
from gpu_exporter.host.kernel_files import DeviceFilter, parse_unsigned, read_file, samples_by_column
from gpu_exporter.metrics import FamilySamples, MetricFamily

UP = MetricFamily("node_network_up", "gauge", "1 if the interface's operational state is up, else 0.", ("device",))
CARRIER = MetricFamily(
    "node_network_carrier", "gauge", "1 if the interface has a carrier; absent while it is down.", ("device",)
)
MTU = MetricFamily("node_network_mtu_bytes", "gauge", "MTU of the interface.", ("device",))
SPEED = MetricFamily(
    "node_network_speed_bytes", "gauge", "Link speed in bytes per second; absent if unknown.", ("device",)
)
FAMILIES = (UP, CARRIER, MTU, SPEED)

#: The kernel reports Mbit/s.
BYTES_PER_MEGABIT = 1_000_000 / 8


class NetclassCollector:
    def __init__(self, settings: HostSettings) -> None:
        self._folder = f"{settings.sysfs}/class/net"
        self._devices = DeviceFilter(settings.net_exclude, "net_exclude")

    def collect(self) -> list[FamilySamples]:
        """Gauges by interface, without values that cannot be read.

        Raises OSError if the interfaces cannot be listed, or none can be read.
        """
        rows: dict[tuple[str, ...], tuple[float | None, ...]] = {}
        wanted = []
        for name in os.listdir(os.fsencode(self._folder)):
            labels = self._devices.labels(name)
            if labels is None:
                continue
            device = f"{self._folder}/{os.fsdecode(name)}"
            wanted.append(device)
            rows[labels] = (
                _read_operstate(device),
                _read_number(device, "carrier"),
                _read_number(device, "mtu"),
                _read_speed(device),
            )
        samples = samples_by_column(FAMILIES, rows)
        # Only folders are interfaces: bonding has a file beside them.
        if not samples and any(map(os.path.isdir, wanted)):
            raise OSError(f"{self._folder}: cannot read any interface")
        return samples


def _read_attribute(device: str, name: str) -> bytes | None:
    """None if it cannot be read, as many attributes while the interface is down."""
    try:
        return read_file(f"{device}/{name}").strip()
    except OSError:
        return None


def _read_operstate(device: str) -> float | None:
    state = _read_attribute(device, "operstate")
    return float(state == b"up") if state else None


def _read_number(device: str, name: str) -> float | None:
    text = _read_attribute(device, name)
    try:
        return parse_unsigned(text) if text else None
    except ValueError:
        return None


def _read_speed(device: str) -> float | None:
    """None if unknown: drivers report -1, which parse_unsigned rejects, or 0."""
    megabits = _read_number(device, "speed")
    return megabits * BYTES_PER_MEGABIT if megabits else None
