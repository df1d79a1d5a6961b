"""What exporters saw of a situation, as the advisor would read it: window means by signal. The only link to it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from gpu_advisor.evaluation import signals
from gpu_advisor.evaluation.facts import Facts, Gpu, Node
from gpu_advisor.evaluation.pools import Pool
from gpu_advisor.evaluation.signals import Signal
from gpu_advisor.settings import PoolSettings, Settings

from benchmarks.situations.gpu_group import SCRAPE_SECONDS, Array
from benchmarks.situations.observation import Observation
from benchmarks.situations.situation import Situation

AT = 1_800_000_000.0

#: Which reading is which signal. Windows and reductions are the signals' own.
GPU_SIGNALS: tuple[tuple[str, tuple[Signal, ...]], ...] = (
    (
        "utilization",
        (
            signals.UTILIZATION,
            signals.QUARTER_IDLE_UTILIZATION,
            signals.HALF_IDLE_UTILIZATION,
            signals.IDLE_UTILIZATION,
        ),
    ),
    ("utilization_day_peak", (signals.DAILY_PEAK_UTILIZATION,)),
    ("memory_used", (signals.MEMORY_USED, signals.IDLE_MEMORY_USED)),
    ("processes", (signals.PROCESSES,)),
    ("sm_activity", (signals.SM_ACTIVITY,)),
    ("tensor_activity", (signals.TENSOR_ACTIVITY,)),
    ("fp32_activity", (signals.FP32_ACTIVITY,)),
    ("fp64_activity", (signals.FP64_ACTIVITY,)),
    ("dram_activity", (signals.DRAM_ACTIVITY,)),
    ("memory_activity", (signals.MEMORY_ACTIVITY,)),
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
    ("job_step_seconds", (signals.JOB_STEP_TIME,)),
    ("job_data_wait_seconds", (signals.JOB_DATA_WAIT,)),
    ("job_communication_seconds", (signals.JOB_COMMUNICATION,)),
    ("job_peak_memory_bytes", (signals.JOB_PEAK_MEMORY,)),
)
NODE_SIGNALS: tuple[tuple[str, tuple[Signal, ...]], ...] = (
    ("cpu", (signals.NODE_CPU,)),
    ("io_pressure", (signals.NODE_IO_PRESSURE,)),
    ("disk_busy", (signals.NODE_DISK_BUSY,)),
    ("network_receive", (signals.NODE_NETWORK_RECEIVE,)),
    ("network_transmit", (signals.NODE_NETWORK_TRANSMIT,)),
)

Values = dict[str, dict[str, float]]


class ObservedSituation:
    """A situation that was observed; `facts` at any of its scrapes. Names carry `name`, so that several can be one
    fleet."""

    def __init__(self, situation: Situation, seen: Observation, settings: Settings, name: str = "s") -> None:
        scene, exporters = situation.scene, situation.exporters
        self.situation = situation
        self.settings = settings
        self._gpus = tuple(
            Gpu(f"{name}-{k}", str(k), scene.hardware.name, "nvidia", f"{name}-node-{rank.node}", True)
            for k, rank in enumerate(scene.ranks)
        )
        self._nodes = tuple(Node(f"{name}-node-{k}", f"{name}-node-{k}:9100") for k in range(len(scene.hosts)))
        named = exporters.owners or exporters.job
        self._jobs = {
            gpu.uuid: f"{name}/{rank.job}"
            for gpu, rank in zip(self._gpus, scene.ranks, strict=True)
            if named and rank.job is not None
        }
        self._total = scene.hardware.memory_bytes
        names = [gpu.uuid for gpu in self._gpus]
        evaluation = settings.evaluation

        def means(signal: Signal, readings: Array) -> Array:
            window = signal.window_seconds(evaluation)
            return window_means(readings, 1 if window is None else int(window / SCRAPE_SECONDS))

        self._tables = [
            (signal.name, names, means(signal, seen.gpu[reading]))
            for reading, found in GPU_SIGNALS if reading in seen.gpu for signal in found
        ] + [
            (signal.name, [node.name for node in self._nodes], means(signal, seen.node[reading]))
            for reading, found in NODE_SIGNALS if reading in seen.node for signal in found
        ]  # fmt: skip
        there = np.where(np.isnan(seen.gpu["memory_used"][:, :1]), 0.0, 1.0)
        idle = int(evaluation.idle_window_seconds / SCRAPE_SECONDS)
        self.scrapes = int(there.shape[0])
        self._coverage = [
            share[0] * min(number, idle) / idle for number, share in enumerate(window_means(there, idle).tolist(), 1)
        ]

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        return self._gpus

    @property
    def pool(self) -> Pool:
        return Pool(PoolSettings(name=self._gpus[0].uuid, kind=self.situation.kind or "undecided"), self._gpus)

    def facts(self, scrape: int) -> Facts:
        """As of the scrape of this number, from 1 on."""
        values: Values = {
            signals.MEMORY_TOTAL.name: dict.fromkeys((gpu.uuid for gpu in self._gpus), self._total),
        }
        for signal, names, rows in self._tables:
            row: list[float] = rows[scrape - 1].tolist()
            known = {name: value for name, value in zip(names, row, strict=True) if value == value}
            if known:
                values[signal] = known
        coverage = self._coverage[scrape - 1]
        for each in (signals.IDLE_COVERAGE, signals.UTILIZATION_COVERAGE):
            values[each.name] = dict.fromkeys((gpu.uuid for gpu in self._gpus), coverage)
        return Facts(
            at=AT + scrape * SCRAPE_SECONDS,
            gpus=self._gpus,
            nodes=self._nodes,
            values=values,
            expressions={},
            evaluation=self.settings.evaluation,
            jobs=self._jobs,
        )


def window_means(readings: Array, rows: int) -> Array:
    """At each row the mean of the last `rows` rows, of what is there in them; NaN where there is nothing."""
    there = ~np.isnan(readings)
    ends = np.arange(1, readings.shape[0] + 1)
    starts = np.maximum(0, ends - rows)

    def over_windows(values: Array) -> Array:
        sums = np.vstack([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])
        return np.asarray(sums[ends] - sums[starts])

    counts = over_windows(there.astype(float))
    sums = over_windows(np.where(there, readings, 0.0))
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def merge_facts(every: Sequence[Facts]) -> Facts:
    """Several situations as one fleet, seen at the same time."""
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
