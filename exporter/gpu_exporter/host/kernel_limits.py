"""Kernel-wide resources and their limits: open files, entropy, tracked connections, hung tasks.

Kernel documents: Documentation/admin-guide/sysctl/fs.rst (file-nr), kernel.rst (hung_task_detect_count, random),
Documentation/networking/nf_conntrack-sysctl.rst.
"""

from __future__ import annotations

from gpu_exporter.host.base import HostSettings
from gpu_exporter.host.kernel_files import parse_hex, parse_unsigned, read_file, read_number
from gpu_exporter.metrics import FamilySamples, MetricFamily, single_sample

FILES_ALLOCATED = MetricFamily("node_filefd_allocated", "gauge", "File handles that are open.")
FILES_MAXIMUM = MetricFamily("node_filefd_maximum", "gauge", "Limit of open file handles.")
ENTROPY_AVAILABLE = MetricFamily("node_entropy_available_bits", "gauge", "Entropy available to the random generator.")
ENTROPY_POOL_SIZE = MetricFamily("node_entropy_pool_size_bits", "gauge", "Size of the entropy pool.")
HUNG_TASKS = MetricFamily("node_kernel_hung_tasks_total", "counter", "Tasks that the kernel detected as hung.")
CONNECTIONS = MetricFamily("node_nf_conntrack_entries", "gauge", "Tracked connections.")
CONNECTIONS_LIMIT = MetricFamily("node_nf_conntrack_entries_limit", "gauge", "Limit of tracked connections.")


def _conntrack_family(name: str, help_: str) -> MetricFamily:
    """Counters that node_exporter declares as gauges."""
    return MetricFamily(f"node_nf_conntrack_stat_{name}", "gauge", help_)


#: By the name of the column.
CONNECTION_STATISTICS = {
    b"found": _conntrack_family("found", "Lookups that found a connection."),
    b"invalid": _conntrack_family("invalid", "Packets that cannot be tracked."),
    b"ignore": _conntrack_family("ignore", "Packets of connections already tracked."),
    b"insert": _conntrack_family("insert", "Connections inserted."),
    b"insert_failed": _conntrack_family("insert_failed", "Connections that could not be inserted."),
    b"drop": _conntrack_family("drop", "Packets dropped because tracking failed."),
    b"early_drop": _conntrack_family("early_drop", "Connections dropped to make room for new ones."),
    b"search_restart": _conntrack_family("search_restart", "Lookups restarted because the table was resized."),
}


class FilefdCollector:
    def __init__(self, settings: HostSettings) -> None:
        self._path = f"{settings.procfs}/sys/fs/file-nr"

    def collect(self) -> list[FamilySamples]:
        """Two gauges. Raises OSError or ValueError."""
        fields = read_file(self._path).split()
        if len(fields) < 3:
            raise ValueError(f"{self._path}: has {len(fields)} fields instead of 3")
        # The second field, free handles, has been 0 since Linux 2.6.
        return [
            single_sample(FILES_ALLOCATED, parse_unsigned(fields[0])),
            single_sample(FILES_MAXIMUM, parse_unsigned(fields[2])),
        ]


class EntropyCollector:
    def __init__(self, settings: HostSettings) -> None:
        self._folder = f"{settings.procfs}/sys/kernel/random"

    def collect(self) -> list[FamilySamples]:
        """Two gauges, in bits. Raises OSError or ValueError."""
        return [
            single_sample(family, parse_unsigned(read_file(f"{self._folder}/{name}").strip()))
            for name, family in (("entropy_avail", ENTROPY_AVAILABLE), ("poolsize", ENTROPY_POOL_SIZE))
        ]


class KernelHungCollector:
    def __init__(self, settings: HostSettings) -> None:
        self._path = f"{settings.procfs}/sys/kernel/hung_task_detect_count"

    def collect(self) -> list[FamilySamples]:
        """One counter; empty before Linux 6.13."""
        tasks = read_number(self._path)
        return [] if tasks is None else [single_sample(HUNG_TASKS, tasks)]


class ConntrackCollector:
    def __init__(self, settings: HostSettings) -> None:
        self._folder = f"{settings.procfs}/sys/net/netfilter"
        self._statistics_path = f"{settings.procfs}/net/stat/nf_conntrack"

    def collect(self) -> list[FamilySamples]:
        """Connections of the host's network namespace; empty if the kernel does not track connections."""
        sizes = (
            (CONNECTIONS, read_number(f"{self._folder}/nf_conntrack_count")),
            (CONNECTIONS_LIMIT, read_number(f"{self._folder}/nf_conntrack_max")),
        )
        found = [single_sample(family, value) for family, value in sizes if value is not None]
        try:
            table = read_file(self._statistics_path).split(b"\n")
        except OSError:
            return found
        return found + _sum_columns(table)


def _sum_columns(table: list[bytes]) -> list[FamilySamples]:
    """The sums over all CPUs, from a table in hexadecimal with the names of the columns in its first line."""
    names = table[0].split()
    sums: dict[MetricFamily, float] = {}
    for line in table[1:]:
        fields = line.split()
        if not fields or len(fields) > len(names):
            continue
        try:
            values = [parse_hex(field) for field in fields]
        except ValueError:
            continue
        for name, value in zip(names, values, strict=False):
            family = CONNECTION_STATISTICS.get(name)
            if family:
                sums[family] = sums.get(family, 0.0) + value
    return [single_sample(family, value) for family, value in sums.items()]
