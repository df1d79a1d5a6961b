"""NVIDIA GPUs through NVML.

To add a family is to add a line to `FIXED` or `LIVE`: the family, NVML's function with its arguments, the conversion
to the family's unit, and the values of its labels if it has any. NVML's PCIe throughput is left out on purpose: the
driver measures for 20 ms in each call.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from gpu_exporter import metrics
from gpu_exporter.devices.base import DriverUnavailable
from gpu_exporter.devices.busy import BusyMeter, BusySource
from gpu_exporter.devices.nvml import GpuLost, NoValue, Nvml
from gpu_exporter.metrics import Family
from gpu_exporter.snapshot import Absence, AbsentReason, DeviceReading, DownReason, DriverState, Identity, Reading

log = logging.getLogger(__name__)

RETRY_LOST_SECONDS = 60.0
"""A lost GPU comes back only to a new session. Opening one is slow: not at every read."""

# NVML's numbers for what its functions are asked for (nvml.h).
CORE = 0
SM, MEMORY = 1, 2
CORRECTED, UNCORRECTED = 0, 1
LIFETIME = 1
MEMORY_V2 = 0x02000028

THROTTLE_REASONS = {
    "application_clocks": 0x002,
    "sw_power_cap": 0x004,
    "hw_slowdown": 0x008,
    "sync_boost": 0x010,
    "sw_thermal": 0x020,
    "hw_thermal": 0x040,
    "hw_power_brake": 0x080,
    "display_clocks": 0x100,
}
"""Bits of NVML's clocks event reasons. Bit 0 is left out: an idle GPU is not throttled."""

UINT_MAX = 0xFFFFFFFF
"""What drivers return for "not available" without saying so."""


class Implausible(Exception):
    """The driver gave a number that cannot be."""


Convert = Callable[[Any], float]


class Call(NamedTuple):
    function: str
    arguments: tuple[int, ...] = ()


class Line(NamedTuple):
    family: Family
    call: Call
    convert: Convert
    labels: tuple[str, ...] = ()


def _number(top: float, lowest: float = 0, times: float = 1, per: float = 1, pick: Convert | None = None) -> Convert:
    """`raw * times / per` if raw is from `lowest` to `top`, both in NVML's unit; `pick` takes raw from a structure."""

    def convert(answer: Any) -> float:
        raw = pick(answer) if pick else answer
        if not lowest <= raw <= top:
            raise Implausible(f"{raw} is not between {lowest} and {top}")
        return raw * times / per

    return convert


def _share_of_total(pick: Convert) -> Convert:
    def convert(memory: Any) -> float:
        return _number(memory.total)(pick(memory))

    return convert


def _bit(mask: int) -> Convert:
    return lambda reasons: 1.0 if reasons & mask else 0.0


_MEMORY_INFO = Call("nvmlDeviceGetMemoryInfo", (MEMORY_V2,))
_RATES = Call("nvmlDeviceGetUtilizationRates")
_REASONS = Call("nvmlDeviceGetCurrentClocksEventReasons")
_ECC = "nvmlDeviceGetTotalEccErrors"
_ROWS = Call("nvmlDeviceGetRemappedRows")
_MEGAHERTZ = _number(20_000, times=1_000_000)
_MILLIWATTS = _number(100_000_000, per=1000)
_COUNT = _number(UINT_MAX - 1)
_LONG_COUNT = _number(2**63)

FIXED: tuple[Line, ...] = (
    Line(metrics.MEMORY_TOTAL, _MEMORY_INFO, _number(2**50, lowest=1, pick=lambda m: m.total)),
    Line(metrics.SM_CLOCK_MAX, Call("nvmlDeviceGetMaxClockInfo", (SM,)), _number(20_000, lowest=1, times=1_000_000)),
)
"""Read once in a session."""

