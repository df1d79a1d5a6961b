"""What exporters saw of a situation, as the advisor would read it: window means by signal. The only link to it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from gpu_advisor import signals
from gpu_advisor.facts import Facts, Gpu, Node
from gpu_advisor.pools import Pool
from gpu_advisor.settings import PoolSettings, Settings
from gpu_advisor.signals import Signal

from benchmarks.situations.observation import Seen
from benchmarks.situations.scene import SCRAPE_SECONDS, Array
from benchmarks.situations.situations import Situation

AT = 1_800_000_000.0

#: Which reading is which signal. Windows and reductions are the signals' own.
GPU_SIGNALS: tuple[tuple[str, tuple[Signal, ...]], ...] = (
    ("utilization", (signals.UTILIZATION, signals.IDLE_UTILIZATION)),
    ("utilization_day_peak", (signals.DAY_PEAK,)),
    ("memory_used", (signals.MEMORY_USED, signals.MEMORY_HELD)),
    ("processes", (signals.PROCESSES,)),
    ("sm_activity", (signals.SM_ACTIVITY,)),
    ("tensor_activity", (signals.TENSOR_ACTIVITY,)),
    ("fp32_activity", (signals.FP32_ACTIVITY,)),
    ("fp64_activity", (signals.FP64_ACTIVITY,)),
    ("dram_activity", (signals.DRAM_ACTIVITY,)),
    ("power", (signals.POWER,)),
    ("power_limit", (signals.POWER_LIMIT,)),
    ("sm_clock", (signals.SM_CLOCK,)),
    ("sm_clock_max", (signals.SM_CLOCK_MAX,)),
    ("temperature", (signals.TEMPERATURE,)),
    ("throttle_thermal", (signals.THROTTLE_HW_THERMAL,)),
    ("throttle_power_brake", (signals.THROTTLE_POWER_BRAKE,)),
    ("throttle_power_cap", (signals.THROTTLE_POWER_CAP,)),
    ("pcie_receive", (signals.PCIE_RECEIVE,)),
    ("pcie_transmit", (signals.PCIE_TRANSMIT,)),
    ("pcie_generation", (signals.PCIE_GENERATION,)),
    ("pcie_width", (signals.PCIE_WIDTH,)),
    ("nvlink_receive", (signals.NVLINK_RECEIVE,)),
    ("job_step_seconds", (signals.JOB_STEPPING,)),
    ("job_data_wait_seconds", (signals.JOB_DATA_WAIT,)),
    ("job_communication_seconds", (signals.JOB_COMMUNICATION,)),
    ("job_peak_memory_bytes", (signals.JOB_PEAK_MEMORY,)),
)
NODE_SIGNALS: tuple[tuple[str, tuple[Signal, ...]], ...] = (
    ("cpu", (signals.NODE_CPU,)),
    ("io_pressure", (signals.NODE_IO_PRESSURE,)),
    ("disk_busy", (signals.NODE_DISK_BUSY,)),
    ("network_receive", (signals.NODE_RECEIVE,)),
    ("network_transmit", (signals.NODE_TRANSMIT,)),
)

Values = dict[str, dict[str, float]]


class Watched:
    """A situation that was observed; `facts` at any of its scrapes. Names carry `name`, so that several can be one
    fleet."""

    def __init__(self, situation: Situation, seen: Seen, settings: Settings, name: str = "s") -> None:
        scene, exporters = situation.scene, situation.exporters
        self.situation = situation
        self.settings = settings
        self._gpus = tuple(
            Gpu(f"{name}-{k}", str(k), scene.hardware.name, "nvidia", f"{name}-node-{rank.node}", True)
            for k, rank in enumerate(scene.ranks)
        )
        self._nodes = tuple(Node(f"{name}-node-{k}", f"{name}-node-{k}:9100") for k in range(len(scene.hosts)))
        told = exporters.owners or exporters.job
        self._jobs = {
            gpu.uuid: f"{name}/{rank.job}"
            for gpu, rank in zip(self._gpus, scene.ranks, strict=True)
            if told and rank.job is not None
        }
        self._total = scene.hardware.memory_bytes
        names = [gpu.uuid for gpu in self._gpus]
        self._tables = [
            (signal, names, _Means(seen.gpu[reading]))
            for reading, found in GPU_SIGNALS if reading in seen.gpu for signal in found
        ] + [
            (signal, [node.name for node in self._nodes], _Means(seen.node[reading]))
            for reading, found in NODE_SIGNALS if reading in seen.node for signal in found
        ]  # fmt: skip
        some = next(iter(seen.gpu.values()))
        self._there = _Means(np.where(np.isnan(seen.gpu["memory_used"][:, :1]), 0.0, 1.0))
        self.scrapes = int(some.shape[0])

    @property
    def pool(self) -> Pool:
        kind = self.situation.kind or "undecided"
        return Pool(PoolSettings(name=self._gpus[0].uuid, kind=kind), self._gpus)

    def facts(self, scrape: int) -> Facts:
        """As of the scrape of this number, from 1 on."""
        evaluation = self.settings.evaluation
        values: Values = {
            signals.MEMORY_TOTAL.name: dict.fromkeys((gpu.uuid for gpu in self._gpus), self._total),
        }
        for signal, names, means in self._tables:
            window = signal.window_seconds(evaluation)
            count = 1 if window is None else int(window / SCRAPE_SECONDS)
            row = means.mean(scrape, count)
            known = {name: float(value) for name, value in zip(names, row, strict=True) if not np.isnan(value)}
            if known:
                values[signal.name] = known
        idle = int(evaluation.idle_window_seconds / SCRAPE_SECONDS)
        coverage = float(self._there.mean(scrape, idle)[0]) * min(scrape, idle) / idle
        for signal in (signals.IDLE_COVERAGE, signals.UTILIZATION_COVERAGE):
            values[signal.name] = dict.fromkeys((gpu.uuid for gpu in self._gpus), coverage)
        return Facts(
            at=AT + scrape * SCRAPE_SECONDS,
            gpus=self._gpus,
            nodes=self._nodes,
            values=values,
            expressions={},
            evaluation=evaluation,
            jobs=self._jobs,
        )


class _Means:
    """Means over any window of rows, of what is there in it; NaN where there is nothing."""

    def __init__(self, readings: Array) -> None:
        there = ~np.isnan(readings)
        zero = np.zeros((1, readings.shape[1]))
        self._sums = np.vstack([zero, np.cumsum(np.where(there, readings, 0.0), axis=0)])
        self._counts = np.vstack([zero, np.cumsum(there, axis=0)])

    def mean(self, end: int, rows: int) -> Array:
        start = max(0, end - rows)
        counts = self._counts[end] - self._counts[start]
        sums = self._sums[end] - self._sums[start]
        return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def merged(parts: Mapping[str, Facts]) -> Facts:
    """Several situations as one fleet, seen at the same time."""
    every = list(parts.values())
    values: Values = {}
    for each in every:
        for signal, found in each.values.items():
            values.setdefault(signal, {}).update(found)
    return Facts(
        at=every[0].at,
        gpus=tuple(gpu for each in every for gpu in each.gpus),
        nodes=tuple(node for each in every for node in each.nodes),
        values=values,
        expressions={},
        evaluation=every[0].evaluation,
        jobs={uuid: job for each in every for uuid, job in each.jobs.items()},
    )
