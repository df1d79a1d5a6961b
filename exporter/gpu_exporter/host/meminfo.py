"""Memory of the node: every field of /proc/meminfo, under node_exporter's names."""

from __future__ import annotations

import re

from gpu_exporter.host.base import HostSettings
from gpu_exporter.host.kernel_files import parse_unsigned, read_file
from gpu_exporter.metrics import FamilySamples, MetricFamily, single_sample

#: Unit in the file -> (scale, suffix of the name). The kernel's kB are 1024 bytes; fields without a unit are counts.
UNITS = {b"kB": (1024.0, "_bytes"), b"": (1.0, "")}
FIELD_NAME = re.compile(r"\w+", re.ASCII)


class MeminfoCollector:
    def __init__(self, settings: HostSettings) -> None:
        self._path = f"{settings.procfs}/meminfo"
        #: By (field, unit); a running kernel does not change its fields.
        self._families: dict[tuple[bytes, bytes], tuple[MetricFamily, float]] = {}

    def collect(self) -> list[FamilySamples]:
        """One gauge per field, in bytes or a count. Raises OSError, or ValueError if no line could be parsed."""
        found: dict[str, FamilySamples] = {}
        for line in read_file(self._path).split(b"\n"):
            try:
                family, value = self._parse(line)
            except ValueError:
                continue
            found[family.name] = single_sample(family, value)
        if not found:
            raise ValueError(f"{self._path}: no line could be parsed")
        return list(found.values())

    def _parse(self, line: bytes) -> tuple[MetricFamily, float]:
        field, _, rest = line.partition(b":")
        number, _, unit = rest.strip().partition(b" ")
        value = parse_unsigned(number)
        known = self._families.get((field, unit))
        if known is None:
            known = self._families[field, unit] = _family(field, unit)
        family, scale = known
        return family, value * scale


def _family(field: bytes, unit: bytes) -> tuple[MetricFamily, float]:
    if unit not in UNITS:
        raise ValueError(f"unknown unit {unit!r}")
    scale, suffix = UNITS[unit]
    name = field.decode("ascii").replace("(", "_").replace(")", "")
    if not FIELD_NAME.fullmatch(name):
        raise ValueError(f"{field!r} is not a valid metric name")
    return MetricFamily(f"node_memory_{name}{suffix}", "gauge", f"Field {name} of /proc/meminfo."), scale