LIVE: tuple[Line, ...] = (
    Line(metrics.UTILIZATION, _RATES, _number(100, per=100, pick=lambda u: u.gpu)),
    Line(metrics.MEMORY_ACTIVITY, _RATES, _number(100, per=100, pick=lambda u: u.memory)),
    Line(metrics.MEMORY_USED, _MEMORY_INFO, _share_of_total(lambda m: m.used)),
    Line(metrics.MEMORY_RESERVED, _MEMORY_INFO, _share_of_total(lambda m: m.reserved)),
    Line(metrics.TEMPERATURE, Call("nvmlDeviceGetTemperature", (CORE,)), _number(200)),
    Line(metrics.POWER, Call("nvmlDeviceGetPowerUsage"), _MILLIWATTS),
    Line(metrics.POWER_LIMIT, Call("nvmlDeviceGetEnforcedPowerLimit"), _MILLIWATTS),
    Line(metrics.ENERGY, Call("nvmlDeviceGetTotalEnergyConsumption"), _number(2**63, per=1000)),
    Line(metrics.SM_CLOCK, Call("nvmlDeviceGetClockInfo", (SM,)), _MEGAHERTZ),
    Line(metrics.MEMORY_CLOCK, Call("nvmlDeviceGetClockInfo", (MEMORY,)), _MEGAHERTZ),
    # NVML's own words: the share of the fan's noise limit, which may exceed 100 % in certain cases.
    Line(metrics.FAN_SPEED, Call("nvmlDeviceGetFanSpeed"), _number(200, per=100)),
    Line(metrics.PERFORMANCE_STATE, Call("nvmlDeviceGetPerformanceState"), _number(15)),  # 32 is "unknown"
    Line(metrics.ENCODER, Call("nvmlDeviceGetEncoderUtilization"), _number(100, per=100, pick=lambda u: u[0])),
    Line(metrics.DECODER, Call("nvmlDeviceGetDecoderUtilization"), _number(100, per=100, pick=lambda u: u[0])),
    Line(metrics.PCIE_GENERATION, Call("nvmlDeviceGetCurrPcieLinkGeneration"), _number(16, lowest=1)),
    Line(metrics.PCIE_WIDTH, Call("nvmlDeviceGetCurrPcieLinkWidth"), _number(32, lowest=1)),
    Line(metrics.PCIE_REPLAYS, Call("nvmlDeviceGetPcieReplayCounter"), _COUNT),
    *(Line(metrics.THROTTLED, _REASONS, _bit(mask), (reason,)) for reason, mask in THROTTLE_REASONS.items()),
    Line(metrics.ECC_ERRORS, Call(_ECC, (CORRECTED, LIFETIME)), _LONG_COUNT, ("corrected",)),
    Line(metrics.ECC_ERRORS, Call(_ECC, (UNCORRECTED, LIFETIME)), _LONG_COUNT, ("uncorrected",)),
    Line(metrics.REMAPPED_ROWS, _ROWS, _number(UINT_MAX - 1, pick=lambda r: r[0]), ("correctable",)),
    Line(metrics.REMAPPED_ROWS, _ROWS, _number(UINT_MAX - 1, pick=lambda r: r[1]), ("uncorrectable",)),
    Line(metrics.PROCESSES, Call("compute_process_count"), _COUNT),
)
"""Read each time."""

Plan = tuple[tuple[Call, tuple[Line, ...]], ...]


def _plan(lines: Iterable[Line]) -> Plan:
    """Each call once, with the lines that use its answer."""
    calls: dict[Call, list[Line]] = {}
    for line in lines:
        calls.setdefault(line.call, []).append(line)
    return tuple((call, tuple(users)) for call, users in calls.items())


_FIXED_PLAN = _plan(FIXED)
_LIVE_PLAN = _plan(LIVE)


@dataclass
class _Values:
    readings: list[Reading] = field(default_factory=list)
    absent: dict[Family, AbsentReason] = field(default_factory=dict)


Known = dict[Call, tuple[Any, list[Reading]]]
"""The last answer to each call and the readings made of it: most answers repeat, and so do their readings."""


