"""Intel GPUs through the sysfs files of i915 and xe, and their perf counters.

Kernel documents: ABI/testing/sysfs-driver-intel-i915-hwmon and -xe-hwmon, Documentation/gpu/xe/xe_gt_freq.rst,
drivers/gpu/drm/i915/i915_pmu.c (`*-busy`, nanoseconds), drivers/gpu/drm/xe/xe_pmu.c (`engine-*-ticks`, the fields of
their config), drivers/gpu/drm/ttm/ttm_resource.c (`vram0_mm` in debugfs).

Sleep residency (rc6) is not exported as idle time: a GPU that is awake is not necessarily busy.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from gpu_exporter import metrics
from gpu_exporter.devices.card_readings import CardReadings
from gpu_exporter.devices.drm import DrmCard, DrmDriver, DrmGpu
from gpu_exporter.devices.meters import BusySource
from gpu_exporter.devices.perf import CounterBackend, PerfCounters
from gpu_exporter.devices.sysfs import (
    BYTES,
    LINK_WIDTH,
    MICROWATTS,
    MILLICELSIUS,
    SysfsSource,
    SysfsValueError,
    hwmon_paths,
    keyed_value,
    link_generation,
    list_names,
    parse_int,
    paths_by_label,
    read_file,
    read_text,
    scaled_int,
)
from gpu_exporter.snapshot import AbsenceReason

MODEL_NAMES = {
    "8086:56a0": "Intel Arc A770",
    "8086:56a1": "Intel Arc A750",
    "8086:56a5": "Intel Arc A380",
    "8086:56c0": "Intel Data Center GPU Flex 170",
    "8086:56c1": "Intel Data Center GPU Flex 140",
    "8086:0bd5": "Intel Data Center GPU Max 1550",
    "8086:0bda": "Intel Data Center GPU Max 1100",
    "8086:e20b": "Intel Arc B580",
    "8086:e20c": "Intel Arc B570",
}
"""From pci-ids: sysfs has no product name. All others are looked up in the system's pci.ids."""

INTEGRATED_GPU_ADDRESS = re.compile(r"[0-9a-f]+:00:02\.0")
"""The fixed PCI address of integrated graphics."""

THROTTLE_FILES = {
    "sw_power_cap": ("pl1", "pl2"),
    "current_limit": ("pl4", "vr_tdc"),
    "hw_thermal": ("thermal", "ratl", "vr_thermalert"),
    "prochot": ("prochot",),
}
"""Reasons that NVIDIA or AMD also have are named the same."""

RENDER_CLASS, COMPUTE_CLASS = 0, 4
"""Engine classes of xe (uapi/drm/xe_drm.h) that run kernels. Copy and video engines do not count as busy."""

MAX_COMPUTE_INSTANCES = 16

MAX_WATTS = 1500.0
"""More than any board draws, the Data Center GPU Max 1550 with its 600 W included: the energy counter jumped, as on a
B580 (flightlessmango/MangoHud#1793)."""

_MEGAHERTZ = scaled_int(20_000, times=1e6)
_MICROJOULES = scaled_int(2**64, per=1e6)


@dataclass
class EngineCounters:
    """Handles of the busy counter and, if it counts ticks, of the counter of all ticks; `before`: their last values."""

    busy: int
    total: int | None
    before: tuple[int, int] | None = None


@dataclass
class CardState:
    """State of a card between readings."""

    engines: list[EngineCounters] | None = None
    absence_reason: AbsenceReason = AbsenceReason.UNSUPPORTED
    energy: tuple[float, float] | None = None  # monotonic seconds, joules
    throttle: list[tuple[str, str]] = field(default_factory=list)  # reason and file


