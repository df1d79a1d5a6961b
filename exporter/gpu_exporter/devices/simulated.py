"""A simulated fleet: what real drivers would say of workloads that everybody knows.

Everything is a pure function of (seed, group, GPU, time), so that the past and the live continue into each other and
are the same for everybody. A workload is a train of steps: busy, then waiting. Its busy time since the anchor has a
closed form, and utilization, power and temperature are differences of it over the averaging periods of real drivers.
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
from gpu_exporter.devices.nvidia_xid_codes import meaning
from gpu_exporter.devices.simulated_scenarios import MODELS as MODELS
from gpu_exporter.devices.simulated_scenarios import SCENARIOS as SCENARIOS
from gpu_exporter.devices.simulated_scenarios import Model, Scenario
from gpu_exporter.metrics import Family, Samples
from gpu_exporter.snapshot import Absence, AbsentReason, DeviceReading, Identity, Reading, device_samples

#: Simulated counters count from here: 2026-01-01T00:00:00Z.
ANCHOR_SECONDS = 1_767_225_600.0

T = TypeVar("T")

_MIB = 1024.0**2
_NOISE_CYCLE = 64
_POWER_AVERAGING_SECONDS = 1.0
_THERMAL_SECONDS = 60.0
_SAMPLING_SECONDS = 5.0
_WINDOW_SECONDS = 60.0
_XID_SECONDS = 1200.0


#: The reasons that real drivers tell apart; each is published, active or not.
THROTTLE_REASONS = ("sw_power_cap", "hw_slowdown", "sync_boost", "sw_thermal", "hw_thermal", "hw_power_brake")

#: Those of which the driver counts the time.
COUNTED_REASONS = ("sw_power_cap", "sync_boost", "board_limit", "reliability", "sw_thermal", "hw_thermal",
                   "hw_power_brake")  # fmt: skip


class BadFleet(ValueError):
    """The text of a fleet is not understood; the message tells the mend."""


@dataclass(frozen=True)
class SimulatedGpu:
    """One GPU under one workload."""

    index: int
    model: Model
    scenario: Scenario
    seed: int

    @cached_property
    def identity(self) -> Identity:
        digits = f"{random.Random(f'{self.seed}/{self.index}/{self.model.name}').getrandbits(128):032x}"
        uuid = f"GPU-{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
        bus = f"00000000:{0x10 + self.index:02X}:00.0"
        return Identity(uuid, str(self.index), self.model.name, "nvidia", bus, driver_version="simulated")

    @cached_property
    def _noise(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Offsets of the steps in -1..1 and their running sums. They add up to zero, so that whole cycles cancel."""
        rng = random.Random(f"{self.seed}/{self.index}/noise")
        raw = [rng.uniform(-1, 1) for _ in range(_NOISE_CYCLE)]
        mean = sum(raw) / _NOISE_CYCLE
        offsets = tuple((value - mean) / 2 for value in raw)
        return offsets, tuple(sum(offsets[:k]) for k in range(_NOISE_CYCLE))

    def busy_seconds(self, at: float) -> float:
        """Busy time from the anchor to `at`; grows with time, and by no more than it."""
        scenario, step = self.scenario, self.scenario.step_seconds
        elapsed = max(0.0, at - ANCHOR_SECONDS)
        steps = floor(elapsed / step)
        offsets, sums = self._noise
        within = min(elapsed - steps * step, step * (scenario.duty + scenario.jitter * offsets[steps % _NOISE_CYCLE]))
        return step * (steps * scenario.duty + scenario.jitter * sums[steps % _NOISE_CYCLE]) + max(0.0, within)

    def utilization(self, at: float, seconds: float) -> float:
        """Mean over the last `seconds`, 0..1."""
        return min(1.0, max(0.0, (self.busy_seconds(at) - self.busy_seconds(at - seconds)) / seconds))

    def energy_joules(self, at: float) -> float:
        idle, busy = self.model.idle_power, self._busy_power
        return idle * max(0.0, at - ANCHOR_SECONDS) + (busy - idle) * self.busy_seconds(at)

    @property
    def _busy_power(self) -> float:
        share = min(self.scenario.intensity, self.scenario.limit)
        return max(self.model.idle_power, self.model.power_limit * share)

    def read(self, at: float) -> DeviceReading:
        """What the driver says at `at` (seconds since 1970)."""
        if self.scenario.down:
            return DeviceReading(self.identity, down=self.scenario.down)
        absences = (Absence(family, AbsentReason.UNSUPPORTED) for family in self._unsupported())
        readings = (*self._readings(at), *self._over_time(at), *self._parts(at), *self._health(at))
        return DeviceReading(self.identity, readings, tuple(absences))

    def _unsupported(self) -> Iterator[Family]:
        model = self.model
        lacking = (
            (model.has_ecc, (metrics.ECC_ERRORS,)),
            (model.has_fan, (metrics.FAN_SPEED,)),
            (model.activity, ACTIVITY),
            (model.nvlink > 0, (metrics.NVLINK_TRANSMIT, metrics.NVLINK_RECEIVE)),
            (model.remaps, (metrics.ROW_REMAP_PENDING, metrics.ROW_REMAP_FAILED)),
        )
        for there, families in lacking:
            if not there:
                yield from families

    def _readings(self, at: float) -> Iterator[Reading]:
        model, scenario = self.model, self.scenario
        utilization = self.utilization(at, model.averaging)
        warmth = self.utilization(at, _THERMAL_SECONDS) * scenario.intensity
        active = scenario.processes > 0 and scenario.duty > 0
        held = scenario.memory * model.memory_mib * (1 + 0.005 * self._noise[0][int(at) % _NOISE_CYCLE] * active)
        power = self.energy_joules(at) - self.energy_joules(at - _POWER_AVERAGING_SECONDS)
        clock = (model.sm_clock if active else model.sm_clock_idle) * scenario.clock

        yield Reading(metrics.UTILIZATION, round(utilization, 2))  # drivers give whole percents
        yield Reading(metrics.BUSY, round(self.busy_seconds(at), 6))
        yield Reading(metrics.OBSERVED, round(max(0.0, at - ANCHOR_SECONDS), 6))
        yield Reading(metrics.MEMORY_TOTAL, model.memory_mib * _MIB)
        yield Reading(metrics.MEMORY_USED, round(held) * _MIB)
        yield Reading(metrics.MEMORY_RESERVED, model.reserved_mib * _MIB)
        yield Reading(metrics.MEMORY_ACTIVITY, round(utilization * scenario.memory_activity, 2))
        yield Reading(metrics.TEMPERATURE, round(31 + 38 * warmth + scenario.heat))
        yield Reading(metrics.POWER, round(power / _POWER_AVERAGING_SECONDS, 3))
        yield Reading(metrics.POWER_LIMIT, model.power_limit * scenario.limit)
        yield Reading(metrics.ENERGY, round(self.energy_joules(at), 3))
        yield Reading(metrics.SM_CLOCK, round(clock) * 1e6)
        yield Reading(metrics.SM_CLOCK_MAX, model.sm_clock * 1e6)
        yield Reading(metrics.MEMORY_CLOCK, model.memory_clock * 1e6)
        yield Reading(metrics.PERFORMANCE_STATE, 0)
        yield Reading(metrics.ENCODER, 0)
        yield Reading(metrics.DECODER, 0)
        yield Reading(metrics.PROCESSES, scenario.processes)
        if model.has_fan:
            yield Reading(metrics.FAN_SPEED, round(0.3 + 0.6 * warmth, 2))
        if model.has_ecc:
            yield Reading(metrics.ECC_ERRORS, 0, ("corrected",))
            yield Reading(metrics.ECC_ERRORS, 0, ("uncorrected",))
        for reason in THROTTLE_REASONS:
            yield Reading(metrics.THROTTLED, reason == scenario.throttle and scenario.throttled > 0.5, (reason,))
        if scenario.job:
            yield Reading(metrics.OWNER_INFO, 1, ("process", "", "", "", "", "", scenario.job, "", ""))

    def _over_time(self, at: float) -> Iterator[Reading]:
        """What is counted, and what the last whole minute was like."""
        scenario, busy = self.scenario, self.busy_seconds(at)
        observed = max(0.0, at - ANCHOR_SECONDS)
        yield Reading(metrics.BUSY_SOURCE, 1, ("buffer",))
        yield Reading(metrics.IDLE_HELD, round((observed - busy) * bool(scenario.processes), 6))
        for reason in COUNTED_REASONS:
            held = busy * scenario.throttled if reason == scenario.throttle else 0.0
            yield Reading(metrics.THROTTLE_SECONDS, round(held, 6), (reason,))
        end = floor(at / _WINDOW_SECONDS) * _WINDOW_SECONDS
        for family, statistics in zip(
            (metrics.UTILIZATION_WINDOW, metrics.POWER_WINDOW), _window(self, end), strict=True
        ):
            for name, value in zip(("min", "mean", "max"), statistics, strict=True):
                yield Reading(family, value, (name,))
        yield Reading(metrics.WINDOW_LENGTH, _WINDOW_SECONDS)
        yield Reading(metrics.WINDOW_END, end)

    def _parts(self, at: float) -> Iterator[Reading]:
        """The GPU's parts and links: activity since the last sampling, bytes since the anchor."""
        model, scenario, busy = self.model, self.scenario, self.busy_seconds(at)
        if model.activity:
            duty = self.utilization(at, _SAMPLING_SECONDS)
            shares = (1.0, scenario.fill, 0.45 * scenario.fill, scenario.tensor, scenario.fp64, scenario.fp32, 0.02,
                      scenario.dram)  # fmt: skip
            for family, share in zip(ACTIVITY, shares, strict=True):
                yield Reading(family, round(duty * share, 4))
        lanes = 16
        yield Reading(metrics.PCIE_GENERATION, model.pcie_generation)
        yield Reading(metrics.PCIE_WIDTH, lanes)
        over_pcie = 0.0 if model.nvlink else scenario.exchange * PCIE_LANE[model.pcie_generation] * lanes
        yield Reading(metrics.PCIE_RECEIVE, floor(busy * (scenario.input_bytes + over_pcie)))
        yield Reading(metrics.PCIE_TRANSMIT, floor(busy * (0.1 * scenario.input_bytes + over_pcie)))
        if model.nvlink:
            exchanged = floor(busy * scenario.exchange * model.nvlink)
            yield Reading(metrics.NVLINK_TRANSMIT, exchanged)
            yield Reading(metrics.NVLINK_RECEIVE, exchanged)

    def _health(self, at: float) -> Iterator[Reading]:
        if self.model.remaps:
            yield Reading(metrics.ROW_REMAP_PENDING, 0)
            yield Reading(metrics.ROW_REMAP_FAILED, 0)
        if self.scenario.xid:
            code, kind = str(self.scenario.xid), meaning(self.scenario.xid)
            count = floor(max(0.0, at - ANCHOR_SECONDS) / _XID_SECONDS)
            yield Reading(metrics.XID_ERRORS, count, (code,))
            yield Reading(metrics.XID_LAST, ANCHOR_SECONDS + count * _XID_SECONDS, (code,))
            yield Reading(metrics.XID_INFO, 1, (code, kind.kind, kind.action))


