"""Faults of the GPUs: one at a time, in random order, on a simulated machine."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.simulated_nvml.control import ALL_ONES_32, UNKNOWN, Control, SimulatedGpu, SimulatedMigInstance

GPUS = 8
VICTIMS = (2, 5)

XIDS = (13, 31, 43, 48, 63, 79, 94)


@dataclass(frozen=True)
class Fault:
    """A temporary fault of the machine."""

    name: str
    seconds: float
    inject: Callable[[Control, SimulatedGpu, random.Random], None]
    """Changes the machine, one of its GPUs, or either at random."""


def _lost(_control: Control, gpu: SimulatedGpu, _chance: random.Random) -> None:
    gpu.lost = True


def _all_lost(control: Control, _gpu: SimulatedGpu, _chance: random.Random) -> None:
    for each in control.gpus:
        each.lost = True


def _hang(_control: Control, gpu: SimulatedGpu, chance: random.Random) -> None:
    # Longer than the exporter's time limit of 5 s, so that it reports a hang.
    function = chance.choice(("nvmlDeviceGetUtilizationRates", "nvmlDeviceGetTemperature", "nvmlDeviceGetPowerUsage"))
    gpu.hang = {function: 7.0}


def _reload(control: Control, _gpu: SimulatedGpu, _chance: random.Random) -> None:
    control.loads += 1


def _unload(control: Control, _gpu: SimulatedGpu, _chance: random.Random) -> None:
    control.loaded = False


def _garbage(_control: Control, gpu: SimulatedGpu, chance: random.Random) -> None:
    gpu.raw = {
        "nvmlDeviceGetTemperature": ALL_ONES_32,
        "nvmlDeviceGetPowerUsage": ALL_ONES_32,
        "nvmlDeviceGetUtilizationRates": chance.randint(101, ALL_ONES_32),
        "nvmlDeviceGetSamples": chance.randint(101, ALL_ONES_32),
    }
    gpu.errors = {"nvmlDeviceGetFanSpeed": UNKNOWN}


def _mig(_control: Control, gpu: SimulatedGpu, _chance: random.Random) -> None:
    gpu.mig = True
    gpu.instances = [SimulatedMigInstance(profile="1g.10gb", gpu_instance=place, processes=1) for place in range(7)]


def _many_processes(control: Control, _gpu: SimulatedGpu, _chance: random.Random) -> None:
    for each in control.gpus:
        each.processes = 2000


def _remove_gpus(control: Control, gpu: SimulatedGpu, _chance: random.Random) -> None:
    del control.gpus[control.gpus.index(gpu) :]


def _xids(control: Control, gpu: SimulatedGpu, chance: random.Random) -> None:
    control.xids.append((control.gpus.index(gpu), chance.choice(XIDS)))


FAULTS = (
    Fault("lost", 6, _lost),
    Fault("all lost", 4, _all_lost),
    Fault("hang", 9, _hang),
    Fault("reload", 3, _reload),
    Fault("unload", 5, _unload),
    Fault("garbage", 5, _garbage),
    Fault("mig", 7, _mig),
    Fault("storm", 7, _many_processes),
    Fault("fewer GPUs", 4, _remove_gpus),
    Fault("xid", 1, _xids),
)
CALM_SECONDS = 0.9


class FaultyMachine:
    """The simulated machine, healthy except for one fault at a time."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._chance = random.Random(seed)
        self._control = Control(folder / "control")
        self._left: list[Fault] = []
        self._rounds = 0
        self.caused: Counter[str] = Counter()
        self.heal()

    @property
    def path(self) -> Path:
        return self._control.path

    def heal(self) -> None:
        self._control.gpus = [
            SimulatedGpu(level=100.0 * i / GPUS, period=1.0, duty=0.5, processes=2) for i in range(GPUS)
        ]
        self._control.loaded = True
        self._control.write()

    def next_fault(self) -> Fault:
        """Cause the next fault of this round."""
        if not self._left:
            self._left = list(FAULTS)
            self._chance.shuffle(self._left)
            self._rounds += 1
        fault = self._left.pop()
        fault.inject(self._control, self._control.gpus[VICTIMS[self._rounds % len(VICTIMS)]], self._chance)
        self._control.write()
        self.caused[fault.name] += 1
        return fault
