"""AMD GPUs through amdgpu's sysfs files.

Kernel documents: Documentation/gpu/amdgpu/thermal.rst and driver-misc.rst (each file's unit), gpu/amdgpu/ras.rst
(`ras/*_err_count`); the binary table `gpu_metrics` is drivers/gpu/drm/amd/include/kgd_pp_interface.h, the bits of its
throttle status drivers/gpu/drm/amd/pm/swsmu/inc/amdgpu_smu.h.

An APU has two pools of the CPU's memory: the carve-out that the firmware sets aside (`vram`), and what the kernel maps
on demand (`gtt`). In the larger one the kernel places the memory of compute processes (commits 8b0d068e7dd1 and
759e764f7d58), and amd-smi shows it (ROCm/rocm-systems#1967): here, too, it is the memory of the GPU.
"""

from __future__ import annotations

import re
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from gpu_exporter import metrics
from gpu_exporter.devices.amd_partitions import PartitionReader, parse_partitions
from gpu_exporter.devices.card_readings import CardReadings
from gpu_exporter.devices.drm import DrmCard, DrmDriver, DrmGpu
from gpu_exporter.devices.sysfs import (
    BYTES,
    COUNT,
    LINK_WIDTH,
    MICROWATTS,
    MILLICELSIUS,
    PERCENT,
    SysfsSource,
    SysfsValueError,
    hwmon_paths,
    keyed_value,
    link_generation,
    paths_by_label,
    read_file,
    read_text,
    scaled_int,
)
from gpu_exporter.snapshot import AbsenceReason, DeviceReading

MODEL_NAMES = {
    "1002:738c": "AMD Instinct MI100",
    "1002:7408": "AMD Instinct MI250X",
    "1002:740c": "AMD Instinct MI250X",
    "1002:740f": "AMD Instinct MI210",
    "1002:74a0": "AMD Instinct MI300A",
    "1002:74a1": "AMD Instinct MI300X",
    "1002:74a5": "AMD Instinct MI325X",
    "1002:73bf": "AMD Radeon RX 6800/6900",
    "1002:744c": "AMD Radeon RX 7900",
    "1002:7448": "AMD Radeon PRO W7900",
}
"""From pci-ids, for cards without `product_name`, which only some server boards have. All others are looked up."""

APU_TABLE_FORMATS = (2, 3)
"""Format revisions of `gpu_metrics` that only APUs have."""

APU_PCI_IDS = frozenset({
    "1002:1506", "1002:150e", "1002:1586", "1002:15bf", "1002:15c8", "1002:15d8", "1002:15dd", "1002:15e7", "1002:1636",
    "1002:1638", "1002:163f", "1002:164c", "1002:164e", "1002:1681", "1002:1900", "1002:1901", "1002:1114", "1002:74a0",
})  # fmt: skip
"""APUs in pci-ids, from Raven to Strix Halo, and the MI300A: for those without a table, or one of a server chip."""

JOULES_PER_COUNT = 2.0**-16
"""`gpu_metrics` counts energy in units of 15.259 microjoules."""

THROTTLE_BITS = {
    "sw_power_cap": range(8),
    "current_limit": range(16, 24),
    "hw_thermal": range(32, 46),
    "prochot": range(46, 48),
    "other": (*range(8, 16), *range(24, 32), *range(48, 64)),
}
"""Bits of the ASIC-independent throttle status. Reasons that NVIDIA also has are named as NVIDIA's."""

THROTTLE_MASKS = {reason: sum(1 << bit for bit in bits) for reason, bits in THROTTLE_BITS.items()}


class GpuMetricsLayout(NamedTuple):
    """Offsets in bytes. `energy_marker` is a 32-bit field that only chips with an energy counter fill in."""

    size: int
    activity: int
    energy: int | None = None
    energy_marker: int | None = None
    throttle: int | None = None


GPU_METRICS_LAYOUTS = {
    (1, 1): GpuMetricsLayout(96, 16, energy=24, energy_marker=80),
    (1, 2): GpuMetricsLayout(104, 16, energy=24, energy_marker=80),
    (1, 3): GpuMetricsLayout(120, 16, energy=24, energy_marker=80, throttle=112),
    (1, 4): GpuMetricsLayout(288, 12, energy=24),
    (1, 5): GpuMetricsLayout(328, 12, energy=56),
    (1, 6): GpuMetricsLayout(1664, 12, energy=16),
    (1, 7): GpuMetricsLayout(2208, 12, energy=24),
    (1, 8): GpuMetricsLayout(3360, 12, energy=24),
}
"""By format and content revision. A withdrawn 1.6 was smaller than the present one: sizes are checked.

Of 1.1 to 1.3 only the server chips (Arcturus, Aldebaran) document the unit of energy; they alone fill in the
accumulated activity. 1.0 is not naturally aligned and documents no unit; tables of APUs (2.x, 3.x) have no energy. 1.9
is a list of attributes.
"""


