"""What a page may have, given the machine and the faults of its driver. Written from NVML's documentation, not from the
exporter's tables: ranges and units are stated again here.

A sample is false if its value is neither the GPU's own nor one that the driver answered and that is in its range. So is
one after an error code: then there is no answer. A GPU is down for no reason if its driver mostly answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.nvml_fuzz.machines import (
    ADDRESS,
    HANDLE,
    LIVE_FUNCTIONS,
    LOST_CODES,
    MEMORY_FUNCTIONS,
    REASON_FUNCTIONS,
    REFUSING_CODES,
    UUID,
)
from tests.simulated_nvml.control import SimulatedGpu

MIB = 1024.0 * 1024
REASONS = {"application_clocks": 0x2, "sw_power_cap": 0x4, "hw_slowdown": 0x8, "sync_boost": 0x10, "sw_thermal": 0x20,
           "hw_thermal": 0x40, "hw_power_brake": 0x80, "display_clocks": 0x100}  # fmt: skip


@dataclass(frozen=True)
class Quantity:
    """A row of a family: the functions that may answer it, the GPU's own value in the driver's unit, its range in that
    unit, and the factor to the family's unit. `raw` is False if a rule's number is not this value.

    `cached` are the seconds for which an answer may be repeated.
    """

    functions: tuple[str, ...]
    own: Callable[[SimulatedGpu], float]
    low: float
    high: float
    factor: float = 1.0
    raw: bool = True
    cached: float = 0.0
    bits: int = 64


FOREVER = 1e9
SLOW = 5.0
Key = tuple[str, ...]
"""Name of the family, and the values of its labels after uuid."""


def _int(function: str, own: Callable[[SimulatedGpu], float | None], low: float, high: float, factor: float = 1.0,
         **more: Any) -> Quantity:  # fmt: skip
    return Quantity((function,), lambda gpu: own(gpu) or 0, low, high, factor, bits=32, **more)


def _rounded(factor: float, own: Callable[[SimulatedGpu], float | None]) -> Callable[[SimulatedGpu], float]:
    return lambda gpu: round((own(gpu) or 0) * factor)


FIELD = "nvmlDeviceGetFieldValues"


def _field(number: int, own: Callable[[SimulatedGpu], float | None], high: float, factor: float = 1.0, low: float = 0,
           bits: int = 64) -> Quantity:  # fmt: skip
    return Quantity((f"field{number}",), lambda gpu: own(gpu) or 0, low, high, factor, bits=bits)


MHZ = 1e6
QUANTITIES: Mapping[Key, Quantity] = {
    ("gpu_utilization_ratio",): _int("nvmlDeviceGetUtilizationRates", lambda g: g.level, 0, 100, 0.01),
    ("gpu_memory_activity_ratio",): _int(
        "nvmlDeviceGetUtilizationRates", lambda g: g.memory_activity, 0, 100, 0.01, raw=False
    ),
    ("gpu_memory_total_bytes",): Quantity(
        MEMORY_FUNCTIONS, lambda g: (g.memory_total or 0) * MIB, 1, 2**50, raw=False
    ),
    ("gpu_temperature_celsius",): _int("nvmlDeviceGetTemperature", lambda g: g.temperature, 0, 150),
    ("gpu_power_watts",): _int("nvmlDeviceGetPowerUsage", _rounded(1000, lambda g: g.power), 0, 1_050_000, 1e-3),
    ("gpu_power_limit_watts",): _int(
        "nvmlDeviceGetEnforcedPowerLimit", _rounded(1000, lambda g: g.power_limit), 0, 1_050_000, 1e-3, cached=SLOW
    ),
    ("gpu_sm_clock_hertz",): _int("nvmlDeviceGetClockInfo", lambda g: g.sm_clock, 0, 6000, MHZ),
    ("gpu_memory_clock_hertz",): _int("nvmlDeviceGetClockInfo", lambda g: g.memory_clock, 0, 20_000, MHZ),
    ("gpu_video_clock_hertz",): _int("nvmlDeviceGetClockInfo", lambda g: 1545, 0, 6000, MHZ),
    ("gpu_sm_clock_max_hertz",): _int(
        "nvmlDeviceGetMaxClockInfo", lambda g: g.sm_clock_max, 1, 6000, MHZ, cached=FOREVER
    ),
    ("gpu_memory_clock_max_hertz",): _int(
        "nvmlDeviceGetMaxClockInfo", lambda g: g.memory_clock, 1, 20_000, MHZ, cached=FOREVER
    ),
    ("gpu_fan_speed_ratio",): _int("nvmlDeviceGetFanSpeed", lambda g: g.fan, 0, 200, 0.01, cached=SLOW),
    ("gpu_performance_state",): _int("nvmlDeviceGetPerformanceState", lambda g: g.pstate, 0, 15),
    ("gpu_encoder_utilization_ratio",): _int("nvmlDeviceGetEncoderUtilization", lambda g: g.encoder, 0, 100, 0.01),
    ("gpu_decoder_utilization_ratio",): _int("nvmlDeviceGetDecoderUtilization", lambda g: g.decoder, 0, 100, 0.01),
    ("gpu_pcie_link_generation",): _int(
        "nvmlDeviceGetCurrPcieLinkGeneration", lambda g: g.pcie_generation, 1, 8, cached=SLOW
    ),
    ("gpu_pcie_link_width",): _int("nvmlDeviceGetCurrPcieLinkWidth", lambda g: g.pcie_width, 1, 32, cached=SLOW),
    ("gpu_pcie_replays_total",): _int(
        "nvmlDeviceGetPcieReplayCounter", lambda g: g.pcie_replays, 0, 2**32 - 2, cached=SLOW
    ),
    ("gpu_ecc_errors_total", "corrected"): Quantity(
        ("nvmlDeviceGetTotalEccErrors",), lambda g: g.ecc_corrected or 0, 0, 2**53, cached=SLOW
    ),
    ("gpu_ecc_errors_total", "uncorrected"): Quantity(
        ("nvmlDeviceGetTotalEccErrors",), lambda g: g.ecc_uncorrected or 0, 0, 2**53, cached=SLOW
    ),
    ("gpu_remapped_rows", "correctable"): _int(
        "nvmlDeviceGetRemappedRows", lambda g: g.rows_correctable, 0, 100_000, cached=SLOW
    ),
    ("gpu_remapped_rows", "uncorrectable"): _int(
        "nvmlDeviceGetRemappedRows", lambda g: g.rows_uncorrectable, 0, 100_000, raw=False, cached=SLOW
    ),
    ("gpu_row_remap_pending",): _int(
        "nvmlDeviceGetRemappedRows", lambda g: g.rows_pending, 0, 1, raw=False, cached=SLOW
    ),
    ("gpu_row_remap_failed",): _int("nvmlDeviceGetRemappedRows", lambda g: g.rows_failed, 0, 1, raw=False, cached=SLOW),
    ("gpu_memory_temperature_celsius",): _field(82, lambda g: g.memory_temperature, 150, low=1, bits=32),
    ("gpu_throttle_seconds_total", "sw_power_cap"): _field(
        74, _rounded(1e9, lambda g: g.throttled_power), 1e18, 1e-9
    ),
    ("gpu_throttle_seconds_total", "sync_boost"): _field(76, _rounded(1e9, lambda g: g.throttled_boost), 1e18, 1e-9),
    ("gpu_throttle_seconds_total", "board_limit"): _field(77, lambda g: 0, 1e18, 1e-9),
    ("gpu_throttle_seconds_total", "reliability"): _field(79, lambda g: 0, 1e18, 1e-9),
    ("gpu_nvlink_errors_total", "crc_flit"): _field(38, lambda g: g.nvlink_crc_flit, 2**53),
    ("gpu_nvlink_errors_total", "crc_data"): _field(45, lambda g: g.nvlink_crc_data, 2**53),
    ("gpu_nvlink_errors_total", "replay"): _field(52, lambda g: g.nvlink_replay, 2**53),
    ("gpu_nvlink_errors_total", "recovery"): _field(59, lambda g: g.nvlink_recovery, 2**53),
}  # fmt: skip

MAX_REASONS = 0xFFFF
"""NVML defines nine bits; all ones is no set of reasons."""

GPM_QUANTITIES: Mapping[Key, tuple[int, Callable[[SimulatedGpu], float | None]]] = {
    ("gpu_engine_activity_ratio",): (1, lambda g: 100),
    ("gpu_sm_activity_ratio",): (2, lambda g: g.sm_activity),
    ("gpu_sm_occupancy_ratio",): (3, lambda g: g.sm_occupancy),
    ("gpu_tensor_activity_ratio",): (5, lambda g: g.tensor),
    ("gpu_dram_bandwidth_ratio",): (10, lambda g: g.dram),
    ("gpu_fp64_activity_ratio",): (11, lambda g: g.fp64),
    ("gpu_fp32_activity_ratio",): (12, lambda g: g.fp32),
    ("gpu_fp16_activity_ratio",): (13, lambda g: g.fp16),
}

BOUNDS: Mapping[str, float] = {
    "gpu_energy_joules_total": 1e12, "gpu_processes": 128, "gpu_nvlink_links": 64,
    "gpu_busy_seconds_total": 1e6, "gpu_observed_seconds_total": 1e6, "gpu_idle_held_seconds_total": 1e6,
    "gpu_utilization_window_ratio": 1, "gpu_power_window_watts": 1050, "gpu_pcie_transmit_bytes_total": 2**63,
    "gpu_pcie_receive_bytes_total": 2**63, "gpu_nvlink_transmit_bytes_total": 2**63, "gpu_retired_pages": 10_000,
    "gpu_nvlink_receive_bytes_total": 2**63, "gpu_retired_pages_pending": 1, "gpu_throttle_seconds_total": 1e9,
}  # fmt: skip
"""Upper bounds of families that are not compared with the machine."""


def answers(quantity: Quantity, gpu: SimulatedGpu, faults: SimulatedGpu, missing: frozenset[str]) -> set[float] | None:
    """The values that a reading may have; None if any of the functions may have been answered without a fault."""
    allowed: set[float] = set()
    for function in quantity.functions:
        if function in missing:
            continue
        sometimes = function in faults.chances
        code, raw = faults.errors.get(function, 0), faults.raw.get(function)
        if not code or sometimes:
            if raw is None or not quantity.raw or sometimes:
                allowed.add(quantity.own(gpu) * quantity.factor)
            if raw is not None and quantity.raw:
                answer = raw & ((1 << quantity.bits) - 1)
                if quantity.low <= answer <= quantity.high:
                    allowed.add(answer * quantity.factor)
    return allowed


NOT_IN_MIG_MODE = frozenset({"nvmlDeviceGetUtilizationRates", "nvmlDeviceGetRemappedRows"})
"""Of these, NVML documents that they are not supported in MIG mode."""


def _is_refused(function: str, gpu: SimulatedGpu) -> bool:
    """Whether the function is not supported on this GPU, without any fault."""
    return gpu.mig and function in NOT_IN_MIG_MODE


def may_be_down(faults: SimulatedGpu, missing: frozenset[str]) -> bool:
    """Whether the driver mostly says that the GPU is gone, or fails to answer, or is not sure to do otherwise."""
    answered = lost = failed = refused = uncertain = 0
    groups: Sequence[tuple[str, ...]] = (*((name,) for name in LIVE_FUNCTIONS), MEMORY_FUNCTIONS, REASON_FUNCTIONS)
    for group in groups:
        codes = [13 if name in missing else faults.errors.get(name, 3 * _is_refused(name, faults)) for name in group]
        uncertain += any(name in faults.chances and faults.errors.get(name) for name in group)
        code = next((code for code in codes if code not in REFUSING_CODES), codes[-1])
        answered += code == 0
        lost += code in LOST_CODES
        failed += bool(code) and code not in REFUSING_CODES
        refused += code in REFUSING_CODES
    # A function is called more than once with other arguments: twice for clocks and ECC errors.
    for name in ("nvmlDeviceGetClockInfo", "nvmlDeviceGetTotalEccErrors"):
        code = faults.errors.get(name, 0)
        answered += code == 0
        lost += code in LOST_CODES
        failed += bool(code) and code not in REFUSING_CODES
        refused += code in REFUSING_CODES
    sure = answered - uncertain
    return lost + uncertain > sure or (sure <= 0 and failed + uncertain >= refused - uncertain)


def cannot_be_opened(faults: SimulatedGpu) -> bool:
    """Whether a session that is opened now cannot open the GPU, or cannot identify it."""
    if faults.lost or faults.errors.get(HANDLE) or HANDLE in faults.raw:
        return True
    # A driver that does not support addresses has none, as on Jetson: then the index is the place of a GPU.
    has_place = faults.errors.get(ADDRESS, 0) in (0, 3, 13, 22, 25, 26) and ADDRESS not in faults.texts
    return not _has_uuid(faults) and not has_place


def _has_uuid(faults: SimulatedGpu) -> bool:
    return not faults.errors.get(UUID) and UUID not in faults.texts


def stays_closed(faults: SimulatedGpu) -> bool:
    """Whether the GPU is not tried again at each reading: it is lost, there is no such GPU, or it is forbidden.

    That is a GPU whose handle is refused for lack of permission, or that has no uuid and whose address is.
    """
    is_forbidden = not _has_uuid(faults) and faults.errors.get(ADDRESS) == 4
    return faults.lost or faults.errors.get(HANDLE) in (2, 4) or is_forbidden


@dataclass
class History:
    """What the driver has answered before, for values that are not read each time."""

    seen: dict[tuple[int, Key], list[tuple[float, set[float]]]] = field(default_factory=dict)

    def allowed(self, index: int, key: Key, now: float, seconds: float) -> Iterator[float]:
        for at, values in self.seen.get((index, key), []):
            if now - at <= seconds:
                yield from values

    def add(self, index: int, key: Key, now: float, values: set[float]) -> None:
        self.seen.setdefault((index, key), []).append((now, values))


def is_among(value: float, allowed: set[float]) -> bool:
    return any(abs(value - other) <= 1e-9 * max(1.0, abs(other)) for other in allowed)


PROCESS_SECONDS = 5.0
"""How long a list of processes may be repeated."""