Statistics = tuple[float, float, float]


@lru_cache(maxsize=4096)
def _window(gpu: SimulatedGpu, end: float) -> tuple[Statistics, Statistics]:
    """Min, mean and max of utilization and power in the minute up to `end`. The same for several readings."""
    ends = [end - k * _SAMPLING_SECONDS for k in range(int(_WINDOW_SECONDS / _SAMPLING_SECONDS) + 1)]
    busy, energy = [gpu.busy_seconds(at) for at in ends], [gpu.energy_joules(at) for at in ends]
    return _statistics(busy), _statistics(energy)


def _statistics(counts: list[float]) -> Statistics:
    rates = [(later - earlier) / _SAMPLING_SECONDS for later, earlier in pairwise(counts)]
    return round(min(rates), 4), round(sum(rates) / len(rates), 4), round(max(rates), 4)


#: What NVML tells of the parts of a GPU, in the order in which it is simulated.
ACTIVITY: tuple[Family, ...] = (
    metrics.ENGINE_ACTIVITY, metrics.SM_ACTIVITY, metrics.SM_OCCUPANCY, metrics.TENSOR_ACTIVITY, metrics.FP64_ACTIVITY,
    metrics.FP32_ACTIVITY, metrics.FP16_ACTIVITY, metrics.DRAM_BANDWIDTH,
)  # fmt: skip

