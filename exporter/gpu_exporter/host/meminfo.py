"""Memory of the node: every field that the kernel prints, under node_exporter's names."""

from __future__ import annotations

import re

from gpu_exporter.host.base import HostSettings
from gpu_exporter.host.files import read, unsigned
from gpu_exporter.metrics import Family, Samples, one

#: Bytes for each unit that the kernel prints (its kB are 1024 bytes) and the suffix of the name; the rest are counts.
UNITS = {b"kB": (1024.0, "_bytes"), b"": (1.0, "")}
NAME = re.compile(r"\w+", re.ASCII)


class MeminfoCollector:
    def __init__(self, settings: HostSettings) -> None:
        self._path = f"{settings.procfs}/meminfo"
        #: By field and unit; the kernel's fields do not change while it runs.
        self._known: dict[tuple[bytes, bytes], tuple[Family, float]] = {}

    def collect(self) -> list[Samples]:
        """One gauge a field, in bytes or a count. Raises OSError, or ValueError if no line could be understood."""
        found: dict[str, Samples] = {}
        for line in read(self._path).split(b"\n"):
            try:
                family, value = self._parse(line)
            except ValueError:
                continue
            found[family.name] = one(family, value)
        if not found:
            raise ValueError(f"{self._path}: no line could be understood")
        return list(found.values())

    def _parse(self, line: bytes) -> tuple[Family, float]:
        field, _, rest = line.partition(b":")
        number, _, unit = rest.strip().partition(b" ")
        value = unsigned(number)
        known = self._known.get((field, unit))
        if known is None:
            known = self._known[field, unit] = _family(field, unit)
        family, scale = known
        return family, value * scale


def _family(field: bytes, unit: bytes) -> tuple[Family, float]:
    if unit not in UNITS:
        raise ValueError(f"unit {unit!r} is not known")
    scale, suffix = UNITS[unit]
    name = field.decode("ascii").replace("(", "_").replace(")", "")
    if not NAME.fullmatch(name):
        raise ValueError(f"{field!r} makes no metric name")
    return Family(f"node_memory_{name}{suffix}", "gauge", f"Field {name} of the kernel's memory information."), scale
