"""NVMe controllers and the capacity and usage of their namespaces. Their temperatures come from hwmon."""

from __future__ import annotations

from gpu_exporter.host.base import HostSettings
from gpu_exporter.host.kernel_files import list_folder, read_label, read_number, samples_by_column
from gpu_exporter.metrics import FamilySamples, MetricFamily

INFO = MetricFamily(
    "node_nvme_info",
    "gauge",
    "Model, serial number, firmware and state of the controller, always 1.",
    ("device", "firmware_revision", "model", "serial", "state", "cntlid"),
)
NAMESPACE_INFO = MetricFamily(
    "node_nvme_namespace_info",
    "gauge",
    "Path state of the namespace, always 1; unknown without multipath.",
    ("device", "nsid", "ana_state"),
)


def _namespace_family(name: str, help_: str) -> MetricFamily:
    return MetricFamily(f"node_nvme_namespace_{name}_bytes", "gauge", help_, ("device", "nsid"))


CAPACITY = _namespace_family("capacity", "Capacity of the namespace.")
SIZE = _namespace_family("size", "Size of the namespace.")
USED = _namespace_family("used", "Used space of the namespace.")
BLOCK_SIZE = _namespace_family("logical_block_size", "Logical block size of the namespace.")

INFO_FILES = ("firmware_rev", "model", "serial", "state", "cntlid")


class NvmeCollector:
    def __init__(self, settings: HostSettings) -> None:
        self._folder = f"{settings.sysfs}/class/nvme"

    def collect(self) -> list[FamilySamples]:
        """By controller and namespace; empty on a node without NVMe."""
        info: list[tuple[tuple[str, ...], float]] = []
        states: list[tuple[tuple[str, ...], float]] = []
        sizes: dict[tuple[str, ...], list[float | None]] = {}
        for device in list_folder(self._folder, r"nvme\d+"):
            folder = f"{self._folder}/{device}"
            info.append(((device, *(read_label(f"{folder}/{file}") for file in INFO_FILES)), 1.0))
            # With native multipath the namespaces of a path are nvme0c1n1.
            for name in list_folder(folder, r"nvme\d+(c\d+)?n\d+"):
                namespace, number = f"{folder}/{name}", name.rpartition("n")[2]
                states.append(((device, number, read_label(f"{namespace}/ana_state") or "unknown"), 1.0))
                sizes[device, number] = _read_sizes(namespace)
        found = [
            FamilySamples(family, tuple(rows)) for family, rows in ((INFO, info), (NAMESPACE_INFO, states)) if rows
        ]
        return found + samples_by_column((CAPACITY, SIZE, USED, BLOCK_SIZE), sizes)


def _read_sizes(namespace: str) -> list[float | None]:
    """Capacity, size, used space and block size in bytes; None where unknown."""
    block = read_number(f"{namespace}/queue/logical_block_size")
    size, used = read_number(f"{namespace}/size"), read_number(f"{namespace}/nuse")
    return [_times(size, block), _times(size, block), _times(used, block), block]


def _times(count: float | None, unit: float | None) -> float | None:
    return None if count is None or unit is None else count * unit
