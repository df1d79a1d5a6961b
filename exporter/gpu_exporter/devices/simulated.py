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
from functools import cached_property
from math import floor
from typing import TypeVar

from gpu_exporter import metrics
from gpu_exporter.metrics import Samples
from gpu_exporter.snapshot import Absence, AbsentReason, DeviceReading, DownReason, Identity, Reading, device_samples

#: Simulated counters count from here: 2026-01-01T00:00:00Z.
ANCHOR_SECONDS = 1_767_225_600.0

T = TypeVar("T")

_MIB = 1024.0**2
_NOISE_CYCLE = 64
_POWER_AVERAGING_SECONDS = 1.0
_THERMAL_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Model:
    """A GPU model, as its driver describes it. Power in watts, clocks in MHz, memory in MiB, averaging in seconds."""

    name: str
    memory_mib: float
    reserved_mib: float
    idle_power: float
    power_limit: float
    sm_clock: float
    sm_clock_idle: float
    memory_clock: float
    averaging: float
    has_fan: bool = False
    has_ecc: bool = True


MODELS: dict[str, Model] = {
    "H200-141GB": Model("NVIDIA H200", 143771, 612, 76, 700, 1980, 345, 3201, 1 / 6),
    "H100-80GB": Model("NVIDIA H100 80GB HBM3", 81559, 551, 70, 700, 1980, 345, 2619, 1 / 6),
    "A100-80GB": Model("NVIDIA A100-SXM4-80GB", 81920, 626, 62, 400, 1410, 210, 1593, 1 / 6),
    "A100-40GB": Model("NVIDIA A100-SXM4-40GB", 40960, 560, 55, 400, 1410, 210, 1215, 1 / 6),
    "L40S-48GB": Model("NVIDIA L40S", 46068, 480, 35, 350, 2520, 210, 9001, 1 / 6),
    "A10-24GB": Model("NVIDIA A10", 23028, 430, 22, 150, 1695, 210, 6251, 1 / 6),
    "L4-24GB": Model("NVIDIA L4", 23034, 440, 16, 72, 2040, 210, 6251, 1 / 6),
    "V100-32GB": Model("Tesla V100-SXM2-32GB", 32768, 270, 42, 300, 1530, 135, 877, 1.0),
    "T4-16GB": Model("Tesla T4", 15360, 260, 10, 70, 1590, 300, 5001, 1.0),
    "RTX4090-24GB": Model("NVIDIA GeForce RTX 4090", 24564, 310, 20, 450, 3105, 210, 10501, 1 / 6, True, False),
}


@dataclass(frozen=True, slots=True)
class Scenario:
    """A workload. `duty` is the share of a step in which kernels run, `jitter` how much that varies from step to step,
    `memory` the share of memory held, `intensity` the share of the power limit drawn while kernels run,
    `memory_activity` the share of busy time in which memory moves, `clock` the share of the top clock it reaches,
    `heat` degrees Celsius above what the work explains."""

    about: str
    step_seconds: float = 1.0
    duty: float = 0.0
    jitter: float = 0.0
    memory: float = 0.0
    intensity: float = 0.0
    memory_activity: float = 0.0
    processes: int = 0
    clock: float = 1.0
    heat: float = 0.0
    throttle: str = ""
    down: DownReason | None = None


SCENARIOS: dict[str, Scenario] = {
    "training": Scenario("a healthy training job", 0.42, 0.945, 0.03, 0.84, 0.92, 0.55, 1),
    "idle": Scenario("nothing runs, nothing is held"),
    "idle-hoarder": Scenario("nothing runs, but a process holds most of the memory", memory=0.62, processes=1),
    "small-batch": Scenario("steps too short to fill the GPU", 0.03, 0.55, 0.08, 0.21, 0.35, 0.20, 1),
    "data-bound": Scenario("each step waits for its data", 1.3, 0.36, 0.10, 0.74, 0.80, 0.45, 1),
    "saturated-serving": Scenario("more requests than the replicas can serve", 0.08, 0.99, 0.008, 0.90, 0.75, 0.60, 1),
    "throttled": Scenario(
        "a healthy job on a GPU that is too hot", 0.70, 0.97, 0.02, 0.84, 0.60, 0.50, 1, 0.55, 22.0, "hw_thermal"
    ),
    "lost": Scenario("the GPU fell off the bus", down=DownReason.LOST),
}

#: The reasons that real drivers tell apart; each is published, active or not.
THROTTLE_REASONS = ("sw_power_cap", "hw_slowdown", "sync_boost", "sw_thermal", "hw_thermal", "hw_power_brake")


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
        return max(self.model.idle_power, self.model.power_limit * self.scenario.intensity)

    def read(self, at: float) -> DeviceReading:
        """What the driver says at `at` (seconds since 1970)."""
        if self.scenario.down:
            return DeviceReading(self.identity, down=self.scenario.down)
        absences = [] if self.model.has_ecc else [Absence(metrics.ECC_ERRORS, AbsentReason.UNSUPPORTED)]
        if not self.model.has_fan:
            absences.append(Absence(metrics.FAN_SPEED, AbsentReason.UNSUPPORTED))
        return DeviceReading(self.identity, tuple(self._readings(at)), tuple(absences))

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
        yield Reading(metrics.POWER_LIMIT, model.power_limit)
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
            yield Reading(metrics.THROTTLED, reason == scenario.throttle, (reason,))


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
