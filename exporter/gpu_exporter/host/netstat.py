"""Statistics of the network protocols: IP, ICMP, TCP and UDP.

Kernel document: Documentation/networking/snmp_counter.rst. Of the several hundred fields these are the ones that
node_exporter exports by default (collector/netstat_linux.go, --collector.netstat.fields).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from gpu_exporter.host.base import HostSettings
from gpu_exporter.host.kernel_files import parse_unsigned, read_file
from gpu_exporter.metrics import FamilySamples, MetricFamily, single_sample

_DATAGRAM_FIELDS = ("InDatagrams", "OutDatagrams", "InErrors", "NoPorts", "RcvbufErrors", "SndbufErrors")
_ICMP_FIELDS = ("InErrors", "InMsgs", "OutMsgs")

FIELDS: dict[str, tuple[str, ...]] = {
    "Ip": ("Forwarding",),
    "IpExt": ("InOctets", "OutOctets"),
    "Ip6": ("InOctets", "OutOctets"),
    "Icmp": _ICMP_FIELDS,
    "Icmp6": _ICMP_FIELDS,
    "Tcp": (
        "ActiveOpens", "PassiveOpens", "CurrEstab", "InSegs", "OutSegs", "RetransSegs", "InErrs", "OutRsts",
    ),
    "TcpExt": (
        "ListenOverflows", "ListenDrops", "SyncookiesSent", "SyncookiesRecv", "SyncookiesFailed", "TCPSynRetrans",
        "TCPTimeouts", "TCPOFOQueue", "TCPRcvQDrop",
    ),
    "Udp": _DATAGRAM_FIELDS,
    "Udp6": _DATAGRAM_FIELDS,
    "UdpLite": ("InErrors",),
    "UdpLite6": ("InErrors",),
}  # fmt: skip

#: By the name in the file: `TcpExt_ListenDrops`. node_exporter leaves the type open, as some are gauges.
FAMILIES = {
    f"{protocol}_{field}".encode(): MetricFamily(
        f"node_netstat_{protocol}_{field}", "untyped", f"Field {field} of the kernel's {protocol} statistics."
    )
    for protocol, fields in FIELDS.items()
    for field in fields
}


class NetstatCollector:
    def __init__(self, settings: HostSettings) -> None:
        self._folder = settings.net
        #: Position and family of each wanted column, by header line: a running kernel does not change its columns.
        self._columns: dict[bytes, list[tuple[int, MetricFamily]]] = {}

    def collect(self) -> list[FamilySamples]:
        """One sample per field. Raises OSError, or ValueError if a file has none of them."""
        found: dict[MetricFamily, float] = {}
        for name in ("netstat", "snmp"):
            table = dict(self._tables(read_file(f"{self._folder}/{name}")))
            if not table:
                raise ValueError(f"{self._folder}/{name}: has none of the fields of {', '.join(FIELDS)}")
            found.update(table)
        with suppress(OSError):  # IPv6 is off
            found.update(_parse_lines(read_file(f"{self._folder}/snmp6")))
        return [single_sample(family, value) for family, value in found.items()]

    def _tables(self, data: bytes) -> Iterator[tuple[MetricFamily, float]]:
        """Pairs of lines: the names of the columns, then their values."""
        lines = data.split(b"\n")
        for header, values in zip(lines[::2], lines[1::2], strict=False):
            columns = self._columns.get(header)
            if columns is None:
                columns = self._columns[header] = _wanted_columns(header)
            fields = values.split()
            for position, family in columns:
                if position < len(fields) and fields[position].isdigit():
                    yield family, parse_unsigned(fields[position])


def _wanted_columns(header: bytes) -> list[tuple[int, MetricFamily]]:
    protocol, *names = header.split() or [b""]
    prefix = protocol.rstrip(b":") + b"_"
    return [(i, FAMILIES[prefix + name]) for i, name in enumerate(names, 1) if prefix + name in FAMILIES]


def _parse_lines(data: bytes) -> Iterator[tuple[MetricFamily, float]]:
    """Lines such as `Ip6InOctets 460`."""
    for line in data.split(b"\n"):
        name, *values = line.split() or [b""]
        protocol, six, field = name.partition(b"6")
        family = FAMILIES.get(protocol + six + b"_" + field)
        if family and values and values[0].isdigit():
            yield family, parse_unsigned(values[0])
