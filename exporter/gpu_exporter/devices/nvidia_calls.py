"""Metrics that come from single NVML calls, as a table, and the plan that makes these calls for one GPU.

To add a metric, add a line to `STATIC_METRICS` or `LIVE_METRICS`. NVML's PCIe throughput is excluded: the driver
measures for 20 ms in each call. pynvml's functions take several times as long as the calls that they wrap, so calls
are prepared once per session and go to the C functions directly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ctypes import Structure, byref, c_uint, c_ulonglong
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from gpu_exporter import metrics
from gpu_exporter.devices.nvml import NvmlSession, absence_reason
from gpu_exporter.metrics import MetricFamily
from gpu_exporter.snapshot import AbsenceReason, MetricReading

# Constants of nvml.h.
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
"""Bits of NVML's clocks event reasons. Without bit 0: an idle GPU is not throttled."""

UINT_MAX = 0xFFFFFFFF
"""Drivers return it, with success, for "not available"."""


class ImplausibleValue(Exception):
    """The driver returned an impossible number."""


Converter = Callable[[Any], float]

OutputFactory = Callable[[], tuple[tuple[Any, ...], Callable[[], Any]]]
"""Creates the output arguments of a function, and a reader of their values."""


def _uint() -> tuple[tuple[Any, ...], Callable[[], int]]:
    out = c_uint()
    return (byref(out),), lambda: out.value


def _ulonglong() -> tuple[tuple[Any, ...], Callable[[], int]]:
    out = c_ulonglong()
    return (byref(out),), lambda: out.value


def _uints(count: int) -> OutputFactory:
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


class NvmlCall(NamedTuple):
    """A function of NVML's library, with older names after the first. `shape` creates its outputs."""

    functions: tuple[str, ...]
    shape: OutputFactory
    arguments: tuple[int, ...] = ()


class CallMetric(NamedTuple):
    """A row of a family, converted from the response of a call. `labels` are those after `uuid`."""

    family: MetricFamily
    call: NvmlCall
    convert: Converter
    labels: tuple[str, ...] = ()


def ranged(
    max_value: float, min_value: float = 0, times: float = 1, per: float = 1, pick: int | None = None
) -> Converter:
    """A converter: `raw * times / per` for raw between `min_value` and `max_value`, in NVML's unit.

    `pick` is the index of raw in a tuple.
    """

    def convert(answer: Any) -> float:
        raw: float = answer if pick is None else answer[pick]
        if not min_value <= raw <= max_value:
            raise ImplausibleValue(f"{raw} is not between {min_value} and {max_value}")
        return raw * times / per

    return convert


def _share_of_total(pick: int) -> Converter:
    def convert(memory: tuple[int, int, int]) -> float:
        return ranged(memory[0])(memory[pick])

    return convert


def _bit(mask: int) -> Converter:
    return lambda reasons: 1.0 if reasons & mask else 0.0


_TOTAL, _RESERVED, _USED = range(3)
MEMORY_INFO = NvmlCall(("nvmlDeviceGetMemoryInfo_v2",), _memory)
_RATES = NvmlCall(("nvmlDeviceGetUtilizationRates",), _utilization)
_REASONS = NvmlCall(("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"), _ulonglong)
_ECC = ("nvmlDeviceGetTotalEccErrors",)
_ROWS = NvmlCall(("nvmlDeviceGetRemappedRows",), _uints(4))
_MEGAHERTZ = ranged(20_000, times=1_000_000)
_MEGAHERTZ_MAX = ranged(20_000, min_value=1, times=1_000_000)
_MILLIWATTS = ranged(100_000_000, per=1000)
_COUNT = ranged(UINT_MAX - 1)
_LONG_COUNT = ranged(2**63)

