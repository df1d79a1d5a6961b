"""Network traffic by interface, in the host's network namespace."""

from __future__ import annotations

from gpu_exporter.host.base import HostSettings
from gpu_exporter.host.kernel_files import DeviceFilter, parse_unsigned, read_file, samples_by_column
from gpu_exporter.metrics import FamilySamples, MetricFamily


def _network_family(name: str, help_: str) -> MetricFamily:
    return MetricFamily(f"node_network_{name}_total", "counter", help_, ("device",))


#: By the column names in the two halves of the table.
RECEIVE_COLUMNS = {
    b"bytes": _network_family("receive_bytes", "Bytes received."),
    b"packets": _network_family("receive_packets", "Packets received."),
    b"errs": _network_family("receive_errs", "Receive errors."),
    b"drop": _network_family(
        "receive_drop", "Packets dropped on receive, including those missed for lack of a buffer."
    ),
    b"fifo": _network_family("receive_fifo", "Receive queue overruns."),
    b"frame": _network_family(
        "receive_frame", "Packets received with a wrong length, checksum or alignment (frame errors)."
    ),
    b"compressed": _network_family("receive_compressed", "Compressed packets received."),
    b"multicast": _network_family("receive_multicast", "Multicast packets received."),
}
TRANSMIT_COLUMNS = {
    b"bytes": _network_family("transmit_bytes", "Bytes sent."),
    b"packets": _network_family("transmit_packets", "Packets sent."),
    b"errs": _network_family("transmit_errs", "Transmit errors."),
    b"drop": _network_family("transmit_drop", "Packets dropped on transmit."),
    b"fifo": _network_family("transmit_fifo", "Transmit queue underruns."),
    b"colls": _network_family("transmit_colls", "Collisions while sending."),
    b"carrier": _network_family("transmit_carrier", "Carrier losses and other errors while sending."),
    b"compressed": _network_family("transmit_compressed", "Compressed packets sent."),
}


class NetdevCollector:
    def __init__(self, settings: HostSettings) -> None:
        self._path = f"{settings.net}/dev"
        self._devices = DeviceFilter(settings.net_exclude, "net_exclude")

    def collect(self) -> list[FamilySamples]:
        """Counters by interface. Raises OSError, or ValueError if the table could not be parsed."""
        _, _, table = read_file(self._path).partition(b"\n")
        header, *lines = table.split(b"\n")
        families = self._families(header)
        rows: dict[tuple[str, ...], list[float]] = {}
        parsed = not any(lines)
        for line in lines:
            name, _, rest = line.rpartition(b":")
            fields = rest.split()
            if not name or len(fields) != len(families):
                continue
            labels = self._devices.labels(name.strip())
            if labels is not None:
                try:
                    rows[labels] = list(map(parse_unsigned, fields))
                except ValueError:
                    continue
            parsed = True
        if not parsed:
            raise ValueError(f"{self._path}: no line could be parsed")
        return samples_by_column(families, rows)

    def _families(self, header: bytes) -> list[MetricFamily | None]:
        """The family of each column; None for an unknown column."""
        halves = header.split(b"|")
        if len(halves) != 3:
            raise ValueError(f"{self._path}: the second line is not the table's header: {header[:80]!r}")
        receive, transmit = halves[1].split(), halves[2].split()
        return [*map(RECEIVE_COLUMNS.get, receive), *map(TRANSMIT_COLUMNS.get, transmit)]
