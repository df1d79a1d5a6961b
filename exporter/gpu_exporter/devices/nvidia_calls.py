"""The families that one call to NVML answers, as a table, and how a GPU is asked for all of them.

To add a family is to add a line to `FIXED` or `LIVE`. NVML's PCIe throughput is left out on purpose: the driver
measures for 20 ms in each call. pynvml's own functions take several times as long as the calls that they wrap, so the
arguments of a call are made ready once in a session and used again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ctypes import Structure, byref, c_uint, c_ulonglong
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from gpu_exporter import metrics
from gpu_exporter.devices.nvml import Nvml, why
from gpu_exporter.metrics import Family
from gpu_exporter.snapshot import AbsentReason, Reading

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

Shape = Callable[[], tuple[tuple[Any, ...], Callable[[], Any]]]
"""Makes the places that a function writes its answer to, and what reads the answer from there."""


def _uint() -> tuple[tuple[Any, ...], Callable[[], int]]:
    out = c_uint()
    return (byref(out),), lambda: out.value


def _ulonglong() -> tuple[tuple[Any, ...], Callable[[], int]]:
    out = c_ulonglong()
    return (byref(out),), lambda: out.value


def _uints(count: int) -> Shape:
    def shape() -> tuple[tuple[Any, ...], Callable[[], tuple[int, ...]]]:
        outs = tuple(c_uint() for _ in range(count))
        return tuple(byref(out) for out in outs), lambda: tuple([out.value for out in outs])

    return shape


class _Utilization(Structure):
    _fields_ = [("gpu", c_uint), ("memory", c_uint)]


class _Memory(Structure):
    _fields_ = [("version", c_uint), *((name, c_ulonglong) for name in ("total", "reserved", "free", "used"))]


def _utilization() -> tuple[tuple[Any, ...], Callable[[], tuple[int, int]]]:
    out = _Utilization()
    return (byref(out),), lambda: (out.gpu, out.memory)


def _memory() -> tuple[tuple[Any, ...], Callable[[], tuple[int, int, int]]]:
    out = _Memory(MEMORY_V2)
    return (byref(out),), lambda: (out.total, out.reserved, out.used)


class Call(NamedTuple):
    """A function of NVML's library, older names of it after the first."""

    functions: tuple[str, ...]
    shape: Shape
    arguments: tuple[int, ...] = ()


class Line(NamedTuple):
    family: Family
    call: Call
    convert: Convert
    labels: tuple[str, ...] = ()


def number(top: float, lowest: float = 0, times: float = 1, per: float = 1, pick: int | None = None) -> Convert:
    """`raw * times / per` if raw is from `lowest` to `top`, both in NVML's unit; `pick` takes raw from a tuple."""

    def convert(answer: Any) -> float:
        raw: float = answer if pick is None else answer[pick]
        if not lowest <= raw <= top:
            raise Implausible(f"{raw} is not between {lowest} and {top}")
        return raw * times / per

    return convert


def _share_of_total(pick: int) -> Convert:
    def convert(memory: tuple[int, int, int]) -> float:
        return number(memory[0])(memory[pick])

    return convert


def _bit(mask: int) -> Convert:
    return lambda reasons: 1.0 if reasons & mask else 0.0


_TOTAL, _RESERVED, _USED = range(3)
MEMORY_INFO = Call(("nvmlDeviceGetMemoryInfo_v2",), _memory)
_RATES = Call(("nvmlDeviceGetUtilizationRates",), _utilization)
_REASONS = Call(("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"), _ulonglong)
_ECC = ("nvmlDeviceGetTotalEccErrors",)
_ROWS = Call(("nvmlDeviceGetRemappedRows",), _uints(4))
_MEGAHERTZ = number(20_000, times=1_000_000)
_MEGAHERTZ_MAX = number(20_000, lowest=1, times=1_000_000)
_MILLIWATTS = number(100_000_000, per=1000)
_COUNT = number(UINT_MAX - 1)
_LONG_COUNT = number(2**63)

MEMORY_LINES: tuple[Line, ...] = (
    Line(metrics.MEMORY_TOTAL, MEMORY_INFO, number(2**50, lowest=1, pick=_TOTAL)),
    Line(metrics.MEMORY_USED, MEMORY_INFO, _share_of_total(_USED)),
    Line(metrics.MEMORY_RESERVED, MEMORY_INFO, _share_of_total(_RESERVED)),
)
"""All that NVML tells of a slice of a GPU in MIG mode, and of a whole one."""


def _one(function: str, shape: Shape = _uint, *arguments: int) -> Call:
    return Call((function,), shape, arguments)


FIXED: tuple[Line, ...] = (
    Line(metrics.SM_CLOCK_MAX, _one("nvmlDeviceGetMaxClockInfo", _uint, SM), _MEGAHERTZ_MAX),
    Line(metrics.MEMORY_CLOCK_MAX, _one("nvmlDeviceGetMaxClockInfo", _uint, MEMORY), _MEGAHERTZ_MAX),
)
"""Read once in a session."""