MEMORY_METRICS: tuple[CallMetric, ...] = (
    CallMetric(metrics.MEMORY_TOTAL, MEMORY_INFO, ranged(2**50, min_value=1, pick=_TOTAL)),
    CallMetric(metrics.MEMORY_USED, MEMORY_INFO, _share_of_total(_USED)),
    CallMetric(metrics.MEMORY_RESERVED, MEMORY_INFO, _share_of_total(_RESERVED)),
)
"""Available for MIG instances as well as for whole GPUs."""


def _single_function_call(function: str, shape: OutputFactory = _uint, *arguments: int) -> NvmlCall:
    return NvmlCall((function,), shape, arguments)


STATIC_METRICS: tuple[CallMetric, ...] = (
    CallMetric(metrics.SM_CLOCK_MAX, _single_function_call("nvmlDeviceGetMaxClockInfo", _uint, SM), _MEGAHERTZ_MAX),
    CallMetric(
        metrics.MEMORY_CLOCK_MAX, _single_function_call("nvmlDeviceGetMaxClockInfo", _uint, MEMORY), _MEGAHERTZ_MAX
    ),
)
"""Read once per session."""

LIVE_METRICS: tuple[CallMetric, ...] = (
    CallMetric(metrics.UTILIZATION, _RATES, ranged(100, per=100, pick=0)),
    CallMetric(metrics.MEMORY_ACTIVITY, _RATES, ranged(100, per=100, pick=1)),
    *MEMORY_METRICS,
    CallMetric(metrics.TEMPERATURE, _single_function_call("nvmlDeviceGetTemperature", _uint, CORE), ranged(200)),
    CallMetric(metrics.POWER, _single_function_call("nvmlDeviceGetPowerUsage"), _MILLIWATTS),
    CallMetric(metrics.POWER_LIMIT, _single_function_call("nvmlDeviceGetEnforcedPowerLimit"), _MILLIWATTS),
    CallMetric(
        metrics.ENERGY,
        _single_function_call("nvmlDeviceGetTotalEnergyConsumption", _ulonglong),
        ranged(2**63, per=1000),
    ),
    CallMetric(metrics.SM_CLOCK, _single_function_call("nvmlDeviceGetClockInfo", _uint, SM), _MEGAHERTZ),
    CallMetric(metrics.MEMORY_CLOCK, _single_function_call("nvmlDeviceGetClockInfo", _uint, MEMORY), _MEGAHERTZ),
    # In percent of the maximum noise tolerance of the product; NVML documents that it may exceed 100 %.
    CallMetric(metrics.FAN_SPEED, _single_function_call("nvmlDeviceGetFanSpeed"), ranged(200, per=100)),
    CallMetric(
        metrics.PERFORMANCE_STATE, _single_function_call("nvmlDeviceGetPerformanceState"), ranged(15)
    ),  # 32 is "unknown"
    CallMetric(
        metrics.ENCODER_UTILIZATION,
        _single_function_call("nvmlDeviceGetEncoderUtilization", _uints(2)),
        ranged(100, per=100, pick=0),
    ),
    CallMetric(
        metrics.DECODER_UTILIZATION,
        _single_function_call("nvmlDeviceGetDecoderUtilization", _uints(2)),
        ranged(100, per=100, pick=0),
    ),
    CallMetric(
        metrics.PCIE_GENERATION, _single_function_call("nvmlDeviceGetCurrPcieLinkGeneration"), ranged(16, min_value=1)
    ),
    CallMetric(metrics.PCIE_WIDTH, _single_function_call("nvmlDeviceGetCurrPcieLinkWidth"), ranged(32, min_value=1)),
    CallMetric(metrics.PCIE_REPLAYS, _single_function_call("nvmlDeviceGetPcieReplayCounter"), _COUNT),
    *(
        CallMetric(metrics.THROTTLE_ACTIVE, _REASONS, _bit(mask), (reason,))
        for reason, mask in THROTTLE_REASONS.items()
    ),
    CallMetric(metrics.ECC_ERRORS, NvmlCall(_ECC, _ulonglong, (CORRECTED, LIFETIME)), _LONG_COUNT, ("corrected",)),
    CallMetric(metrics.ECC_ERRORS, NvmlCall(_ECC, _ulonglong, (UNCORRECTED, LIFETIME)), _LONG_COUNT, ("uncorrected",)),
    CallMetric(metrics.REMAPPED_ROWS, _ROWS, ranged(UINT_MAX - 1, pick=0), ("correctable",)),
    CallMetric(metrics.REMAPPED_ROWS, _ROWS, ranged(UINT_MAX - 1, pick=1), ("uncorrectable",)),
    CallMetric(metrics.ROW_REMAP_PENDING, _ROWS, ranged(1, pick=2)),
    CallMetric(metrics.ROW_REMAP_FAILED, _ROWS, ranged(1, pick=3)),
)
"""Read at each reading."""


