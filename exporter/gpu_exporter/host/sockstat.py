"""Sockets in use by protocol, and the memory that they take."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress

from gpu_exporter.host.base import HostSettings
from gpu_exporter.host.kernel_files import parse_unsigned, read_file
from gpu_exporter.metrics import FamilySamples, MetricFamily, single_sample

HELP = {
    b"inuse": "sockets in use",
    b"orphan": "sockets without a process",
    b"tw": "sockets in the state TIME_WAIT",
    b"alloc": "sockets allocated",
    b"mem": "memory of sockets, in pages",
    b"memory": "memory of queued fragments, in bytes",
}
#: Fields by protocol; the last field of TCP and UDP is exported in bytes, too.
FIELDS: dict[bytes, tuple[bytes, ...]] = {
    b"TCP": (b"inuse", b"orphan", b"tw", b"alloc", b"mem"),
    b"UDP": (b"inuse", b"mem"),
    b"UDPLITE": (b"inuse",),
    b"RAW": (b"inuse",),
    b"FRAG": (b"inuse", b"memory"),
    b"TCP6": (b"inuse",),
    b"UDP6": (b"inuse",),
    b"UDPLITE6": (b"inuse",),
    b"RAW6": (b"inuse",),
    b"FRAG6": (b"inuse", b"memory"),
}


def _socket_family(protocol: bytes, field: str, help_: str) -> MetricFamily:
    name = protocol.decode()
    return MetricFamily(f"node_sockstat_{name}_{field}", "gauge", f"{name} {help_}.")


SOCKETS_USED = MetricFamily("node_sockstat_sockets_used", "gauge", "Sockets of all protocols in use.")
FAMILIES = {
    (protocol, field): _socket_family(protocol, field.decode(), HELP[field])
    for protocol, fields in FIELDS.items()
    for field in fields
}
MEMORY_FAMILIES = {
    protocol: _socket_family(protocol, "mem_bytes", "memory of sockets, in bytes")
    for protocol, fields in FIELDS.items()
    if b"mem" in fields
}


class SockstatCollector:
    def __init__(self, settings: HostSettings) -> None:
        self._paths = (f"{settings.net}/sockstat", f"{settings.net}/sockstat6")
        self._page_bytes = os.sysconf("SC_PAGE_SIZE")

    def collect(self) -> list[FamilySamples]:
        """One gauge per protocol and field. Raises OSError, or ValueError if no line could be parsed."""
        found = dict(self._parse(read_file(self._paths[0])))
        if not found:
            raise ValueError(f"{self._paths[0]}: no line could be parsed")
        with suppress(OSError):  # IPv6 is off
            found.update(self._parse(read_file(self._paths[1])))
        return [single_sample(family, value) for family, value in found.items()]

    def _parse(self, data: bytes) -> Iterator[tuple[MetricFamily, float]]:
        """Lines such as `TCP: inuse 4 orphan 0`."""
        for line in data.split(b"\n"):
            protocol, _, rest = line.partition(b":")
            words = rest.split()
            for field, text in zip(words[::2], words[1::2], strict=False):
                family = SOCKETS_USED if (protocol, field) == (b"sockets", b"used") else FAMILIES.get((protocol, field))
                if family is None or not text.isdigit():
                    continue
                value = parse_unsigned(text)
                yield family, value
                if field == b"mem":
                    yield MEMORY_FAMILIES[protocol], value * self._page_bytes
