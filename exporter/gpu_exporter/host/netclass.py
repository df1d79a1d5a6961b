"""State of each network interface: operational state, carrier, speed, MTU, address.

Kernel document: ABI/testing/sysfs-class-net.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import NamedTuple

from gpu_exporter.host.base import HostSettings
from gpu_exporter.host.kernel_files import (
    DeviceFilter,
    parse_hex,
    parse_unsigned,
    read_file,
    read_label,
    samples_by_column,
)
from gpu_exporter.metrics import FamilySamples, MetricFamily, MetricType


def _interface_family(name: str, help_: str, type_: MetricType = "gauge") -> MetricFamily:
    return MetricFamily(f"node_network_{name}", type_, help_, ("device",))


UP = _interface_family("up", "1 if the interface's operational state is up, else 0.")
CARRIER = _interface_family("carrier", "1 if the interface has a carrier; absent while it is down.")
SPEED = _interface_family("speed_bytes", "Link speed in bytes per second; absent if unknown.")
INFO = MetricFamily(
    "node_network_info",
    "gauge",
    "Address and state of the interface, always 1.",
    ("device", "address", "broadcast", "duplex", "operstate", "adminstate", "ifalias"),
)
#: Files with one number each.
STATE_FILES: dict[str, MetricFamily] = {
    "carrier": CARRIER,
    "carrier_changes": _interface_family("carrier_changes_total", "Changes of the carrier.", "counter"),
    "carrier_up_count": _interface_family("carrier_up_changes_total", "Times that the carrier came up.", "counter"),
    "carrier_down_count": _interface_family(
        "carrier_down_changes_total", "Times that the carrier was lost.", "counter"
    ),
    "dormant": _interface_family("dormant", "1 if the interface waits for an external event."),
    "flags": _interface_family("flags", "Flags of the interface, as bits."),
    # Not in /proc/net/dev, which has all other counters of traffic.
    "statistics/rx_nohandler": _interface_family(
        "receive_nohandler_total", "Packets received on an interface that was not to receive any.", "counter"
    ),
}
#: The same for files that change when somebody configures the interface.
CONFIGURATION_FILES: dict[str, MetricFamily] = {
    "mtu": _interface_family("mtu_bytes", "MTU of the interface."),
    "addr_assign_type": _interface_family("address_assign_type", "How the address was assigned."),
    "dev_id": _interface_family("device_id", "Number that distinguishes interfaces of one address."),
    "ifindex": _interface_family("iface_id", "Index of the interface."),
    "iflink": _interface_family("iface_link", "Index of the interface that this one is linked to."),
    "link_mode": _interface_family("iface_link_mode", "Link mode of the interface."),
    "name_assign_type": _interface_family("name_assign_type", "How the name was assigned."),
    "netdev_group": _interface_family("net_dev_group", "Group of the interface."),
    "tx_queue_len": _interface_family("transmit_queue_length", "Length of the transmit queue, in packets."),
    "type": _interface_family("protocol_type", "Protocol of the interface, as a number."),
}
FAMILIES = (UP, SPEED, *STATE_FILES.values(), *CONFIGURATION_FILES.values())
IFF_UP = 1

#: The kernel reports Mbit/s.
BYTES_PER_MEGABIT = 1_000_000 / 8

#: A node with 100 pods has as many interfaces, and each has 20 files.
CONFIGURATION_INTERVAL_SECONDS = 60.0


class Configuration(NamedTuple):
    """What CONFIGURATION_FILES have, and three labels of INFO."""

    numbers: list[float | None]
    address: str
    broadcast: str
    alias: str


class NetclassCollector:
    def __init__(self, settings: HostSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = f"{settings.sysfs}/class/net"
        self._devices = DeviceFilter(settings.net_exclude, "net_exclude")
        self._clock = clock
        self._configured: dict[str, Configuration] = {}
        self._configured_at = 0.0

    def collect(self) -> list[FamilySamples]:
        """Gauges by interface, without values that cannot be read.

        Raises OSError if the interfaces cannot be listed, or none can be read.
        """
        rows: dict[tuple[str, ...], list[float | None]] = {}
        info: list[tuple[tuple[str, ...], float]] = []
        known = self._known_configurations()
        for name in os.listdir(os.fsencode(self._folder)):
            labels = self._devices.labels(name)
            folder = f"{self._folder}/{os.fsdecode(name)}"
            if labels is None or not os.path.isdir(folder):  # bonding has a file beside the interfaces
                continue
            state = read_label(f"{folder}/operstate")
            configured = (known.get(folder) if state else None) or _read_configuration(folder)
            self._configured[folder] = configured
            numbers = {file: _read_number(f"{folder}/{file}") for file in STATE_FILES}
            up = float(state == "up") if state else None
            rows[labels] = [up, _read_speed(folder), *numbers.values(), *configured.numbers]
            if state:
                duplex, admin = read_label(f"{folder}/duplex"), _admin_state(numbers["flags"])
                texts = (configured.address, configured.broadcast, duplex, state, admin, configured.alias)
                info.append(((*labels, *texts), 1.0))
        samples = samples_by_column(FAMILIES, rows)
        if not samples and rows:
            raise OSError(f"{self._folder}: cannot read any interface")
        return [*samples, FamilySamples(INFO, tuple(info))] if info else samples

    def _known_configurations(self) -> dict[str, Configuration]:
        """Those of the last collection, by folder; none if it is time to read them again."""
        known, self._configured = self._configured, {}
        if self._clock() - self._configured_at < CONFIGURATION_INTERVAL_SECONDS:
            return known
        self._configured_at = self._clock()
        return {}


def _read_configuration(folder: str) -> Configuration:
    address, broadcast, alias = (read_label(f"{folder}/{file}") for file in ("address", "broadcast", "ifalias"))
    numbers = [_read_number(f"{folder}/{file}") for file in CONFIGURATION_FILES]
    return Configuration(numbers, address, broadcast, alias)


def _admin_state(flags: float | None) -> str:
    return "unknown" if flags is None else "up" if int(flags) & IFF_UP else "down"


def _read_number(path: str) -> float | None:
    """None if it cannot be read, as many files of an interface that is down. Some files are hexadecimal."""
    try:
        text = read_file(path).strip()
        return parse_hex(text[2:]) if text.startswith(b"0x") else parse_unsigned(text)
    except (OSError, ValueError):
        return None


def _read_speed(device: str) -> float | None:
    """None if unknown: drivers report -1, which parse_unsigned rejects, or 0."""
    megabits = _read_number(f"{device}/speed")
    return megabits * BYTES_PER_MEGABIT if megabits else None