LIVE: tuple[Line, ...] = (
    Line(metrics.UTILIZATION, _RATES, number(100, per=100, pick=0)),
    Line(metrics.MEMORY_ACTIVITY, _RATES, number(100, per=100, pick=1)),
    *MEMORY_LINES,
    Line(metrics.TEMPERATURE, _one("nvmlDeviceGetTemperature", _uint, CORE), number(200)),
    Line(metrics.POWER, _one("nvmlDeviceGetPowerUsage"), _MILLIWATTS),
    Line(metrics.POWER_LIMIT, _one("nvmlDeviceGetEnforcedPowerLimit"), _MILLIWATTS),
    Line(metrics.ENERGY, _one("nvmlDeviceGetTotalEnergyConsumption", _ulonglong), number(2**63, per=1000)),
    Line(metrics.SM_CLOCK, _one("nvmlDeviceGetClockInfo", _uint, SM), _MEGAHERTZ),
    Line(metrics.MEMORY_CLOCK, _one("nvmlDeviceGetClockInfo", _uint, MEMORY), _MEGAHERTZ),
    # NVML's own words: the share of the fan's noise limit, which may exceed 100 % in certain cases.
    Line(metrics.FAN_SPEED, _one("nvmlDeviceGetFanSpeed"), number(200, per=100)),
    Line(metrics.PERFORMANCE_STATE, _one("nvmlDeviceGetPerformanceState"), number(15)),  # 32 is "unknown"
    Line(metrics.ENCODER, _one("nvmlDeviceGetEncoderUtilization", _uints(2)), number(100, per=100, pick=0)),
    Line(metrics.DECODER, _one("nvmlDeviceGetDecoderUtilization", _uints(2)), number(100, per=100, pick=0)),
    Line(metrics.PCIE_GENERATION, _one("nvmlDeviceGetCurrPcieLinkGeneration"), number(16, lowest=1)),
    Line(metrics.PCIE_WIDTH, _one("nvmlDeviceGetCurrPcieLinkWidth"), number(32, lowest=1)),
    Line(metrics.PCIE_REPLAYS, _one("nvmlDeviceGetPcieReplayCounter"), _COUNT),
    *(Line(metrics.THROTTLED, _REASONS, _bit(mask), (reason,)) for reason, mask in THROTTLE_REASONS.items()),
    Line(metrics.ECC_ERRORS, Call(_ECC, _ulonglong, (CORRECTED, LIFETIME)), _LONG_COUNT, ("corrected",)),
    Line(metrics.ECC_ERRORS, Call(_ECC, _ulonglong, (UNCORRECTED, LIFETIME)), _LONG_COUNT, ("uncorrected",)),
    Line(metrics.REMAPPED_ROWS, _ROWS, number(UINT_MAX - 1, pick=0), ("correctable",)),
    Line(metrics.REMAPPED_ROWS, _ROWS, number(UINT_MAX - 1, pick=1), ("uncorrectable",)),
    Line(metrics.ROW_REMAP_PENDING, _ROWS, number(1, pick=2)),
    Line(metrics.ROW_REMAP_FAILED, _ROWS, number(1, pick=3)),
)
"""Read each time."""


@dataclass
class Values:
    """What has been read of one GPU so far."""

    readings: list[Reading] = field(default_factory=list)
    absent: dict[Family, AbsentReason] = field(default_factory=dict)
    _halves: set[Family] = field(default_factory=set)

    def lack(self, family: Family, reason: AbsentReason) -> None:
        """A row of this family was to be read and could not."""
        self.absent[family] = reason
        if len(family.labels) > 1:
            self._halves.add(family)

    def drop_halves(self) -> None:
        """All rows of a family or none: half a family would pass for the whole."""
        if self._halves:
            self.readings = [reading for reading in self.readings if reading.family not in self._halves]


class _Ready:
    """A call with its arguments in place, and the lines that use its answer."""

    __slots__ = ("answer", "arguments", "function", "lines", "read", "readings")

    def __init__(self, nvml: Nvml, handle: Any, call: Call, lines: list[Line]) -> None:
        outs, self.read = call.shape()
        self.function = nvml.function(*call.functions)
        self.arguments = (handle, *call.arguments, *outs)
        self.lines = lines
        self.answer: Any = None
        self.readings: list[Reading] = []


class CallPlan:
    """Each call of a table once, ready to be made to one GPU."""

    def __init__(self, nvml: Nvml, handle: Any, lines: Iterable[Line]) -> None:
        calls: dict[Call, list[Line]] = {}
        for line in lines:
            calls.setdefault(line.call, []).append(line)
        self._ready = [_Ready(nvml, handle, call, users) for call, users in calls.items()]
        self._of_family = {line.family: ready for ready in self._ready for line in ready.lines}

    def carry_out(self, values: Values) -> None:
        """Make the calls. Raises GpuLost or DriverGone."""
        for ready in self._ready:
            code = ready.function(*ready.arguments)
            if code:
                ready.answer, ready.readings = None, []
                reason = why(code)
                for line in ready.lines:
                    values.lack(line.family, reason)
                continue
            answer = ready.read()
            if answer != ready.answer:  # most answers repeat, and so do the readings made of them
                ready.readings = _converted(answer, ready.lines, values)
                # Why a family is absent must be said again next time.
                ready.answer = answer if len(ready.readings) == len(ready.lines) else None
            values.readings += ready.readings

    def last(self, family: Family) -> float | None:
        """What was last read of a family that has no rows of its own; None if it is absent."""
        for reading in self._of_family[family].readings:
            if reading.family is family:
                return reading.value
        return None


def _converted(answer: Any, lines: list[Line], values: Values) -> list[Reading]:
    readings = []
    for line in lines:
        try:
            readings.append(Reading(line.family, line.convert(answer), line.labels))
        except Implausible:
            values.lack(line.family, AbsentReason.ERROR)
    return readings