class IntelDriver(DrmDriver):
    """All Intel GPUs of i915 or xe, including integrated ones.

    Utilization is the mean of the busiest render or compute engine since the last reading: a lower bound if several
    engines alternate. Power is the mean since the last reading, from the energy counter.
    """

    vendor = "intel"
    kernel_drivers = ("i915", "xe")
    busy_source = BusySource.DRIVER
    max_gap_seconds = 3600.0  # counters have no gaps between readings

    def __init__(
        self,
        sysfs: Path = Path("/sys"),
        procfs: Path = Path("/proc"),
        clock: Callable[[], float] = time.monotonic,
        counters: CounterBackend | None = None,
    ) -> None:
        super().__init__(sysfs, procfs, clock)
        self._counters = counters or PerfCounters()
        self._card_states: dict[str, CardState] = {}

    def _name(self, card: DrmCard) -> str:
        if card.pci_id in MODEL_NAMES:
            return MODEL_NAMES[card.pci_id]
        kind = "integrated graphics" if INTEGRATED_GPU_ADDRESS.fullmatch(card.address) else "GPU"
        return f"Intel {self._pci_names.name(card.pci_id) or f'{kind} {card.pci_id}'}"

    def _serial(self, card: DrmCard) -> str:
        return ""

    def _sources(self, card: DrmCard) -> tuple[Iterable[SysfsSource], Iterable[SysfsSource]]:
        folder, device = card.folder, card.device
        memory = f"{self._sysfs}/kernel/debug/dri/{card.number}/vram0_mm"
        live = [
            SysfsSource(metrics.SM_CLOCK, f"{folder}/gt/gt0/rps_act_freq_mhz", _MEGAHERTZ),
            SysfsSource(metrics.SM_CLOCK, f"{folder}/gt_act_freq_mhz", _MEGAHERTZ),
            SysfsSource(metrics.SM_CLOCK, f"{device}/tile0/gt0/freq0/act_freq", _MEGAHERTZ),
        ]
        slow = [
            SysfsSource(metrics.SM_CLOCK_MAX, f"{folder}/gt/gt0/rps_RP0_freq_mhz", _MEGAHERTZ),
            SysfsSource(metrics.SM_CLOCK_MAX, f"{folder}/gt_RP0_freq_mhz", _MEGAHERTZ),
            SysfsSource(metrics.SM_CLOCK_MAX, f"{folder}/gt_max_freq_mhz", _MEGAHERTZ),
            SysfsSource(metrics.SM_CLOCK_MAX, f"{device}/tile0/gt0/freq0/rp0_freq", _MEGAHERTZ),
            SysfsSource(metrics.SM_CLOCK_MAX, f"{device}/tile0/gt0/freq0/max_freq", _MEGAHERTZ),
        ]
        if not INTEGRATED_GPU_ADDRESS.fullmatch(card.address):
            link = card.pcie_link_folder()
            live += [
                SysfsSource(metrics.MEMORY_USED, memory, keyed_value(b"usage", BYTES)),
                SysfsSource(metrics.PCIE_GENERATION, f"{link}/current_link_speed", link_generation),
                SysfsSource(metrics.PCIE_WIDTH, f"{link}/current_link_width", LINK_WIDTH),
            ]
            slow += [
                SysfsSource(metrics.MEMORY_TOTAL, f"{folder}/lmem_total_bytes", BYTES),
                SysfsSource(metrics.MEMORY_TOTAL, memory, keyed_value(b"size", BYTES)),
            ]
        for hwmon in _card_hwmon(hwmon_paths(device)):
            live += _sensors(hwmon)
        return live, slow

    def _state_of(self, gpu: DrmGpu) -> CardState:
        return self._card_states.setdefault(gpu.identity.uuid, CardState())

    def _rescan(self, gpu: DrmGpu, now: float) -> None:
        super()._rescan(gpu, now)
        state = self._state_of(gpu)
        state.throttle = _throttle_files(gpu.card)
        state.engines = state.engines or None  # retry: permissions may have changed

    def _add_readings(self, gpu: DrmGpu, values: CardReadings) -> None:
        state, now = self._state_of(gpu), self._clock()
        self._power(state, values, now)
        _add_throttle_readings(state.throttle, values)
        if state.engines is None:
            self._open_counters(gpu.card, state)
        try:
            busy = self._max_busy_ratio(state)
        except OSError as error:
            self._close_counters(state)
            values.add_absent((metrics.UTILIZATION,), SysfsValueError(AbsenceReason.ERROR, error.errno == errno.ENODEV))
            return
        if busy is None:
            values.absent[metrics.UTILIZATION] = AbsenceReason.ERROR if state.engines else state.absence_reason
        else:
            values.add(metrics.UTILIZATION, busy)

    def _reset(self, gpu: DrmGpu) -> None:
        state = self._state_of(gpu)
        self._close_counters(state)
        state.energy = None

    def _power(self, state: CardState, values: CardReadings, now: float) -> None:
        joules, before = values.value(metrics.ENERGY), state.energy
        if joules is None:
            values.absent[metrics.POWER] = values.absent.get(metrics.ENERGY, AbsenceReason.UNSUPPORTED)
            return
        state.energy = (now, joules)
        seconds, used = (now - before[0], joules - before[1]) if before else (0.0, 0.0)
        if seconds > 0 and 0 <= used <= MAX_WATTS * seconds:
            values.add(metrics.POWER, used / seconds)
        else:  # the first of two readings that a mean needs, or the counter was reset, or jumped
            values.absent[metrics.POWER] = AbsenceReason.ERROR

    def _open_counters(self, card: DrmCard, state: CardState) -> None:
        """Open the counters. While open, those of xe keep the card from suspending."""
        state.engines, state.absence_reason = [], AbsenceReason.UNSUPPORTED
        devices = f"{self._sysfs}/bus/event_source/devices"
        folder = f"{devices}/{card.driver}_{card.address.replace(':', '_')}"
        if INTEGRATED_GPU_ADDRESS.fullmatch(card.address) and not os.path.isdir(folder):
            folder = f"{devices}/{card.driver}"
        try:
            pmu = parse_int(read_file(f"{folder}/type"))
        except SysfsValueError:
            return
        first = re.match(r"\d+", read_text(f"{folder}/cpumask"))
        cpu = int(first.group()) if first else 0
        for busy, total in _engine_configs(folder, card.driver):
            try:
                state.engines.append(self._open(pmu, cpu, busy, total))
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.EINVAL):
                    continue  # no such engine
                denied = error.errno in (errno.EACCES, errno.EPERM)
                state.absence_reason = AbsenceReason.NO_PERMISSION if denied else AbsenceReason.ERROR
                return

    def _open(self, pmu: int, cpu: int, busy: int, total: int | None) -> EngineCounters:
        handle = self._counters.open(pmu, busy, cpu)
        try:
            return EngineCounters(handle, None if total is None else self._counters.open(pmu, total, cpu))
        except OSError:
            self._counters.close(handle)
            raise

    def _max_busy_ratio(self, state: CardState) -> float | None:
        """Busy ratio of the busiest engine since the last reading; None at the first. Raises OSError."""
        shares = []
        for engine in state.engines or ():
            busy, passed = self._counters.read(engine.busy)
            if engine.total is not None:
                passed, _ = self._counters.read(engine.total)
            if engine.before and passed > engine.before[1]:
                shares.append(min(1.0, max(0.0, (busy - engine.before[0]) / (passed - engine.before[1]))))
            engine.before = (busy, passed)
        return max(shares) if shares else None

    def _close_counters(self, state: CardState) -> None:
        for engine in state.engines or ():
            self._counters.close(engine.busy)
            if engine.total is not None:
                self._counters.close(engine.total)
        state.engines = None


