"""AMD GPUs through amdgpu's sysfs files.

Kernel documents: Documentation/gpu/amdgpu/thermal.rst and driver-misc.rst (each file's unit), gpu/amdgpu/ras.rst
(`ras/*_err_count`); the binary table `gpu_metrics` is drivers/gpu/drm/amd/include/kgd_pp_interface.h, the bits of its
throttle status drivers/gpu/drm/amd/pm/swsmu/inc/amdgpu_smu.h.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from gpu_exporter import metrics
from gpu_exporter.devices.drm import Card, DrmDriver, Gpu
from gpu_exporter.devices.sysfs import (
    BYTES,
    COUNT,
    LINK_WIDTH,
    MICROWATTS,
    MILLICELSIUS,
    PERCENT,
    Line,
    NoValue,
    Values,
    entry,
    hwmons,
    labelled,
    link_generation,
    read,
    scaled,
    text,
)
from gpu_exporter.snapshot import AbsentReason

NAMES = {
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
"""Of cards whose board does not tell its name (`product_name` is there for some server boards only); pci-ids."""

JOULES_PER_COUNT = 2.0**-16
"""The table counts energy in units of 15.259 microjoules."""

THROTTLE_BITS = {
    "sw_power_cap": range(8),
    "current_limit": range(16, 24),
    "hw_thermal": range(32, 46),
    "prochot": range(46, 48),
    "other": (*range(8, 16), *range(24, 32), *range(48, 64)),
}
"""Bits of the throttle status that is the same for all chips. Named as NVIDIA's where it is the same thing."""

THROTTLE_MASKS = {reason: sum(1 << bit for bit in bits) for reason, bits in THROTTLE_BITS.items()}


class Layout(NamedTuple):
    """Where in a table what stands, in bytes. `filled` is a 32-bit field that only those who count energy fill."""

    size: int
    activity: int
    energy: int | None = None
    filled: int | None = None
    throttle: int | None = None


LAYOUTS = {
    (1, 1): Layout(96, 16, energy=24, filled=80),
    (1, 2): Layout(104, 16, energy=24, filled=80),
    (1, 3): Layout(120, 16, energy=24, filled=80, throttle=112),
    (1, 4): Layout(288, 12, energy=24),
    (1, 5): Layout(328, 12, energy=56),
    (1, 6): Layout(1664, 12, energy=16),
    (1, 7): Layout(2208, 12, energy=24),
    (1, 8): Layout(3360, 12, energy=24),
}
"""By format and content revision. A 1.6 that was taken back again is smaller than its namesake: sizes are checked.

Of 1.1 to 1.3 only the server chips (Arcturus, Aldebaran) state the unit of energy; they alone fill the accumulated
activity. 1.0 has no natural alignment and no such unit; tables of APUs (2.x, 3.x) have no energy. 1.9 is a list.
"""


class Table(NamedTuple):
    """What is wanted of `gpu_metrics`; None where this table does not say."""

    activity: float | None
    joules: float | None
    throttle: int | None


def parse_table(raw: bytes) -> Table:
    """The binary table. Raises NoValue: unsupported for an unknown revision, error for a table that is cut short.

    Numbers are in the machine's own byte order; all bits set means "not filled in".
    """
    if len(raw) < 4:
        raise NoValue(AbsentReason.ERROR)
    size, revision, content = struct.unpack_from("=HBB", raw)
    layout = LAYOUTS.get((revision, content))
    if layout is None:
        raise NoValue(AbsentReason.UNSUPPORTED)
    if not layout.size <= size <= len(raw):
        raise NoValue(AbsentReason.ERROR)
    activity = _field(raw, "=H", layout.activity)
    counted = layout.filled is None or _field(raw, "=I", layout.filled) is not None
    energy = _field(raw, "=Q", layout.energy) if counted else None
    return Table(
        activity=activity / 100 if activity is not None and activity <= 100 else None,
        joules=energy * JOULES_PER_COUNT if energy else None,  # 0: the second die of a package does not count
        throttle=_field(raw, "=Q", layout.throttle),
    )


def _field(raw: bytes, form: str, offset: int | None) -> int | None:
    if offset is None:
        return None
    (value,) = struct.unpack_from(form, raw, offset)
    return None if value == (1 << 8 * struct.calcsize(form)) - 1 else int(value)


def top_clock(raw: bytes) -> float:
    """Hertz of the highest level of `pp_dpm_sclk`, whose lines are like `1: 2100Mhz *`. Raises NoValue."""
    levels = [int(level) for level in re.findall(rb"^\w+:\s*(\d{1,5})\s*mhz", raw, re.IGNORECASE | re.MULTILINE)]
    if not levels or max(levels) == 0:
        raise NoValue(AbsentReason.ERROR)
    return max(levels) * 1e6


