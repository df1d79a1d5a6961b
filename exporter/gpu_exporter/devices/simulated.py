"""A simulated fleet: what real drivers would report for well-known workloads.

All values are pure functions of (seed, group, GPU, time), so that generated history and live values are continuous and
reproducible. A workload is a sequence of steps: busy, then waiting. Busy time since COUNTER_START_SECONDS has a closed
form; utilization, power and temperature are its differences over the averaging periods of real drivers.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from math import floor
from typing import TypeVar

from gpu_exporter import metrics
from gpu_exporter.devices.gpu_types import GPU_TYPES
from gpu_exporter.devices.nvidia_xid_codes import describe_xid
from gpu_exporter.devices.simulated_models import find_model
from gpu_exporter.devices.simulated_scenarios import MODELS as MODELS
from gpu_exporter.devices.simulated_scenarios import SCENARIOS as SCENARIOS
from gpu_exporter.devices.simulated_scenarios import GpuModel, Scenario
from gpu_exporter.metrics import FamilySamples, MetricFamily
from gpu_exporter.snapshot import Absence, AbsenceReason, DeviceIdentity, DeviceReading, MetricReading, device_samples

#: Simulated counters start here: 2026-01-01T00:00:00Z.
COUNTER_START_SECONDS = 1_767_225_600.0

T = TypeVar("T")

_MIB = 1024.0**2
_NOISE_CYCLE_STEPS = 64
_POWER_AVERAGING_SECONDS = 1.0
_THERMAL_SECONDS = 60.0
_VIDEO_CLOCK_RATIO = 0.78
_SAMPLING_INTERVAL_SECONDS = 5.0
_WINDOW_SECONDS = 60.0
_XID_INTERVAL_SECONDS = 1200.0


#: The throttle reasons of real drivers, exported whether active or not.
THROTTLE_REASONS = ("sw_power_cap", "hw_slowdown", "sync_boost", "sw_thermal", "hw_thermal", "hw_power_brake")

#: The reasons whose time the driver counts.
TIMED_THROTTLE_REASONS = ("sw_power_cap", "sync_boost", "board_limit", "reliability", "sw_thermal", "hw_thermal",
                   "hw_power_brake")  # fmt: skip


class FleetError(ValueError):
    """Invalid fleet description. The message says how to fix it."""


@dataclass(frozen=True)
class SimulatedGpu:
    """One GPU under one workload."""

    index: int
    model: GpuModel
    scenario: Scenario
    seed: int

    @cached_property
    def identity(self) -> DeviceIdentity:
        digits = f"{random.Random(f'{self.seed}/{self.index}/{self.model.name}').getrandbits(128):032x}"
        uuid = f"GPU-{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
        bus = f"00000000:{0x10 + self.index:02X}:00.0"
        return DeviceIdentity(
            uuid, str(self.index), self.model.name, self.model.vendor, bus, driver_version="simulated"
        )

    @cached_property
    def _noise(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Offsets of the steps in -1..1 and their running sums. They sum to zero, so that whole cycles cancel out."""
        rng = random.Random(f"{self.seed}/{self.index}/noise")
        raw = [rng.uniform(-1, 1) for _ in range(_NOISE_CYCLE_STEPS)]
        mean = sum(raw) / _NOISE_CYCLE_STEPS
        offsets = tuple((value - mean) / 2 for value in raw)
        return offsets, tuple(sum(offsets[:k]) for k in range(_NOISE_CYCLE_STEPS))

    def busy_seconds(self, at: float) -> float:
        """Busy time from COUNTER_START_SECONDS to `at`; monotonic, and never grows faster than time."""
        scenario, step = self.scenario, self.scenario.step_seconds
        elapsed = max(0.0, at - COUNTER_START_SECONDS)
        steps = floor(elapsed / step)
        offsets, sums = self._noise
        within = min(
            elapsed - steps * step, step * (scenario.busy_ratio + scenario.jitter * offsets[steps % _NOISE_CYCLE_STEPS])
        )
        return step * (steps * scenario.busy_ratio + scenario.jitter * sums[steps % _NOISE_CYCLE_STEPS]) + max(
            0.0, within
        )

    def utilization(self, at: float, seconds: float) -> float:
        """Mean utilization over the last `seconds`, 0..1."""
        return min(1.0, max(0.0, (self.busy_seconds(at) - self.busy_seconds(at - seconds)) / seconds))

    def energy_joules(self, at: float) -> float:
        """Energy from COUNTER_START_SECONDS to `at`."""
        idle, busy = self.model.idle_power, self._busy_power
        return idle * max(0.0, at - COUNTER_START_SECONDS) + (busy - idle) * self.busy_seconds(at)

    @property
    def _busy_power(self) -> float:
        share = min(self.scenario.power_ratio, self.scenario.limit)
        return max(self.model.idle_power, self.model.power_limit * share)

    def read(self, at: float) -> DeviceReading:
        """The reading at `at` (Unix time)."""
        if self.scenario.down:
            return DeviceReading(self.identity, down=self.scenario.down)
        absences = (Absence(family, AbsenceReason.UNSUPPORTED) for family in self._unsupported())
        readings = (
            *self._base_readings(at),
            *self._counter_readings(at),
            *self._activity_readings(at),
            *self._error_readings(at),
        )
        return DeviceReading(self.identity, readings, tuple(absences))

    def _unsupported(self) -> Iterator[MetricFamily]:
        model = self.model
        conditional_families = (
            (model.has_ecc, (metrics.ECC_ERRORS,)),
            (model.has_fan, (metrics.FAN_SPEED,)),
            (model.has_activity, ACTIVITY_FAMILIES),
            (model.nvlink_bytes_per_second > 0, (metrics.NVLINK_TRANSMIT, metrics.NVLINK_RECEIVE)),
            (model.has_row_remapping, (metrics.ROW_REMAP_PENDING, metrics.ROW_REMAP_FAILED)),
        )
        for supported, families in conditional_families:
            if not supported:
                yield from families

    def _base_readings(self, at: float) -> Iterator[MetricReading]:
        model, scenario = self.model, self.scenario
        utilization = self.utilization(at, model.averaging_seconds)
        thermal_load = self.utilization(at, _THERMAL_SECONDS) * scenario.power_ratio
        active = scenario.processes > 0 and scenario.busy_ratio > 0
        used = scenario.memory * model.memory_mib * (1 + 0.005 * self._noise[0][int(at) % _NOISE_CYCLE_STEPS] * active)
        power = self.energy_joules(at) - self.energy_joules(at - _POWER_AVERAGING_SECONDS)
        clock = (model.sm_clock if active else model.sm_clock_idle) * scenario.clock

        yield MetricReading(metrics.UTILIZATION, round(utilization, 2))  # drivers report integer percent
        yield MetricReading(metrics.BUSY_SECONDS_TOTAL, round(self.busy_seconds(at), 6))
        yield MetricReading(metrics.OBSERVED_SECONDS_TOTAL, round(max(0.0, at - COUNTER_START_SECONDS), 6))
        yield MetricReading(metrics.MEMORY_TOTAL, model.memory_mib * _MIB)
        yield MetricReading(metrics.MEMORY_USED, round(used) * _MIB)
        yield MetricReading(metrics.MEMORY_RESERVED, model.reserved_mib * _MIB)
        yield MetricReading(metrics.MEMORY_ACTIVITY, round(utilization * scenario.memory_activity, 2))
        yield MetricReading(metrics.TEMPERATURE, round(31 + 38 * thermal_load + scenario.extra_temperature_celsius))
        yield MetricReading(metrics.POWER, round(power / _POWER_AVERAGING_SECONDS, 3))
        yield MetricReading(metrics.POWER_LIMIT, model.power_limit * scenario.limit)
        yield MetricReading(metrics.POWER_LIMIT_MAX, model.power_limit)
        yield MetricReading(metrics.ENERGY, round(self.energy_joules(at), 3))
        yield MetricReading(metrics.SM_CLOCK, round(clock) * 1e6)
        yield MetricReading(metrics.SM_CLOCK_MAX, model.sm_clock * 1e6)
        yield MetricReading(metrics.MEMORY_CLOCK, model.memory_clock * 1e6)
        yield MetricReading(metrics.VIDEO_CLOCK, round(_VIDEO_CLOCK_RATIO * clock) * 1e6)
        yield MetricReading(metrics.COMPUTE_MODE, 0)
        yield MetricReading(metrics.RECOVERY_ACTION, 0)
        yield MetricReading(metrics.IDLE_REASON_ACTIVE, float(not active))
        yield MetricReading(metrics.PERFORMANCE_STATE, 0)
        yield MetricReading(metrics.ENCODER_UTILIZATION, 0)
        yield MetricReading(metrics.DECODER_UTILIZATION, 0)
        yield MetricReading(metrics.PROCESSES, scenario.processes)
        if model.has_fan:
            yield MetricReading(metrics.FAN_SPEED, round(0.3 + 0.6 * thermal_load, 2))
        if model.has_ecc:
            yield MetricReading(metrics.ECC_ERRORS, 0, ("corrected",))
            yield MetricReading(metrics.ECC_ERRORS, 0, ("uncorrected",))
        for reason in THROTTLE_REASONS:
            yield MetricReading(
                metrics.THROTTLE_ACTIVE, reason == scenario.throttle and scenario.throttled_ratio > 0.5, (reason,)
            )
        if scenario.owner:
            labels = tuple(scenario.owner.get(label, "") for label in metrics.OWNER_INFO.labels[1:])
            yield MetricReading(metrics.OWNER_INFO, 1, labels)

    def _counter_readings(self, at: float) -> Iterator[MetricReading]:
        """Counters, and the statistics of the last complete window."""
        scenario, busy = self.scenario, self.busy_seconds(at)
        observed = max(0.0, at - COUNTER_START_SECONDS)
        yield MetricReading(metrics.BUSY_SOURCE, 1, ("buffer",))
        yield MetricReading(metrics.IDLE_HELD_SECONDS, round((observed - busy) * bool(scenario.processes), 6))
        for reason in TIMED_THROTTLE_REASONS:
            throttled = busy * scenario.throttled_ratio if reason == scenario.throttle else 0.0
            yield MetricReading(metrics.THROTTLE_SECONDS, round(throttled, 6), (reason,))
        end = floor(at / _WINDOW_SECONDS) * _WINDOW_SECONDS
        for family, statistics in zip(
            (metrics.UTILIZATION_WINDOW, metrics.POWER_WINDOW), _window(self, end), strict=True
        ):
            for name, value in zip(("min", "mean", "max"), statistics, strict=True):
                yield MetricReading(family, value, (name,))
        yield MetricReading(metrics.WINDOW_LENGTH, _WINDOW_SECONDS)
        yield MetricReading(metrics.WINDOW_END, end)

    def _activity_readings(self, at: float) -> Iterator[MetricReading]:
        """Activity since the last sampling, and traffic counters of the links."""
        model, scenario, busy = self.model, self.scenario, self.busy_seconds(at)
        if model.has_activity:
            busy_ratio = self.utilization(at, _SAMPLING_INTERVAL_SECONDS)
            sm_active = scenario.sm_active_ratio
            shares = (
                1.0,
                sm_active,
                0.45 * sm_active,
                scenario.tensor,
                scenario.fp64,
                scenario.fp32,
                0.02,
                scenario.dram,
            )
            for family, share in zip(ACTIVITY_FAMILIES, shares, strict=True):
                yield MetricReading(family, round(busy_ratio * share, 4))
        lanes = 16
        yield MetricReading(metrics.PCIE_GENERATION, model.pcie_generation)
        yield MetricReading(metrics.PCIE_WIDTH, lanes)
        over_pcie = (
            0.0
            if model.nvlink_bytes_per_second
            else scenario.nvlink_ratio * PCIE_LANE_BYTES_PER_SECOND[model.pcie_generation] * lanes
        )
        yield MetricReading(metrics.PCIE_RECEIVE, floor(busy * (scenario.input_bytes + over_pcie)))
        yield MetricReading(metrics.PCIE_TRANSMIT, floor(busy * (0.1 * scenario.input_bytes + over_pcie)))
        if model.nvlink_bytes_per_second:
            exchanged = floor(busy * scenario.nvlink_ratio * model.nvlink_bytes_per_second)
            yield MetricReading(metrics.NVLINK_TRANSMIT, exchanged)
            yield MetricReading(metrics.NVLINK_RECEIVE, exchanged)

    def _error_readings(self, at: float) -> Iterator[MetricReading]:
        if self.model.has_row_remapping:
            yield MetricReading(metrics.ROW_REMAP_PENDING, 0)
            yield MetricReading(metrics.ROW_REMAP_FAILED, 0)
        if self.scenario.xid:
            code, kind = str(self.scenario.xid), describe_xid(self.scenario.xid)
            count = floor(max(0.0, at - COUNTER_START_SECONDS) / _XID_INTERVAL_SECONDS)
            yield MetricReading(metrics.XID_ERRORS, count, (code,))
            yield MetricReading(
                metrics.XID_LAST_TIMESTAMP, COUNTER_START_SECONDS + count * _XID_INTERVAL_SECONDS, (code,)
            )
            yield MetricReading(metrics.XID_INFO, 1, (code, kind.kind, kind.action))


