"""Compute partitions of AMD Instinct GPUs (DPX, QPX, CPX), each a GPU of its own for jobs.

Kernel sources: drivers/gpu/drm/amd/include/kgd_pp_interface.h (`num_partition`, `xcp_stats` of gpu_metrics 1.6 to 1.8),
drivers/gpu/drm/amd/amdgpu/amdgpu_gfx.c (`current_compute_partition`), drivers/gpu/drm/amd/amdkfd/kfd_topology.c (one
node per partition; bits 28 to 31 of its `location_id` are the number of the partition).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from gpu_exporter import metrics
from gpu_exporter.devices.card_readings import CardReadings
from gpu_exporter.devices.drm import DrmCard
from gpu_exporter.devices.meters import BusyMeter, BusySource
from gpu_exporter.devices.sysfs import list_names, read_text
from gpu_exporter.snapshot import DeviceIdentity, DeviceReading

MAX_PARTITIONS = 8
MAX_DIES = 8
"""Accelerator dies (XCC) of a partition."""

_NOT_FILLED_IN = 0xFFFFFFFF
_PARTITION_SHIFT = 28
_GPU_HEAP_TYPES = ("1", "2")
"""HSA_MEM_HEAP_TYPE_FB_PUBLIC and _PRIVATE; others are the host's memory."""


class PartitionLayout(NamedTuple):
    """Where gpu_metrics has the partitions, in bytes: offsets of their number and of the first, size of each."""

    number: int
    first: int
    size: int


PARTITION_LAYOUTS = {
    (1, 6): PartitionLayout(306, 312, 168),
    (1, 7): PartitionLayout(338, 344, 232),
    (1, 8): PartitionLayout(338, 344, 376),
}
"""By format and content revision of the table."""


def parse_partitions(raw: bytes) -> tuple[float | None, ...]:
    """The activity of each partition, 0..1, None if it is not reported; empty for a GPU that is not partitioned.

    `raw` is a gpu_metrics table of sufficient length, in native byte order.
    """
    layout = PARTITION_LAYOUTS.get(struct.unpack_from("=BB", raw, 2)) if len(raw) >= 4 else None
    if layout is None or len(raw) < layout.first + MAX_PARTITIONS * layout.size:
        return ()
    (count,) = struct.unpack_from("=H", raw, layout.number)
    if not 1 < count <= MAX_PARTITIONS:
        return ()
    return tuple(_mean_activity(raw, layout.first + number * layout.size) for number in range(count))


def _mean_activity(raw: bytes, offset: int) -> float | None:
    """The mean over the partition's dies; those that it does not have are not filled in."""
    percent: list[int] = [
        value for value in struct.unpack_from(f"={MAX_DIES}I", raw, offset) if value != _NOT_FILLED_IN
    ]
    if not percent or max(percent) > 100:
        return None
    return sum(percent) / len(percent) / 100


@dataclass
class Partition:
    """A partition observed since the start."""

    identity: DeviceIdentity
    meter: BusyMeter


class PartitionReader:
    """The partitions of all GPUs. `sysfs` is where KFD lists their memory."""

    def __init__(self, sysfs: str) -> None:
        self._nodes_folder = f"{sysfs}/class/kfd/kfd/topology/nodes"
        self._partitions: dict[tuple[str, str, int], Partition] = {}
        self._memory: dict[tuple[str, str], dict[int, int]] = {}

    def readings(
        self, card: DrmCard, whole: DeviceIdentity, activity: Sequence[float | None], now: float
    ) -> list[DeviceReading]:
        """One reading per partition. `activity` is that of each; `now` is monotonic seconds."""
        if not activity:
            return []
        mode = read_text(f"{card.device}/current_compute_partition").lower()
        key = (card.address, f"{mode}/{len(activity)}")
        if key not in self._memory:  # a change of the mode creates KFD's nodes again
            self._memory = {other: sizes for other, sizes in self._memory.items() if other[0] != card.address}
            self._memory[key] = dict(self._memory_by_partition(card.address))
        return [
            self._reading(self._partition(whole, mode, number), ratio, self._memory[key].get(number), now)
            for number, ratio in enumerate(activity)
        ]

    def _partition(self, whole: DeviceIdentity, mode: str, number: int) -> Partition:
        key = (whole.uuid, mode, number)
        known = self._partitions.get(key)
        if known is None:
            identity = replace(
                whole,
                uuid=f"{whole.uuid}-{mode or 'xcp'}{number}",
                index=f"{whole.index}:{number}",
                parent_uuid=whole.uuid,
                mig_profile=mode,
            )
            known = self._partitions[key] = Partition(identity, BusyMeter())
        return known

    def _reading(self, partition: Partition, ratio: float | None, memory: int | None, now: float) -> DeviceReading:
        meter = partition.meter
        meter.update(now, None, None if ratio is None else 100 * ratio)
        values = CardReadings()  # the board's sensors are in the reading of the whole GPU
        if ratio is not None:
            values.add(metrics.UTILIZATION, round(ratio, 4))
        values.add_busy(meter, BusySource.GAUGE)
        if memory is not None:
            values.add(metrics.MEMORY_TOTAL, memory)
        return values.of(partition.identity)

    def _memory_by_partition(self, address: str) -> Iterator[tuple[int, int]]:
        """(number of the partition, bytes) from KFD, for the GPU at this PCI address."""
        domain, bus, slot, function = (int(part, 16) for part in address.replace(".", ":").split(":"))
        location = bus << 8 | slot << 3 | function
        for name in list_names(self._nodes_folder, r"\d+"):
            node = f"{self._nodes_folder}/{name}"
            found = _properties(f"{node}/properties")
            if not found.get("location_id", "").isdigit() or int(found.get("domain") or 0) != domain:
                continue
            if int(found["location_id"]) & 0xFFFF != location:
                continue
            banks = [
                _properties(f"{node}/mem_banks/{bank}/properties") for bank in list_names(f"{node}/mem_banks", r"\d+")
            ]
            sizes = [int(bank["size_in_bytes"]) for bank in banks if bank.get("heap_type") in _GPU_HEAP_TYPES]
            if sum(sizes):
                yield int(found["location_id"]) >> _PARTITION_SHIFT, sum(sizes)


def _properties(path: str) -> dict[str, str]:
    """Lines such as `location_id 49408`; empty if the file cannot be read."""
    return dict(line.partition(" ")[::2] for line in read_text(path).splitlines())
