"""Metrics that come from single NVML calls, as a table.

To add a metric, add a line to `STATIC_METRICS`, `SLOW_METRICS` or `LIVE_METRICS`. NVML's PCIe throughput is excluded:
the driver measures for 20 ms in each call.
"""

from __future__ import annotations

from collections.abc import Callable
from ctypes import Structure, byref, c_ubyte, c_uint, c_ulonglong
from typing import Any, NamedTuple

from gpu_exporter import metrics
from gpu_exporter.metrics import MetricFamily

# Constants of nvml.h.
CORE = 0
SM, MEMORY, VIDEO = 1, 2, 3
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

IDLE_REASON = 0x001

UINT_MAX = 0xFFFFFFFF
"""Drivers return it, with success, for "not available"."""


class ImplausibleValue(Exception):
    """The driver returned an impossible number."""


class MissingValue(Exception):
    """The call that this driver has does not return this number."""


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
    _fields_ = [(name, c_ulonglong) for name in ("total", "free", "used")]


class _MemoryV2(Structure):
    _fields_ = [("version", c_uint), *((name, c_ulonglong) for name in ("total", "reserved", "free", "used"))]


class _FabricInfo(Structure):
    _fields_ = [("cluster", c_ubyte * 16), ("status", c_uint), ("clique", c_uint), ("state", c_ubyte)]


MemoryInfo = tuple[int, int | None, int]
"""Total, reserved and used bytes. The first version of the call counts the reserved memory as used."""


def _utilization() -> tuple[tuple[Any, ...], Callable[[], tuple[int, int]]]:
    out = _Utilization()
    return (byref(out),), lambda: (out.gpu, out.memory)


def _memory_v2() -> tuple[tuple[Any, ...], Callable[[], MemoryInfo]]:
    out = _MemoryV2(MEMORY_V2)
    return (byref(out),), lambda: (out.total, out.reserved, out.used)


def _fabric_state() -> tuple[tuple[Any, ...], Callable[[], int]]:
    out = _FabricInfo()
    return (byref(out),), lambda: out.state


def _memory() -> tuple[tuple[Any, ...], Callable[[], MemoryInfo]]:
    out = _Memory()
    return (byref(out),), lambda: (out.total, None, out.used)


class NvmlCall(NamedTuple):
    """A function of NVML's library. `shape` creates its outputs. `older` is used if the driver does not have it."""

    function: str
    shape: OutputFactory
    arguments: tuple[int, ...] = ()
    older: NvmlCall | None = None

    @property
    def functions(self) -> tuple[str, ...]:
        """The names of the function and of its older forms."""
        return (self.function, *(self.older.functions if self.older else ()))


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
    def convert(memory: MemoryInfo) -> float:
        part = memory[pick]
        if part is None:
            raise MissingValue
        return ranged(memory[0])(part)

    return convert


MAX_REASONS = 0xFFFF
"""Higher bits have no meaning so far. Drivers set all for "not available"."""


def _bit(mask: int) -> Converter:
    def convert(reasons: int) -> float:
        if reasons > MAX_REASONS:
            raise ImplausibleValue(f"{reasons:#x} has unknown bits")
        return 1.0 if reasons & mask else 0.0

    return convert


def _joined_state(state: int) -> float:
    """Of GPUs that join a fabric; 0 is one without."""
    if state == 0:
        raise MissingValue
    return ranged(3)(state)


_TOTAL, _RESERVED, _USED = range(3)
MEMORY_INFO = NvmlCall("nvmlDeviceGetMemoryInfo_v2", _memory_v2, older=NvmlCall("nvmlDeviceGetMemoryInfo", _memory))
_RATES = NvmlCall("nvmlDeviceGetUtilizationRates", _utilization)
_REASONS = NvmlCall(
    "nvmlDeviceGetCurrentClocksEventReasons",
    _ulonglong,
    older=NvmlCall("nvmlDeviceGetCurrentClocksThrottleReasons", _ulonglong),
)
_ECC = "nvmlDeviceGetTotalEccErrors"
_ROWS = NvmlCall("nvmlDeviceGetRemappedRows", _uints(4))
_SM_MEGAHERTZ = ranged(6_000, times=1_000_000)
_SM_MEGAHERTZ_MAX = ranged(6_000, min_value=1, times=1_000_000)
_MEMORY_MEGAHERTZ = ranged(20_000, times=1_000_000)
_MEMORY_MEGAHERTZ_MAX = ranged(20_000, min_value=1, times=1_000_000)
_MILLIWATTS = ranged(UINT_MAX - 1, per=1000)  # what is plausible depends on the family: see nvidia_families
_MILLIJOULES = ranged(10**15, per=1000)  # 3 kW for ten years
_COUNT = ranged(UINT_MAX - 1)
_ROW_COUNT = 100_000
_LONG_COUNT = ranged(2**53)