_HERTZ = scaled(2 * 10**10)


class AmdDriver(DrmDriver):
    """All AMD GPUs that the amdgpu driver runs. Each die of an MI250X is a GPU of its own, as the kernel has it."""

    vendor = "amd"
    drivers = ("amdgpu",)

    def _name(self, card: Card) -> str:
        return text(f"{card.device}/product_name") or NAMES.get(card.pci_id, f"AMD GPU {card.pci_id}")

    def _serial(self, card: Card) -> str:
        unique = text(f"{card.device}/unique_id")
        return unique if unique.strip("0") else ""

    def _lines(self, card: Card) -> tuple[Iterable[Line], Iterable[Line]]:
        link = card.link()
        live = [
            Line(metrics.UTILIZATION, f"{card.device}/gpu_busy_percent", PERCENT),
            Line(metrics.MEMORY_ACTIVITY, f"{card.device}/mem_busy_percent", PERCENT),
            Line(metrics.MEMORY_USED, f"{card.device}/mem_info_vram_used", BYTES),
            Line(metrics.PCIE_GENERATION, f"{link}/current_link_speed", link_generation),
            Line(metrics.PCIE_WIDTH, f"{link}/current_link_width", LINK_WIDTH),
        ]
        for hwmon in hwmons(card.device)[:1]:
            live += _sensors(hwmon)
        slow = [
            Line(metrics.MEMORY_TOTAL, f"{card.device}/mem_info_vram_total", scaled(2**50, lowest=1)),
            Line(metrics.SM_CLOCK_MAX, f"{card.device}/pp_dpm_sclk", top_clock),
            Line(metrics.PCIE_REPLAYS, f"{card.device}/pcie_replay_count", COUNT),
            # The driver asks the memory controllers at each reading of it.
            Line(metrics.ECC_ERRORS, f"{card.device}/ras/umc_err_count", entry(b"ce", COUNT), ("corrected",)),
            Line(metrics.ECC_ERRORS, f"{card.device}/ras/umc_err_count", entry(b"ue", COUNT), ("uncorrected",)),
        ]
        return live, slow

    def _more(self, gpu: Gpu, values: Values) -> None:
        families = (metrics.ENERGY, metrics.THROTTLED)
        try:
            table = parse_table(read(f"{gpu.card.device}/gpu_metrics"))
        except NoValue as why:
            # A missing table is a matter of the chip's age, not a sign that the card went away.
            values.absent.update(dict.fromkeys(families, why.reason))
            return
        if table.joules is not None:
            values.add(metrics.ENERGY, table.joules)
        if table.throttle is not None:
            for reason, mask in THROTTLE_MASKS.items():
                values.add(metrics.THROTTLED, float(bool(table.throttle & mask)), reason)
        tried = metrics.UTILIZATION in values.absent or values.value(metrics.UTILIZATION) is not None
        if table.activity is not None and not tried:
            values.add(metrics.UTILIZATION, table.activity)

    def _rest(self, gpu: Gpu) -> None:
        """Nothing is kept from one reading to the next."""


def _sensors(hwmon: str) -> Iterator[Line]:
    temperatures = labelled(hwmon, "temp")
    # The edge is what others call the core. Chips of several dies have none: then the hottest spot stands for it.
    for kind in ("edge", "junction"):
        if kind in temperatures:
            yield Line(metrics.TEMPERATURE, f"{temperatures[kind]}_input", MILLICELSIUS)
    if not temperatures:
        yield Line(metrics.TEMPERATURE, f"{hwmon}/temp1_input", MILLICELSIUS)
    yield Line(metrics.POWER, f"{hwmon}/power1_average", MICROWATTS)
    yield Line(metrics.POWER, f"{hwmon}/power1_input", MICROWATTS)
    yield Line(metrics.POWER_LIMIT, f"{hwmon}/power1_cap", MICROWATTS)
    clocks = labelled(hwmon, "freq")
    yield Line(metrics.SM_CLOCK, f"{clocks.get('sclk', f'{hwmon}/freq1')}_input", _HERTZ)
    yield Line(metrics.MEMORY_CLOCK, f"{clocks.get('mclk', f'{hwmon}/freq2')}_input", _HERTZ)
    yield Line(metrics.FAN_SPEED, f"{hwmon}/pwm1", scaled(255, per=255))
    top = text(f"{hwmon}/fan1_max")
    if top.isdigit() and int(top) > 0:
        yield Line(metrics.FAN_SPEED, f"{hwmon}/fan1_input", scaled(int(top) * 1.5, per=int(top)))