WindowTriple = tuple[float, float, float]


@lru_cache(maxsize=4096)
def _window(gpu: SimulatedGpu, end: float) -> tuple[WindowTriple, WindowTriple]:
    """Min, mean and max of utilization and power in the window up to `end`, cached for all readings in between."""
    ends = [end - k * _SAMPLING_INTERVAL_SECONDS for k in range(int(_WINDOW_SECONDS / _SAMPLING_INTERVAL_SECONDS) + 1)]
    busy, energy = [gpu.busy_seconds(at) for at in ends], [gpu.energy_joules(at) for at in ends]
    return _rate_statistics(busy), _rate_statistics(energy)


def _rate_statistics(counts: list[float]) -> WindowTriple:
    rates = [(later - earlier) / _SAMPLING_INTERVAL_SECONDS for later, earlier in pairwise(counts)]
    return round(min(rates), 4), round(sum(rates) / len(rates), 4), round(max(rates), 4)


#: The GPM families, in the order of the simulated shares.
ACTIVITY_FAMILIES: tuple[MetricFamily, ...] = (
    metrics.ENGINE_ACTIVITY, metrics.SM_ACTIVITY, metrics.SM_OCCUPANCY, metrics.TENSOR_ACTIVITY, metrics.FP64_ACTIVITY,
    metrics.FP32_ACTIVITY, metrics.FP16_ACTIVITY, metrics.DRAM_BANDWIDTH,
)  # fmt: skip