MEMORY_METRICS: tuple[CallMetric, ...] = (
    CallMetric(metrics.MEMORY_TOTAL, MEMORY_INFO, ranged(2**50, min_value=1, pick=_TOTAL)),
    CallMetric(metrics.MEMORY_USED, MEMORY_INFO, _share_of_total(_USED)),
    CallMetric(metrics.MEMORY_RESERVED, MEMORY_INFO, _share_of_total(_RESERVED)),
)
"""Available for MIG instances as well as for whole GPUs."""


def _single_function_call(function: str, shape: OutputFactory = _uint, *arguments: int) -> NvmlCall:
    return NvmlCall(function, shape, arguments)


STATIC_METRICS: tuple[CallMetric, ...] = (
    CallMetric(metrics.SM_CLOCK_MAX, _single_function_call("nvmlDeviceGetMaxClockInfo", _uint, SM), _SM_MEGAHERTZ_MAX),
    CallMetric(
        metrics.MEMORY_CLOCK_MAX,
        _single_function_call("nvmlDeviceGetMaxClockInfo", _uint, MEMORY),
        _MEMORY_MEGAHERTZ_MAX,
    ),
    CallMetric(
        metrics.POWER_LIMIT_MAX,
        _single_function_call("nvmlDeviceGetPowerManagementLimitConstraints", _uints(2)),
        ranged(UINT_MAX - 1, min_value=1, per=1000, pick=1),
    ),
)
"""Read once per session."""

LIVE_METRICS: tuple[CallMetric, ...] = (
    CallMetric(metrics.UTILIZATION, _RATES, ranged(100, per=100, pick=0)),
    CallMetric(metrics.MEMORY_ACTIVITY, _RATES, ranged(100, per=100, pick=1)),
    *MEMORY_METRICS,
    CallMetric(metrics.TEMPERATURE, _single_function_call("nvmlDeviceGetTemperature", _uint, CORE), ranged(150)),
    CallMetric(metrics.POWER, _single_function_call("nvmlDeviceGetPowerUsage"), _MILLIWATTS),
    CallMetric(metrics.ENERGY, _single_function_call("nvmlDeviceGetTotalEnergyConsumption", _ulonglong), _MILLIJOULES),
    CallMetric(metrics.SM_CLOCK, _single_function_call("nvmlDeviceGetClockInfo", _uint, SM), _SM_MEGAHERTZ),
    CallMetric(metrics.MEMORY_CLOCK, _single_function_call("nvmlDeviceGetClockInfo", _uint, MEMORY), _MEMORY_MEGAHERTZ),
    CallMetric(metrics.VIDEO_CLOCK, _single_function_call("nvmlDeviceGetClockInfo", _uint, VIDEO), _SM_MEGAHERTZ),
    CallMetric(metrics.IDLE_REASON_ACTIVE, _REASONS, _bit(IDLE_REASON)),
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
    *(
        CallMetric(metrics.THROTTLE_ACTIVE, _REASONS, _bit(mask), (reason,))
        for reason, mask in THROTTLE_REASONS.items()
    ),
)
"""Read at each reading."""

SLOW_METRICS: tuple[CallMetric, ...] = (
    CallMetric(metrics.POWER_LIMIT, _single_function_call("nvmlDeviceGetEnforcedPowerLimit"), _MILLIWATTS),
    CallMetric(metrics.COMPUTE_MODE, _single_function_call("nvmlDeviceGetComputeMode"), ranged(3)),
    CallMetric(metrics.FABRIC_STATE, _single_function_call("nvmlDeviceGetGpuFabricInfo", _fabric_state), _joined_state),
    # In percent of the maximum noise tolerance of the product; NVML documents that it may exceed 100 %.
    CallMetric(metrics.FAN_SPEED, _single_function_call("nvmlDeviceGetFanSpeed"), ranged(200, per=100)),
    CallMetric(
        metrics.PCIE_GENERATION, _single_function_call("nvmlDeviceGetCurrPcieLinkGeneration"), ranged(8, min_value=1)
    ),
    CallMetric(metrics.PCIE_WIDTH, _single_function_call("nvmlDeviceGetCurrPcieLinkWidth"), ranged(32, min_value=1)),
    CallMetric(metrics.PCIE_REPLAYS, _single_function_call("nvmlDeviceGetPcieReplayCounter"), _COUNT),
    CallMetric(metrics.ECC_ERRORS, NvmlCall(_ECC, _ulonglong, (CORRECTED, LIFETIME)), _LONG_COUNT, ("corrected",)),
    CallMetric(metrics.ECC_ERRORS, NvmlCall(_ECC, _ulonglong, (UNCORRECTED, LIFETIME)), _LONG_COUNT, ("uncorrected",)),
    CallMetric(metrics.REMAPPED_ROWS, _ROWS, ranged(_ROW_COUNT, pick=0), ("correctable",)),
    CallMetric(metrics.REMAPPED_ROWS, _ROWS, ranged(_ROW_COUNT, pick=1), ("uncorrectable",)),
    CallMetric(metrics.ROW_REMAP_PENDING, _ROWS, ranged(1, pick=2)),
    CallMetric(metrics.ROW_REMAP_FAILED, _ROWS, ranged(1, pick=3)),
)
"""Change by events and settings, not with the load: read now and then."""