@dataclass
class NvmlReadings:
    """Readings and absences of one GPU, while it is read."""

    readings: list[MetricReading] = field(default_factory=list)
    absent: dict[MetricFamily, AbsenceReason] = field(default_factory=dict)
    _incomplete: set[MetricFamily] = field(default_factory=set)

    def add_absent(self, family: MetricFamily, reason: AbsenceReason) -> None:
        """Record that a row of this family could not be read."""
        self.absent[family] = reason
        if len(family.labels) > 1:
            self._incomplete.add(family)

    def drop_incomplete_families(self) -> None:
        """Drop the rows of families with a missing row: a partial family would look complete."""
        if self._incomplete:
            self.readings = [reading for reading in self.readings if reading.family not in self._incomplete]


class _PreparedCall:
    """A call with its arguments, and the metrics that use its response."""

    __slots__ = ("answer", "arguments", "function", "lines", "read", "readings")

    def __init__(self, nvml: NvmlSession, handle: Any, call: NvmlCall, lines: list[CallMetric]) -> None:
        outs, self.read = call.shape()
        self.function = nvml.function(*call.functions)
        self.arguments = (handle, *call.arguments, *outs)
        self.lines = lines
        self.answer: Any = None
        self.readings: list[MetricReading] = []


class CallPlan:
    """The distinct calls of a table, prepared for one GPU."""

    def __init__(self, nvml: NvmlSession, handle: Any, lines: Iterable[CallMetric]) -> None:
        calls: dict[NvmlCall, list[CallMetric]] = {}
        for line in lines:
            calls.setdefault(line.call, []).append(line)
        self._ready = [_PreparedCall(nvml, handle, call, users) for call, users in calls.items()]
        self._of_family = {line.family: ready for ready in self._ready for line in ready.lines}

    def execute(self, values: NvmlReadings) -> None:
        """Make the calls. Raises GpuLost or DriverUnloaded."""
        for ready in self._ready:
            code = ready.function(*ready.arguments)
            if code:
                ready.answer, ready.readings = None, []
                reason = absence_reason(code)
                for line in ready.lines:
                    values.add_absent(line.family, reason)
                continue
            answer = ready.read()
            if answer != ready.answer:  # most responses repeat: reuse their readings
                ready.readings = _convert_answer(answer, ready.lines, values)
                # Not cached if a value is implausible: its absence must be added each time.
                ready.answer = answer if len(ready.readings) == len(ready.lines) else None
            values.readings += ready.readings

    def last_value(self, family: MetricFamily) -> float | None:
        """The last value of a family without further labels; None if it is absent."""
        for reading in self._of_family[family].readings:
            if reading.family is family:
                return reading.value
        return None


def _convert_answer(answer: Any, lines: list[CallMetric], values: NvmlReadings) -> list[MetricReading]:
    readings = []
    for line in lines:
        try:
            readings.append(MetricReading(line.family, line.convert(answer), line.labels))
        except ImplausibleValue:
            values.add_absent(line.family, AbsenceReason.ERROR)
    return readings
