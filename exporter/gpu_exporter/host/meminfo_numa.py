"""Memory of each NUMA node, and where allocations were served from.

Kernel document: Documentation/admin-guide/numastat.rst.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from gpu_exporter.host.base import HostSettings
from gpu_exporter.host.kernel_files import list_folder, parse_unsigned, read_file
from gpu_exporter.metrics import FamilySamples, MetricFamily, MetricType, group_by_family

BYTES_PER_KIB = 1024.0


class MeminfoNumaCollector:
    def __init__(self, settings: HostSettings) -> None:
        self._folder = f"{settings.sysfs}/devices/system/node"
        #: By name; a running kernel does not change its fields.
        self._families: dict[str, MetricFamily] = {}

    def collect(self) -> list[FamilySamples]:
        """By field and node, in bytes, pages or a count; empty without NUMA nodes. Raises OSError."""
        rows: list[tuple[MetricFamily, tuple[str, ...], float]] = []
        for name in list_folder(self._folder, r"node\d+"):
            node = (name.removeprefix("node"),)
            for field, value in _parse_meminfo(read_file(f"{self._folder}/{name}/meminfo")):
                rows.append((self._family(field, "gauge"), node, value))
            with suppress(FileNotFoundError):  # a kernel without the counters of allocations
                for field, value in _parse_numastat(read_file(f"{self._folder}/{name}/numastat")):
                    rows.append((self._family(f"{field}_total", "counter"), node, value))
        return group_by_family(rows)

    def _family(self, field: str, type_: MetricType) -> MetricFamily:
        family = self._families.get(field)
        if family is None:
            help_ = f"Field {field.removesuffix('_total')} of the NUMA node."
            family = self._families[field] = MetricFamily(f"node_memory_numa_{field}", type_, help_, ("node",))
        return family


def _parse_meminfo(data: bytes) -> Iterator[tuple[str, float]]:
    """Lines such as `Node 0 Active(anon):   707968 kB`; fields without a unit are counts."""
    for line in data.split(b"\n"):
        words = line.split()
        if len(words) < 4 or not words[3].isdigit() or words[4:] not in ([], [b"kB"]):
            continue
        field = words[2].rstrip(b":").replace(b"(", b"_").replace(b")", b"").decode("ascii", "replace")
        if field.isidentifier():
            yield field, parse_unsigned(words[3]) * (BYTES_PER_KIB if words[4:] else 1)


def _parse_numastat(data: bytes) -> Iterator[tuple[str, float]]:
    """Lines such as `numa_hit 193460335812`."""
    for line in data.split(b"\n"):
        name, _, value = line.partition(b" ")
        field = name.decode("ascii", "replace")
        if field.isidentifier() and value.strip().isdigit():
            yield field, parse_unsigned(value.strip())