#: Per lane and direction, by generation.
PCIE_LANE_BYTES_PER_SECOND = {3: 0.985e9, 4: 1.969e9, 5: 3.938e9}


_FLEET_GROUP = re.compile(r"(?P<count>\d+)x(?P<model>[\w-]+?)(?::(?P<scenario>[\w-]+))?")
_MAX_GPUS = 1024


def parse_fleet(text: str, seed: int = 0) -> tuple[SimulatedGpu, ...]:
    """`8xH100-80GB:training,2xT4-16GB:idle` -> its GPUs. Raises FleetError."""
    gpus: list[SimulatedGpu] = []
    for part in text.split(","):
        match = _FLEET_GROUP.fullmatch(part.strip())
        if not match:
            raise FleetError(
                f"{part!r} is not a group of GPUs: use COUNTxMODEL:SCENARIO, for example 8xH100-80GB:training"
            )
        model = find_model(match["model"])
        if model is None:
            raise FleetError(
                f"unknown simulated model {match['model']!r}: use one of {', '.join(MODELS)}, or of "
                f"{', '.join(GPU_TYPES)}"
            )
        scenario = _lookup("scenario", match["scenario"] or "training", SCENARIOS)
        if not 0 < int(match["count"]) <= _MAX_GPUS - len(gpus):
            raise FleetError(f"{part!r}: a simulated node must have 1 to {_MAX_GPUS} GPUs")
        gpus += [SimulatedGpu(len(gpus) + k, model, scenario, seed) for k in range(int(match["count"]))]
    return tuple(gpus)