class GpuMetricsTable(NamedTuple):
    """The values used from `gpu_metrics`; None if the table does not have them."""

    activity: float | None
    joules: float | None
    throttle: int | None
    partitions: tuple[float | None, ...] = ()
    """The activity of each partition; empty for a GPU that is not partitioned."""


def parse_gpu_metrics(raw: bytes) -> GpuMetricsTable:
    """Parse the binary table. Raises SysfsValueError: unsupported if the revision is unknown, error if it is truncated.

    Numbers are in native byte order; all bits set means "not filled in".
    """
    if len(raw) < 4:
        raise SysfsValueError(AbsenceReason.ERROR)
    size, revision, content = struct.unpack_from("=HBB", raw)
    layout = GPU_METRICS_LAYOUTS.get((revision, content))
    if layout is None:
        raise SysfsValueError(AbsenceReason.UNSUPPORTED)
    if not layout.size <= size <= len(raw):
        raise SysfsValueError(AbsenceReason.ERROR)
    activity = _read_field(raw, "=H", layout.activity)
    counts_energy = layout.energy_marker is None or _read_field(raw, "=I", layout.energy_marker) is not None
    energy = _read_field(raw, "=Q", layout.energy) if counts_energy else None
    return GpuMetricsTable(
        activity=activity / 100 if activity is not None and activity <= 100 else None,
        joules=energy * JOULES_PER_COUNT if energy else None,  # 0 on the second die of a package, which has no counter
        throttle=_read_field(raw, "=Q", layout.throttle),
        partitions=parse_partitions(raw),
    )


def _read_field(raw: bytes, form: str, offset: int | None) -> int | None:
    if offset is None:
        return None
    (value,) = struct.unpack_from(form, raw, offset)
    return None if value == (1 << 8 * struct.calcsize(form)) - 1 else int(value)


def parse_max_clock(raw: bytes) -> float:
    """Highest level of `pp_dpm_sclk`, in Hz; its lines look like `1: 2100Mhz *`. Raises SysfsValueError."""
    levels = [int(level) for level in re.findall(rb"^\w+:\s*(\d{1,5})\s*mhz", raw, re.IGNORECASE | re.MULTILINE)]
    if not levels or max(levels) == 0:
        raise SysfsValueError(AbsenceReason.ERROR)
    return max(levels) * 1e6


MEMORY_POOLS = ("vram", "gtt")
_POOL_BYTES = scaled_int(2**50, min_value=1)
_HERTZ = scaled_int(2 * 10**10)


def _pool_bytes(card: DrmCard, pool: str) -> float:
    """The size of a pool of memory; 0 if it cannot be read."""
    try:
        return _POOL_BYTES(read_file(f"{card.device}/mem_info_{pool}_total"))
    except SysfsValueError:
        return 0


