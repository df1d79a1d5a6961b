"""AMD's partitions by the device files that jobs are given: render node -> GPU and number of the partition.

The first partition has the PCI device's own files, the others those of a platform device each, `amdgpu_xcp_<n>`, whose
number says nothing about the GPU. KFD's topology has a node per partition with both: `drm_render_minor`, and the GPU's
address in `domain` and `location_id`, whose bits 28 to 31 are the number of the partition. Sources: the kernel's
drivers/gpu/drm/amd/amdkfd/kfd_topology.c and drivers/gpu/drm/amd/amdxcp/amdgpu_xcp_drv.c; ROCm/k8s-device-plugin,
internal/pkg/amdgpu/amdgpu.go.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

_PARTITION_SHIFT = 28
_PLATFORM_DEVICE = re.compile(r"amdgpu_xcp_\d+")
_RENDER_NODE = re.compile(r"renderD(\d+)")


class PartitionOfGpu(NamedTuple):
    """A partition by the GPU's PCI address (`0000:c1:00.0`) and its number there."""

    address: str
    number: int


class KfdPartitions:
    """The partitions in KFD's topology, read when one is asked for."""

    def __init__(self, sysfs: Path) -> None:
        self._sysfs = sysfs

    def of_device(self, name: str) -> PartitionOfGpu | None:
        """Of `amdgpu_xcp_<n>`, `renderD<minor>` or `card<n>`; None if KFD has no node of it."""
        if _PLATFORM_DEVICE.fullmatch(name):
            folder = self._sysfs / "devices/platform" / name / "drm"
        elif name.startswith("card"):
            folder = self._sysfs / "class/drm" / name / "device/drm"
        else:
            match = _RENDER_NODE.fullmatch(name)
            return self._by_render_minor.get(int(match[1])) if match else None
        try:
            names = sorted(path.name for path in folder.iterdir())
        except OSError:
            return None
        minors = [int(match[1]) for each in names if (match := _RENDER_NODE.fullmatch(each))]
        return self._by_render_minor.get(minors[0]) if minors else None

    @cached_property
    def _by_render_minor(self) -> dict[int, PartitionOfGpu]:
        return dict(self._nodes())

    def _nodes(self) -> Iterator[tuple[int, PartitionOfGpu]]:
        for path in sorted((self._sysfs / "class/kfd/kfd/topology/nodes").glob("*/properties")):
            try:
                lines = path.read_text(encoding="ascii", errors="replace").splitlines()
            except OSError:
                continue
            found = {name: int(value) for name, _, value in map(_split, lines) if value.isdigit()}
            minor, location = found.get("drm_render_minor", 0), found.get("location_id", 0)
            if minor > 0:
                bus, slot, function = location >> 8 & 0xFF, location >> 3 & 0x1F, location & 7
                address = f"{found.get('domain', 0):04x}:{bus:02x}:{slot:02x}.{function}"
                yield minor, PartitionOfGpu(address, location >> _PARTITION_SHIFT)


def _split(line: str) -> tuple[str, str, str]:
    return line.strip().partition(" ")