def _lookup(what: str, name: str, table: Mapping[str, T]) -> T:
    try:
        return table[name]
    except KeyError:
        raise FleetError(f"unknown simulated {what} {name!r}: use one of {', '.join(table)}") from None


class SimulatedDriver:
    """The driver interface over a simulated fleet."""

    vendor = "simulated"

    def __init__(self, fleet: tuple[SimulatedGpu, ...], clock: Callable[[], float] = time.time) -> None:
        self._fleet = fleet
        self._clock = clock

    def read(self) -> tuple[DeviceReading, ...]:
        at = self._clock()
        return tuple(gpu.read(at) for gpu in self._fleet)

    def close(self) -> None:
        """Nothing to unload."""


def simulated_info(fleet_text: str) -> FamilySamples:
    """The family that marks all data of a simulated fleet."""
    return FamilySamples(metrics.SIMULATED_INFO, (((fleet_text,), 1.0),))


def generate_history(
    fleet_text: str, seed: int, nodename: str, start: float, end: float, step: float
) -> Iterator[tuple[float, list[FamilySamples]]]:
    """The fleet's samples at the multiples of `step` in start..end (Unix time), oldest first."""
    fleet = parse_fleet(fleet_text, seed)
    for k in range(floor(start / step) + 1, floor(end / step) + 1):
        at = k * step
        yield at, [simulated_info(fleet_text), *device_samples((gpu.read(at) for gpu in fleet), nodename)]