def _engine_configs(folder: str, driver: str) -> Iterator[tuple[int, int | None]]:
    """(config of the busy counter, config of the total counter or None) of each engine."""
    if driver == "i915":
        for name in list_names(f"{folder}/events", r"(rcs|ccs)\d+-busy"):
            match = re.fullmatch(r"config=(0x[0-9a-fA-F]+)", read_text(f"{folder}/events/{name}"))
            if match:
                yield int(match[1], 16), None
        return
    events = [read_text(f"{folder}/events/engine-{kind}-ticks") for kind in ("active", "total")]
    numbers = [re.fullmatch(r"event=(0x[0-9a-fA-F]+)", event) for event in events]
    if numbers[0] and numbers[1]:
        active, total = int(numbers[0][1], 16), int(numbers[1][1], 16)
        # sysfs does not list the engines: opening a missing one fails.
        for engine in (
            RENDER_CLASS << 20,
            *(COMPUTE_CLASS << 20 | instance << 12 for instance in range(MAX_COMPUTE_INSTANCES)),
        ):
            yield active | engine, total | engine


def _card_hwmon(folders: Iterable[str]) -> list[str]:
    """The sensors of the whole card; i915 has further ones per GT."""
    return [folder for folder in folders if read_text(f"{folder}/name") in ("i915", "xe")][:1]


def _sensors(hwmon: str) -> Iterator[SysfsSource]:
    temperatures = paths_by_label(hwmon, "temp")
    yield SysfsSource(metrics.TEMPERATURE, f"{temperatures.get('pkg', f'{hwmon}/temp1')}_input", MILLICELSIUS)
    # Channel 1 is the card, 2 the package: some cards only have the latter.
    for channel in (1, 2):
        yield SysfsSource(metrics.POWER_LIMIT, f"{hwmon}/power{channel}_max", MICROWATTS)
        yield SysfsSource(metrics.ENERGY, f"{hwmon}/energy{channel}_input", _MICROJOULES)


def _throttle_files(card: DrmCard) -> list[tuple[str, str]]:
    """(reason, path) of each existing throttle file, for all GTs."""
    folders = [(f"{card.folder}/gt/{gt}", "throttle_reason_") for gt in list_names(f"{card.folder}/gt", r"gt\d+")]
    for tile in (f"{card.device}/{name}" for name in list_names(card.device, r"tile\d+")):
        folders += [(f"{tile}/{gt}/freq0/throttle", "reason_") for gt in list_names(tile, r"gt\d+")]
    found = []
    for folder, prefix in folders:
        present = set(list_names(folder, rf"{prefix}\w+"))
        for reason, kinds in THROTTLE_FILES.items():
            found += [(reason, f"{folder}/{prefix}{kind}") for kind in kinds if prefix + kind in present]
    return found


def _add_throttle_readings(files: Iterable[tuple[str, str]], values: CardReadings) -> None:
    active: dict[str, float] = {}
    for reason, path in files:
        try:
            active[reason] = max(active.get(reason, 0.0), scaled_int(1)(read_file(path)))
        except SysfsValueError as why:
            values.add_absent((metrics.THROTTLE_ACTIVE,), why)
    for reason, value in active.items():
        values.add(metrics.THROTTLE_ACTIVE, value, reason)