def _carry_out(nvml: Nvml, handle: Any, plan: Plan, known: Known) -> _Values:
    values = _Values()
    for call, lines in plan:
        try:
            answer = nvml.call(call.function, handle, *call.arguments)
        except NoValue as error:
            for line in lines:
                values.absent[line.family] = error.reason
            continue
        before = known.get(call)
        if before is not None and before[0] == answer:  # structures never are: they are converted each time
            values.readings += before[1]
            continue
        made = _converted(answer, lines, values.absent)
        values.readings += made
        if len(made) == len(lines):  # else why a family is absent must be said again next time
            known[call] = (answer, made)
    # All rows of a family or none: half a family would pass for the whole.
    for family in values.absent:
        if len(family.labels) > 1:
            values.readings = [reading for reading in values.readings if reading.family is not family]
    return values


def _converted(answer: Any, lines: tuple[Line, ...], absent: dict[Family, AbsentReason]) -> list[Reading]:
    readings = []
    for line in lines:
        try:
            readings.append(Reading(line.family, line.convert(answer), line.labels))
        except Implausible:
            absent[line.family] = AbsentReason.ERROR
    return readings


@dataclass
class _Gpu:
    """A GPU in the present session."""

    handle: Any
    identity: Identity
    meter: BusyMeter
    fixed: _Values | None = None
    known: Known = field(default_factory=dict)