#: One lane, one direction, in bytes a second, by generation.
PCIE_LANE = {3: 0.985e9, 4: 1.969e9, 5: 3.938e9}


_GROUP = re.compile(r"(?P<count>\d+)x(?P<model>[\w-]+?)(?::(?P<scenario>[\w-]+))?")
_MOST_GPUS = 1024


def parse_fleet(text: str, seed: int = 0) -> tuple[SimulatedGpu, ...]:
    """`8xH100-80GB:training,2xT4-16GB:idle` -> its GPUs. Raises BadFleet."""
    gpus: list[SimulatedGpu] = []
    for part in text.split(","):
        match = _GROUP.fullmatch(part.strip())
        if not match:
            raise BadFleet(f"{part!r} is not a group of GPUs: write COUNTxMODEL:SCENARIO, as in 8xH100-80GB:training")
        model = _named("model", match["model"], MODELS)
        scenario = _named("scenario", match["scenario"] or "training", SCENARIOS)
        if not 0 < int(match["count"]) <= _MOST_GPUS - len(gpus):
            raise BadFleet(f"{part!r}: a simulated node has 1 to {_MOST_GPUS} GPUs")
        gpus += [SimulatedGpu(len(gpus) + k, model, scenario, seed) for k in range(int(match["count"]))]
    return tuple(gpus)


def _named(what: str, name: str, table: Mapping[str, T]) -> T:
    try:
        return table[name]
    except KeyError:
        raise BadFleet(f"no simulated {what} {name!r}: choose from {', '.join(table)}") from None


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
        """There is nothing to let go of."""


def simulated_info(fleet_text: str) -> Samples:
    """The mark that every page and every past of a simulated fleet carries."""
    return Samples(metrics.SIMULATED, (((fleet_text,), 1.0),))


def past(
    fleet_text: str, seed: int, nodename: str, start: float, end: float, step: float
) -> Iterator[tuple[float, list[Samples]]]:
    """The fleet's samples at the multiples of `step` in start..end (seconds since 1970), oldest first."""
    fleet = parse_fleet(fleet_text, seed)
    for k in range(floor(start / step) + 1, floor(end / step) + 1):
        at = k * step
        yield at, [simulated_info(fleet_text), *device_samples((gpu.read(at) for gpu in fleet), nodename)]
