"""State and counters of InfiniBand and RoCE ports, from `/sys/class/infiniband`.

Kernel document: Documentation/ABI/stable/sysfs-class-infiniband.
"""

from __future__ import annotations

import os
import re

from gpu_exporter.host.base import HostSettings
from gpu_exporter.host.kernel_files import label_value, parse_unsigned, read_file, samples_by_column
from gpu_exporter.metrics import FamilySamples, MetricFamily, MetricType


def _port_family(name: str, type_: MetricType, help_: str) -> MetricFamily:
    return MetricFamily(f"node_infiniband_{name}", type_, help_, ("device", "port"))


STATE = _port_family(
    "state_id", "gauge", "State of the port: 1 down, 2 initializing, 3 armed, 4 active, 5 active deferred."
)
PHYSICAL_STATE = _port_family(
    "physical_state_id",
    "gauge",
    "Physical state of the port: 1 sleeping, 2 polling, 3 disabled, 4 training, 5 link up, 6 recovering, 7 testing.",
)
RATE = _port_family("rate_bytes_per_second", "gauge", "Rate of the port in bytes per second.")

#: The kernel counts data in 4-byte words.
WORD_BYTES = 4.0

#: File in `counters/`, node_exporter's name, scale to its unit, HELP.
COUNTERS: tuple[tuple[str, str, float, str], ...] = (
    ("port_rcv_data", "port_data_received_bytes_total", WORD_BYTES, "Bytes received on all lanes."),
    ("port_xmit_data", "port_data_transmitted_bytes_total", WORD_BYTES, "Bytes sent on all lanes."),
    ("port_rcv_packets", "port_packets_received_total", 1, "Packets received, including those with errors."),
    ("port_xmit_packets", "port_packets_transmitted_total", 1, "Packets sent, including those with errors."),
    ("unicast_rcv_packets", "unicast_packets_received_total", 1, "Unicast packets received."),
    ("unicast_xmit_packets", "unicast_packets_transmitted_total", 1, "Unicast packets sent."),
    ("multicast_rcv_packets", "multicast_packets_received_total", 1, "Multicast packets received."),
    ("multicast_xmit_packets", "multicast_packets_transmitted_total", 1, "Multicast packets sent."),
    ("port_rcv_errors", "port_errors_received_total", 1, "Packets received with an error."),
    ("port_rcv_constraint_errors", "port_constraint_errors_received_total", 1,
     "Packets discarded on receive because of a constraint."),
    ("port_xmit_constraint_errors", "port_constraint_errors_transmitted_total", 1,
     "Packets not sent because of a constraint."),
    ("port_rcv_remote_physical_errors", "port_receive_remote_physical_errors_total", 1,
     "Packets received that were marked bad by a remote port."),
    ("port_rcv_switch_relay_errors", "port_receive_switch_relay_errors_total", 1,
     "Packets received that the switch could not relay."),
    ("port_xmit_discards", "port_discards_transmitted_total", 1,
     "Packets discarded because the port was down or congested."),
    ("port_xmit_wait", "port_transmit_wait_total", 1, "Ticks during which data waited and none was sent (congestion)."),
    ("link_downed", "link_downed_total", 1, "Times that link error recovery failed and the link went down."),
    ("link_error_recovery", "link_error_recovery_total", 1, "Times that link error recovery succeeded."),
    ("local_link_integrity_errors", "local_link_integrity_errors_total", 1,
     "Times that local physical errors exceeded the threshold."),
    ("excessive_buffer_overrun_errors", "excessive_buffer_overrun_errors_total", 1,
     "Times that consecutive buffer overruns exceeded the threshold."),
    ("symbol_error", "symbol_error_total", 1, "Minor link errors on the physical lanes."),
    ("VL15_dropped", "vl15_dropped_total", 1, "VL15 (management) packets dropped for lack of buffers."),
)  # fmt: skip
FAMILIES = (
    STATE, PHYSICAL_STATE, RATE, *(_port_family(name, "counter", help_) for _, name, _, help_ in COUNTERS),
)  # fmt: skip

#: "4: ACTIVE"
STATE_NUMBER = re.compile(rb"(\d+):")
#: "100 Gb/sec (4X EDR)", "2.5 Gb/sec (1X SDR)"
LINK_RATE = re.compile(rb"(\d+(?:\.\d+)?) Gb/sec")
BYTES_PER_GIGABIT = 1e9 / 8


class InfinibandCollector:
    def __init__(self, settings: HostSettings) -> None:
        self._folder = f"{settings.sysfs}/class/infiniband"

    def collect(self) -> list[FamilySamples]:
        """By device and port, without values that cannot be read; empty on a node without InfiniBand.

        Raises OSError if no file of any port can be read.
        """
        rows: dict[tuple[str, ...], tuple[float | None, ...]] = {}
        for device in _list_entries(self._folder):
            for port in _list_entries(f"{self._folder}/{device}/ports"):
                rows[label_value(os.fsencode(device)), label_value(os.fsencode(port))] = _read_port(
                    f"{self._folder}/{device}/ports/{port}"
                )
        samples = samples_by_column(FAMILIES, rows)
        if rows and not samples:
            raise OSError(f"{self._folder}: cannot read any port")
        return samples


def _list_entries(folder: str) -> list[str]:
    """Sorted names; empty if the folder does not exist."""
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _read_port(port: str) -> tuple[float | None, ...]:
    state, physical = (_read_match(f"{port}/{name}", STATE_NUMBER) for name in ("state", "phys_state"))
    gigabits = _read_match(f"{port}/rate", LINK_RATE)
    rate = gigabits * BYTES_PER_GIGABIT if gigabits else None
    return state, physical, rate, *(_read_counter(f"{port}/counters/{file}", scale) for file, _, scale, _ in COUNTERS)


def _read_match(path: str, pattern: re.Pattern[bytes]) -> float | None:
    try:
        found = pattern.match(read_file(path))
    except OSError:
        return None
    return float(found[1]) if found else None


def _read_counter(path: str, scale: float) -> float | None:
    """None if the hardware lacks it: the file is missing, cannot be read, or reads "N/A (no PMA)"."""
    try:
        return parse_unsigned(read_file(path).strip()) * scale
    except (OSError, ValueError):
        return None