class NvidiaDriver:
    """All NVIDIA GPUs of this machine. `clock` gives monotonic seconds."""

    vendor = "nvidia"

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._nvml: Nvml | None = None
        self._opened_at = 0.0
        self._count = 0
        self._gpus: list[_Gpu] = []
        self._closed_indices: dict[int, DownReason] = {}
        self._roster: dict[str, Identity] = {}
        self._meters: dict[str, BusyMeter] = {}
        self._gone = False

    @property
    def busy_sources(self) -> Mapping[str, BusySource]:
        """Where the busy time of each GPU comes from, by uuid."""
        return {uuid: meter.source for uuid, meter in self._meters.items()}

    def read(self) -> tuple[DeviceReading, ...]:
        """All GPUs, those lost since the start included.

        Raises DriverUnavailable while NVML has never worked. After that a driver that went away is
        a reason why the GPUs are down, not a reason to forget them.
        """
        try:
            found = self._read_present(self._session())
        except DriverUnavailable as error:
            self.close()
            if not self._roster:
                raise
            if not self._gone:
                log.warning("%s", error)
            self._gone = True
            reason = DownReason.ERROR if error.state is DriverState.NO_PERMISSION else DownReason.DRIVER_GONE
            return tuple(DeviceReading(identity, down=reason) for identity in self._roster.values())
        self._gone = False
        missing = [identity for uuid, identity in self._roster.items() if uuid not in found]
        unknown = self._never_seen({identity.index for identity in missing})
        if (missing or unknown or any(device.down for device in found.values())) and self._session_is_old():
            self.close()
        return (
            *(found.get(uuid) or DeviceReading(who, down=DownReason.LOST) for uuid, who in self._roster.items()),
            *unknown,
        )

    def close(self) -> None:
        """End the session and unmap NVML. What was seen is remembered."""
        if self._nvml is not None:
            self._nvml.close()
        self._nvml = None
        self._gpus = []

    def _session_is_old(self) -> bool:
        return self._clock() - self._opened_at > RETRY_LOST_SECONDS

    def _session(self) -> Nvml:
        if self._nvml is None:
            self._nvml = Nvml()
            self._opened_at = self._clock()
            self._count = -1
        try:
            count = self._nvml.call("nvmlDeviceGetCount")
            version = self._nvml.call("nvmlSystemGetDriverVersion")
        except (NoValue, GpuLost) as error:
            refused = isinstance(error, NoValue) and error.reason is AbsentReason.NO_PERMISSION
            state = DriverState.NO_PERMISSION if refused else DriverState.FAILED
            raise DriverUnavailable(state, f"NVML does not list the GPUs: {error}") from error
        if count != self._count or self._closed_indices:
            self._enumerate(self._nvml, count, version)
        return self._nvml

    def _enumerate(self, nvml: Nvml, count: int, version: str) -> None:
        self._gpus = []
        self._closed_indices = {}
        for index in range(count):
            try:
                self._gpus.append(self._open(nvml, index, version))
            except GpuLost:
                self._closed_indices[index] = DownReason.LOST
            except NoValue:
                self._closed_indices[index] = DownReason.ERROR
        self._count = count
        present = {gpu.identity.pci_bus_id: gpu.identity.uuid for gpu in self._gpus}
        for uuid, identity in list(self._roster.items()):
            if present.get(identity.pci_bus_id, uuid) != uuid:
                del self._roster[uuid], self._meters[uuid]  # another card sits in its slot: it was replaced
        self._roster.update((gpu.identity.uuid, gpu.identity) for gpu in self._gpus)

    def _open(self, nvml: Nvml, index: int, version: str) -> _Gpu:
        handle = nvml.call("nvmlDeviceGetHandleByIndex", index)
        identity = Identity(
            uuid=nvml.call("nvmlDeviceGetUUID", handle),
            index=str(index),
            name=nvml.call("nvmlDeviceGetName", handle),
            vendor=self.vendor,
            pci_bus_id=nvml.pci_bus_id(handle),
            driver_version=version,
        )
        return _Gpu(handle, identity, self._meters.setdefault(identity.uuid, BusyMeter()))

    def _read_present(self, nvml: Nvml) -> dict[str, DeviceReading]:
        return {gpu.identity.uuid: self._read_gpu(nvml, gpu) for gpu in self._gpus}

    def _read_gpu(self, nvml: Nvml, gpu: _Gpu) -> DeviceReading:
        try:
            fixed = gpu.fixed or _carry_out(nvml, gpu.handle, _FIXED_PLAN, {})
            live = _carry_out(nvml, gpu.handle, _LIVE_PLAN, gpu.known)
            self._read_busy(nvml, gpu, live)
        except GpuLost:
            return DeviceReading(gpu.identity, down=DownReason.LOST)
        if AbsentReason.ERROR not in fixed.absent.values():
            gpu.fixed = fixed
        if not live.readings and AbsentReason.ERROR in live.absent.values():
            return DeviceReading(gpu.identity, down=DownReason.ERROR)
        absences = [Absence(*item) for values in (fixed, live) for item in values.absent.items()]
        return DeviceReading(gpu.identity, (*fixed.readings, *live.readings), tuple(absences))

    def _read_busy(self, nvml: Nvml, gpu: _Gpu, live: _Values) -> None:
        percent = next((100 * r.value for r in live.readings if r.family is metrics.UTILIZATION), None)
        why_not = live.absent.get(metrics.UTILIZATION)
        # A GPU in MIG mode has no utilization: then the buffer of the whole GPU is not to be believed either.
        unsupported = why_not is AbsentReason.UNSUPPORTED
        samples = None if unsupported else nvml.utilization_samples(gpu.handle, gpu.meter.since)
        gpu.meter.update(self._clock(), samples, percent)
        if samples is None and percent is None:
            live.absent[metrics.BUSY] = live.absent[metrics.OBSERVED] = why_not or AbsentReason.ERROR
            return
        live.readings.append(Reading(metrics.BUSY, gpu.meter.busy))
        live.readings.append(Reading(metrics.OBSERVED, gpu.meter.observed))

    def _never_seen(self, explained: set[str]) -> list[DeviceReading]:
        """GPUs that NVML counts but does not open, and that we never saw: all we know of them is the index."""
        return [
            DeviceReading(Identity(f"nvidia-index-{index}", str(index), "", self.vendor), down=reason)
            for index, reason in self._closed_indices.items()
            if str(index) not in explained
        ]
