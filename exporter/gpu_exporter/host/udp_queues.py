"""Bytes in the queues of all UDP sockets."""

from __future__ import annotations

from gpu_exporter.host.base import HostSettings
from gpu_exporter.host.kernel_files import parse_hex, read_file
from gpu_exporter.metrics import FamilySamples, MetricFamily

QUEUES = MetricFamily("node_udp_queues", "gauge", "Bytes queued for UDP datagrams.", ("queue", "ip"))
FILES = {"v4": "udp", "v6": "udp6"}
#: `tx_queue:rx_queue`
QUEUE_COLUMN = 4


class UdpQueuesCollector:
    def __init__(self, settings: HostSettings) -> None:
        self._folder = settings.net

    def collect(self) -> list[FamilySamples]:
        """Sums by direction and version of IP; empty if the kernel has neither. Raises ValueError."""
        rows: list[tuple[tuple[str, ...], float]] = []
        for version, name in FILES.items():
            try:
                sockets = read_file(f"{self._folder}/{name}").split(b"\n")[1:]
            except FileNotFoundError:
                continue
            queues = [
                line.split()[QUEUE_COLUMN].partition(b":") for line in sockets if len(line.split()) > QUEUE_COLUMN
            ]
            rows.append((("tx", version), sum(parse_hex(sent) for sent, _, _ in queues)))
            rows.append((("rx", version), sum(parse_hex(received) for _, _, received in queues)))
        return [FamilySamples(QUEUES, tuple(rows))] if rows else []
