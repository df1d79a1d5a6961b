"""Traffic of each network interface since it came up, in the exporter's own network namespace.

In a container, run it with the host's network, as node_exporter has to be.
"""

from __future__ import annotations

from gpu_exporter.host.base import HostSettings
from gpu_exporter.host.files import Devices, columns, read, unsigned
from gpu_exporter.metrics import Family, Samples


def _net(name: str, help_: str) -> Family:
    return Family(f"node_network_{name}_total", "counter", help_, ("device",))


RECEIVE_BYTES = _net("receive_bytes", "Bytes received.")
RECEIVE_PACKETS = _net("receive_packets", "Packets received.")
RECEIVE_ERRS = _net("receive_errs", "Packets received in error.")
RECEIVE_DROP = _net("receive_drop", "Packets received and dropped, those missed for want of a buffer included.")
RECEIVE_FIFO = _net("receive_fifo", "Receive queue overruns.")
RECEIVE_FRAME = _net("receive_frame", "Packets received with a wrong length, checksum or alignment.")
RECEIVE_COMPRESSED = _net("receive_compressed", "Compressed packets received.")
RECEIVE_MULTICAST = _net("receive_multicast", "Multicast packets received.")
TRANSMIT_BYTES = _net("transmit_bytes", "Bytes sent.")
TRANSMIT_PACKETS = _net("transmit_packets", "Packets sent.")
TRANSMIT_ERRS = _net("transmit_errs", "Packets that could not be sent.")
TRANSMIT_DROP = _net("transmit_drop", "Packets dropped on their way out.")
TRANSMIT_FIFO = _net("transmit_fifo", "Transmit queue underruns.")
TRANSMIT_COLLS = _net("transmit_colls", "Collisions while sending.")
TRANSMIT_CARRIER = _net("transmit_carrier", "Losses of carrier and the like while sending.")
TRANSMIT_COMPRESSED = _net("transmit_compressed", "Compressed packets sent.")

#: By the names of the columns in the two halves of the table.
RECEIVE = {
    b"bytes": RECEIVE_BYTES,
    b"packets": RECEIVE_PACKETS,
    b"errs": RECEIVE_ERRS,
    b"drop": RECEIVE_DROP,
    b"fifo": RECEIVE_FIFO,
    b"frame": RECEIVE_FRAME,
    b"compressed": RECEIVE_COMPRESSED,
    b"multicast": RECEIVE_MULTICAST,
}
TRANSMIT = {
    b"bytes": TRANSMIT_BYTES,
    b"packets": TRANSMIT_PACKETS,
    b"errs": TRANSMIT_ERRS,
    b"drop": TRANSMIT_DROP,
    b"fifo": TRANSMIT_FIFO,
    b"colls": TRANSMIT_COLLS,
    b"carrier": TRANSMIT_CARRIER,
    b"compressed": TRANSMIT_COMPRESSED,
}


class NetdevCollector:
    def __init__(self, settings: HostSettings) -> None:
        self._path = f"{settings.procfs}/net/dev"
        self._devices = Devices(settings.net_exclude, "net_exclude")

    def collect(self) -> list[Samples]:
        """Counters by interface. Raises OSError, or ValueError if the table could not be understood."""
        _, _, table = read(self._path).partition(b"\n")
        header, *lines = table.split(b"\n")
        families = self._families(header)
        rows: dict[tuple[str, ...], list[float]] = {}
        understood = not any(lines)
        for line in lines:
            name, _, rest = line.rpartition(b":")
            fields = rest.split()
            if not name or len(fields) != len(families):
                continue
            labels = self._devices.labels(name.strip())
            if labels is not None:
                try:
                    rows[labels] = list(map(unsigned, fields))
                except ValueError:
                    continue
            understood = True
        if not understood:
            raise ValueError(f"{self._path}: no interface's line could be understood")
        return columns(families, rows)

    def _families(self, header: bytes) -> list[Family | None]:
        """The family of each column, None for one that is not known here."""
        halves = header.split(b"|")
        if len(halves) != 3:
            raise ValueError(f"{self._path}: the second line is not the table's header: {header[:80]!r}")
        receive, transmit = halves[1].split(), halves[2].split()
        return [*map(RECEIVE.get, receive), *map(TRANSMIT.get, transmit)]
