"""State of each network interface: operational state, carrier, speed, MTU, address.

Kernel document: ABI/testing/sysfs-class-net.
"""

from __future__ import annotations

import os

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
#: Files with one number each. `flags`, `dev_id` and `type` may be hexadecimal.
NUMBERS: dict[str, MetricFamily] = {
    "carrier": CARRIER,
    "mtu": _interface_family("mtu_bytes", "MTU of the interface."),
    "carrier_changes": _interface_family("carrier_changes_total", "Changes of the carrier.", "counter"),
    "carrier_up_count": _interface_family("carrier_up_changes_total", "Times that the carrier came up.", "counter"),
    "carrier_down_count": _interface_family(
        "carrier_down_changes_total", "Times that the carrier was lost.", "counter"
    ),
    "addr_assign_type": _interface_family("address_assign_type", "How the address was assigned."),
    "dev_id": _interface_family("device_id", "Number that tells apart interfaces of one address."),
    "dormant": _interface_family("dormant", "1 if the interface waits for an external event."),
    "flags": _interface_family("flags", "Flags of the interface, as bits."),
    "ifindex": _interface_family("iface_id", "Index of the interface."),
    "iflink": _interface_family("iface_link", "Index of the interface that this one is linked to."),
    "link_mode": _interface_family("iface_link_mode", "Link mode of the interface."),
    "name_assign_type": _interface_family("name_assign_type", "How the name was assigned."),
    "netdev_group": _interface_family("net_dev_group", "Group of the interface."),
    "tx_queue_len": _interface_family("transmit_queue_length", "Length of the transmit queue, in packets."),
    "type": _interface_family("protocol_type", "Protocol of the interface, as a number."),
    # Not in /proc/net/dev, which has all other counters of traffic.
    "statistics/rx_nohandler": _interface_family(
        "receive_nohandler_total", "Packets received on an interface that was not to receive any.", "counter"
    ),
}
FAMILIES = (UP, SPEED, *NUMBERS.values())
IFF_UP = 1
FLAGS_COLUMN = list(NUMBERS).index("flags")

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
        rows: dict[tuple[str, ...], list[float | None]] = {}
        info: list[tuple[tuple[str, ...], float]] = []
        wanted = []
        for name in os.listdir(os.fsencode(self._folder)):
            labels = self._devices.labels(name)
            if labels is None:
                continue
            device = f"{self._folder}/{os.fsdecode(name)}"
            wanted.append(device)
            state = read_label(f"{device}/operstate")
            numbers = [_read_number(f"{device}/{file}") for file in NUMBERS]
            rows[labels] = [float(state == "up") if state else None, _read_speed(device), *numbers]
            if state:
                info.append(((*labels, *_read_info(device, state, numbers[FLAGS_COLUMN])), 1.0))
        samples = samples_by_column(FAMILIES, rows)
        # Only folders are interfaces: bonding has a file beside them.
        if not samples and any(map(os.path.isdir, wanted)):
            raise OSError(f"{self._folder}: cannot read any interface")
        return [*samples, FamilySamples(INFO, tuple(info))] if info else samples


def _read_number(path: str) -> float | None:
    """None if it cannot be read, as many files of an interface that is down."""
    try:
        text = read_file(path).strip()
        return parse_hex(text[2:]) if text.startswith(b"0x") else parse_unsigned(text)
    except (OSError, ValueError):
        return None


def _read_speed(device: str) -> float | None:
    """None if unknown: drivers report -1, which parse_unsigned rejects, or 0."""
    megabits = _read_number(f"{device}/speed")
    return megabits * BYTES_PER_MEGABIT if megabits else None


def _read_info(device: str, state: str, flags: float | None) -> tuple[str, ...]:
    """The labels of INFO after the device."""
    address, broadcast, duplex, alias = (
        read_label(f"{device}/{file}") for file in ("address", "broadcast", "duplex", "ifalias")
    )
    admin = "unknown" if flags is None else "up" if int(flags) & IFF_UP else "down"
    return address, broadcast, duplex, state, admin, alias