class AmdDriver(DrmDriver):
    """All AMD GPUs of the amdgpu driver. As in the kernel, each die of an MI250X is a GPU of its own."""

    vendor = "amd"
    kernel_drivers = ("amdgpu",)

    def __init__(
        self, sysfs: Path = Path("/sys"), procfs: Path = Path("/proc"), clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(sysfs, procfs, clock)
        self._partition_reader = PartitionReader(self._sysfs)
        #: By uuid of the whole GPU, as last read: the card, and the activity of each partition.
        self._partition_activity: dict[str, tuple[DrmCard, tuple[float | None, ...]]] = {}

    def _name(self, card: DrmCard) -> str:
        name = read_text(f"{card.device}/product_name") or MODEL_NAMES.get(card.pci_id, "")
        return name or f"AMD {self._pci_names.name(card.pci_id) or f'GPU {card.pci_id}'}"

    def _serial(self, card: DrmCard) -> str:
        unique = read_text(f"{card.device}/unique_id")
        return unique if unique.strip("0") else ""

    def _shares_memory(self, card: DrmCard) -> bool:
        if card.pci_id in APU_PCI_IDS:
            return True
        if card.suspended:  # reading the table would wake it
            return False
        try:
            table = read_file(f"{card.device}/gpu_metrics")
        except SysfsValueError:
            return False
        return len(table) > 2 and table[2] in APU_TABLE_FORMATS

    def _sources(self, card: DrmCard) -> tuple[Iterable[SysfsSource], Iterable[SysfsSource]]:
        link = card.pcie_link_folder()
        pool = "vram"
        if self._shares_memory(card):
            pool = max(MEMORY_POOLS, key=lambda pool: _pool_bytes(card, pool))
        live = [
            SysfsSource(metrics.UTILIZATION, f"{card.device}/gpu_busy_percent", PERCENT),
            SysfsSource(metrics.MEMORY_ACTIVITY, f"{card.device}/mem_busy_percent", PERCENT),
            SysfsSource(metrics.MEMORY_USED, f"{card.device}/mem_info_{pool}_used", BYTES),
            SysfsSource(metrics.PCIE_GENERATION, f"{link}/current_link_speed", link_generation),
            SysfsSource(metrics.PCIE_WIDTH, f"{link}/current_link_width", LINK_WIDTH),
        ]
        for hwmon in hwmon_paths(card.device)[:1]:
            live += _sensors(hwmon)
        slow = [
            SysfsSource(metrics.MEMORY_TOTAL, f"{card.device}/mem_info_{pool}_total", _POOL_BYTES),
            SysfsSource(metrics.SM_CLOCK_MAX, f"{card.device}/pp_dpm_sclk", parse_max_clock),
            SysfsSource(metrics.PCIE_REPLAYS, f"{card.device}/pcie_replay_count", COUNT),
            # Each read makes the driver query the memory controllers.
            SysfsSource(
                metrics.ECC_ERRORS, f"{card.device}/ras/umc_err_count", keyed_value(b"ce", COUNT), ("corrected",)
            ),
            SysfsSource(
                metrics.ECC_ERRORS, f"{card.device}/ras/umc_err_count", keyed_value(b"ue", COUNT), ("uncorrected",)
            ),
        ]
        if self._shares_memory(card):
            for each in MEMORY_POOLS:
                live.append(
                    SysfsSource(metrics.MEMORY_POOL_USED, f"{card.device}/mem_info_{each}_used", BYTES, (each,))
                )
                slow.append(
                    SysfsSource(metrics.MEMORY_POOL_TOTAL, f"{card.device}/mem_info_{each}_total", BYTES, (each,))
                )
        return live, slow

    def _add_readings(self, gpu: DrmGpu, values: CardReadings) -> None:
        families = (metrics.ENERGY, metrics.THROTTLE_ACTIVE)
        try:
            table = parse_gpu_metrics(read_file(f"{gpu.card.device}/gpu_metrics"))
        except SysfsValueError as why:
            # Old chips have no table: a missing file does not mean that the card was removed.
            values.absent.update(dict.fromkeys(families, why.reason))
            return
        if table.partitions:
            self._partition_activity[gpu.identity.uuid] = (gpu.card, table.partitions)
            # As with MIG: the partitions report it, and the sum over all GPUs counts nothing twice.
            values.readings = [each for each in values.readings if each.family is not metrics.UTILIZATION]
            values.absent[metrics.UTILIZATION] = AbsenceReason.UNSUPPORTED
        if table.joules is not None:
            values.add(metrics.ENERGY, table.joules)
        if table.throttle is not None:
            for reason, mask in THROTTLE_MASKS.items():
                values.add(metrics.THROTTLE_ACTIVE, float(bool(table.throttle & mask)), reason)
        # Some chips have the file and refuse to read it, or none at all. One that fails is an error.
        has_gauge = values.value(metrics.UTILIZATION) is not None
        refused = values.absent.get(metrics.UTILIZATION, AbsenceReason.UNSUPPORTED) is AbsenceReason.UNSUPPORTED
        if table.activity is not None and refused and not has_gauge and not table.partitions:
            values.absent.pop(metrics.UTILIZATION, None)
            values.add(metrics.UTILIZATION, table.activity)

    def _partitions(self, whole: DeviceReading) -> Iterable[DeviceReading]:
        card, activity = self._partition_activity.pop(whole.identity.uuid, (None, ()))
        if card is None or whole.down:
            return ()
        return self._partition_reader.readings(card, whole.identity, activity, self._clock())

    def _reset(self, gpu: DrmGpu) -> None:
        self._partition_activity.pop(gpu.identity.uuid, None)


def _sensors(hwmon: str) -> Iterator[SysfsSource]:
    temperatures = paths_by_label(hwmon, "temp")
    # `edge` is the core temperature. Multi-die chips have no edge sensor: use the hot spot (`junction`) instead.
    for kind in ("edge", "junction"):
        if kind in temperatures:
            yield SysfsSource(metrics.TEMPERATURE, f"{temperatures[kind]}_input", MILLICELSIUS)
    if not temperatures:
        yield SysfsSource(metrics.TEMPERATURE, f"{hwmon}/temp1_input", MILLICELSIUS)
    yield SysfsSource(metrics.POWER, f"{hwmon}/power1_average", MICROWATTS)
    yield SysfsSource(metrics.POWER, f"{hwmon}/power1_input", MICROWATTS)
    yield SysfsSource(metrics.POWER_LIMIT, f"{hwmon}/power1_cap", MICROWATTS)
    clocks = paths_by_label(hwmon, "freq")
    yield SysfsSource(metrics.SM_CLOCK, f"{clocks.get('sclk', f'{hwmon}/freq1')}_input", _HERTZ)
    yield SysfsSource(metrics.MEMORY_CLOCK, f"{clocks.get('mclk', f'{hwmon}/freq2')}_input", _HERTZ)
    yield SysfsSource(metrics.FAN_SPEED, f"{hwmon}/pwm1", scaled_int(255, per=255))
    top = read_text(f"{hwmon}/fan1_max")
    if top.isdigit() and int(top) > 0:
        yield SysfsSource(metrics.FAN_SPEED, f"{hwmon}/fan1_input", scaled_int(int(top) * 1.5, per=int(top)))
