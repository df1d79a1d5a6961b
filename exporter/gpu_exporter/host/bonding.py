"""Bonded network interfaces, and how many of their parts are up.

Kernel document: Documentation/networking/bonding.rst.
"""

from __future__ import annotations

import os

from gpu_exporter.host.base import HostSettings
from gpu_exporter.host.kernel_files import label_value, read_file, samples_by_column
from gpu_exporter.metrics import FamilySamples, MetricFamily

CONFIGURED = MetricFamily("node_bonding_slaves", "gauge", "Interfaces configured in the bond.", ("master",))
ACTIVE = MetricFamily("node_bonding_active", "gauge", "Interfaces of the bond that are up.", ("master",))


class BondingCollector:
    def __init__(self, settings: HostSettings) -> None:
        self._folder = f"{settings.sysfs}/class/net"

    def collect(self) -> list[FamilySamples]:
        """Two gauges by bond; empty on a node without bonds. Raises OSError if a bond cannot be read."""
        try:
            bonds = read_file(f"{self._folder}/bonding_masters").split()
        except FileNotFoundError:
            return []
        rows: dict[tuple[str, ...], tuple[float, float]] = {}
        for bond in bonds:
            folder = f"{self._folder}/{os.fsdecode(bond)}"
            states = [self._is_up(folder, os.fsdecode(part)) for part in read_file(f"{folder}/bonding/slaves").split()]
            rows[(label_value(bond),)] = (float(len(states)), float(sum(states)))
        return samples_by_column((CONFIGURED, ACTIVE), rows)

    def _is_up(self, folder: str, part: str) -> bool:
        for prefix in ("lower_", "slave_"):  # the second on old kernels
            try:
                return read_file(f"{folder}/{prefix}{part}/bonding_slave/mii_status").strip() == b"up"
            except FileNotFoundError:
                continue
        raise OSError(f"{folder}: cannot read the state of {part}")
