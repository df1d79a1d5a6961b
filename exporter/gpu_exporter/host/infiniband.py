"""State and counters of InfiniBand and RoCE ports, from `/sys/class/infiniband`.

Kernel document: Documentation/ABI/stable/sysfs-class-infiniband. The names in `hw_counters/` are the driver's: mlx5's
are in NVIDIA's "Understanding mlx5 Linux Counters and Status Parameters", those of EFA in the Linux driver
(drivers/infiniband/hw/efa/efa_verbs.c). EFA's families have the names of AWS' own exporter, of which its dashboards are
made (awslabs/awsome-distributed-ai, efa-node-exporter).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from gpu_exporter.host.base import HostSettings
from gpu_exporter.host.kernel_files import list_folder, parse_unsigned, read_file, read_label, samples_by_column
from gpu_exporter.metrics import FamilySamples, MetricFamily, MetricType


def _port_family(name: str, type_: MetricType, help_: str) -> MetricFamily:
    return MetricFamily(f"node_infiniband_{name}", type_, help_, ("device", "port"))


INFO = MetricFamily(
    "node_infiniband_info",
    "gauge",
    "Board, firmware and type of the adapter, always 1.",
    ("device", "board_id", "firmware_version", "hca_type"),
)
INFO_FILES = ("board_id", "fw_ver", "hca_type")
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
    ("port_rcv_discards", "port_discards_received_total", 1,
     "Packets discarded on receive because the port was down or congested."),
    ("VL15_dropped", "vl15_dropped_total", 1, "VL15 (management) packets dropped for lack of buffers."),
)  # fmt: skip
#: Files in `counters_ext/`, which old mlx4 drivers have: 64 bits wide, where `counters/` has 32.
LEGACY_COUNTERS: tuple[tuple[str, str, float, str], ...] = (
    ("port_rcv_data_64", "legacy_data_received_bytes_total", WORD_BYTES, "Bytes received on all lanes."),
    ("port_xmit_data_64", "legacy_data_transmitted_bytes_total", WORD_BYTES, "Bytes sent on all lanes."),
    ("port_rcv_packets_64", "legacy_packets_received_total", 1, "Packets received."),
    ("port_xmit_packets_64", "legacy_packets_transmitted_total", 1, "Packets sent."),
    ("port_unicast_rcv_packets", "legacy_unicast_packets_received_total", 1, "Unicast packets received."),
    ("port_unicast_xmit_packets", "legacy_unicast_packets_transmitted_total", 1, "Unicast packets sent."),
    ("port_multicast_rcv_packets", "legacy_multicast_packets_received_total", 1, "Multicast packets received."),
    ("port_multicast_xmit_packets", "legacy_multicast_packets_transmitted_total", 1, "Multicast packets sent."),
)
#: Files in `hw_counters/` of RoCE and InfiniBand adapters.
HARDWARE_COUNTERS: tuple[tuple[str, str, float, str], ...] = (
    ("duplicate_request", "duplicate_requests_packets_total", 1, "Requests received a second time."),
    ("implied_nak_seq_err", "implied_nak_seq_errors_total", 1,
     "Acknowledgements with a later sequence number than expected."),
    ("local_ack_timeout_err", "local_ack_timeout_errors_total", 1, "Requests whose acknowledgement timed out."),
    ("np_cnp_sent", "np_cnp_packets_sent_total", 1, "Congestion notification packets sent."),
    ("np_ecn_marked_roce_packets", "np_ecn_marked_roce_packets_received_total", 1,
     "RoCEv2 packets received that were marked for congestion (ECN)."),
    ("out_of_buffer", "out_of_buffer_drops_total", 1, "Packets dropped because no receive buffer was posted."),
    ("out_of_sequence", "out_of_sequence_packets_received_total", 1, "Packets received out of sequence."),
    ("packet_seq_err", "packet_sequence_errors_total", 1, "Negative acknowledgements for sequence errors received."),
    ("req_cqe_error", "req_cqes_errors_total", 1, "Requests completed with an error."),
    ("req_cqe_flush_error", "req_cqes_flush_errors_total", 1, "Requests flushed with an error."),
    ("req_remote_access_errors", "req_remote_access_errors_total", 1, "Requests refused by the remote side: access."),
    ("req_remote_invalid_request", "req_remote_invalid_request_errors_total", 1,
     "Requests refused by the remote side: invalid."),
    ("resp_cqe_error", "resp_cqes_errors_total", 1, "Responses completed with an error."),
    ("resp_cqe_flush_error", "resp_cqes_flush_errors_total", 1, "Responses flushed with an error."),
    ("resp_local_length_error", "resp_local_length_errors_total", 1, "Requests received with a wrong length."),
    ("resp_remote_access_errors", "resp_remote_access_errors_total", 1, "Requests received without permission."),
    ("rnr_nak_retry_err", "rnr_nak_retry_packets_received_total", 1, "Receiver-not-ready packets received."),
    ("roce_adp_retrans", "roce_adp_retransmits_total", 1, "Adaptive retransmissions."),
    ("roce_adp_retrans_to", "roce_adp_retransmits_timeout_total", 1, "Adaptive retransmissions that timed out."),
    ("roce_slow_restart", "roce_slow_restart_used_total", 1, "Times that slow restart was used."),
    ("roce_slow_restart_cnps", "roce_slow_restart_cnps_total", 1,
     "Congestion notification packets sent by slow restart."),
    ("roce_slow_restart_trans", "roce_slow_restart_total", 1, "Changes to the state of slow restart."),
    ("rp_cnp_handled", "rp_cnp_packets_handled_total", 1, "Congestion notification packets handled."),
    ("rp_cnp_ignored", "rp_cnp_ignored_packets_received_total", 1, "Congestion notification packets ignored."),
    ("rx_atomic_requests", "rx_atomic_requests_total", 1, "Atomic requests received."),
    ("rx_dct_connect", "rx_dct_connect_requests_total", 1, "Connection requests for dynamic transport received."),
    ("rx_read_requests", "rx_read_requests_total", 1, "RDMA read requests received."),
    ("rx_write_requests", "rx_write_requests_total", 1, "RDMA write requests received."),
    ("rx_icrc_encapsulated", "rx_icrc_encapsulated_errors_total", 1, "RoCE packets received with a wrong checksum."),
)  # fmt: skip
LIFESPAN = _port_family("lifespan_seconds", "gauge", "How long the adapter may return the same counters.")
SECONDS_PER_MILLISECOND = 0.001

#: Files in `hw_counters/` of AWS' Elastic Fabric Adapter.
EFA_COUNTERS: dict[str, str] = {
    "rx_bytes": "Bytes received.",
    "tx_bytes": "Bytes sent.",
    "rx_pkts": "Packets received.",
    "tx_pkts": "Packets sent.",
    "rx_drops": "Packets dropped on receive.",
    "send_bytes": "Bytes sent by send requests.",
    "send_wrs": "Send requests completed.",
    "recv_bytes": "Bytes received by receive requests.",
    "recv_wrs": "Receive requests completed.",
    "rdma_read_bytes": "Bytes read by RDMA read requests.",
    "rdma_read_resp_bytes": "Bytes sent in response to RDMA read requests.",
    "rdma_read_wrs": "RDMA read requests completed.",
    "rdma_read_wr_err": "RDMA read requests failed.",
    "rdma_write_bytes": "Bytes written by RDMA write requests.",
    "rdma_write_recv_bytes": "Bytes received by RDMA write requests.",
    "rdma_write_wrs": "RDMA write requests completed.",
    "rdma_write_wr_err": "RDMA write requests failed.",
    "retrans_bytes": "Bytes retransmitted.",
    "retrans_pkts": "Packets retransmitted.",
    "retrans_timeout_events": "Retransmissions that timed out, with a change of the network path.",
    "impaired_remote_conn_events": "Connections throttled because the remote side was impaired.",
    "unresponsive_remote_events": "Times that the remote side did not respond.",
}
EFA_FAMILIES = {
    file: MetricFamily(f"node_amazonefa_{file}", "counter", help_, ("device", "port"))
    for file, help_ in EFA_COUNTERS.items()
}


def _counter_families(counters: tuple[tuple[str, str, float, str], ...]) -> tuple[MetricFamily, ...]:
    return tuple(_port_family(name, "counter", help_) for _, name, _, help_ in counters)


FAMILIES = (STATE, PHYSICAL_STATE, RATE, *_counter_families(COUNTERS))
LEGACY_FAMILIES = _counter_families(LEGACY_COUNTERS)
HARDWARE_FAMILIES = (LIFESPAN, *_counter_families(HARDWARE_COUNTERS))
ALL_FAMILIES = (*FAMILIES, *LEGACY_FAMILIES, *HARDWARE_FAMILIES, *EFA_FAMILIES.values())

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
        info: list[tuple[tuple[str, ...], float]] = []
        ports: dict[tuple[str, ...], list[float | None]] = {}
        for device in list_folder(self._folder):
            folder = f"{self._folder}/{device}"
            info.append(((device, *(read_label(f"{folder}/{file}") for file in INFO_FILES)), 1.0))
            for port in list_folder(f"{folder}/ports"):
                ports[device, port] = _read_port(f"{folder}/ports/{port}")
        samples = samples_by_column(ALL_FAMILIES, ports)
        if ports and not samples:
            raise OSError(f"{self._folder}: cannot read any port")
        return [FamilySamples(INFO, tuple(info)), *samples] if info else samples


def _read_port(port: str) -> list[float | None]:
    """Values in the order of ALL_FAMILIES, None where the port lacks them."""
    state, physical = (_read_match(f"{port}/{name}", STATE_NUMBER) for name in ("state", "phys_state"))
    gigabits = _read_match(f"{port}/rate", LINK_RATE)
    rate = gigabits * BYTES_PER_GIGABIT if gigabits else None
    hardware = _read_counters(f"{port}/hw_counters")
    lifespan = hardware.get("lifespan")
    return [
        state,
        physical,
        rate,
        *_scale(_read_counters(f"{port}/counters"), COUNTERS),
        *_scale(_read_counters(f"{port}/counters_ext"), LEGACY_COUNTERS),
        None if lifespan is None else lifespan * SECONDS_PER_MILLISECOND,
        *_scale(hardware, HARDWARE_COUNTERS),
        *(hardware.get(file) for file in EFA_COUNTERS),
    ]


def _read_counters(folder: str) -> dict[str, float]:
    """The counters in a folder, without those that cannot be read or read "N/A (no PMA)"."""
    found = {}
    for name in list_folder(folder):
        try:
            found[name] = parse_unsigned(read_file(f"{folder}/{name}").strip())
        except (OSError, ValueError):
            continue
    return found


def _scale(values: dict[str, float], counters: tuple[tuple[str, str, float, str], ...]) -> Iterator[float | None]:
    for file, _, scale, _ in counters:
        yield values[file] * scale if file in values else None


def _read_match(path: str, pattern: re.Pattern[bytes]) -> float | None:
    try:
        found = pattern.match(read_file(path))
    except OSError:
        return None
    return float(found[1]) if found else None
