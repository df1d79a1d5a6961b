"""What exporters see of a scene: averages over their own periods, sampled at scrapes, some families missing.

Counters (busy time, throttle time, bytes, a job's own seconds) give exact means of each interval. Gauges tell of the
short time before the scrape only; where a step is longer than that, they scatter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from benchmarks.situations.gpu_group import (
    SCRAPE_SECONDS,
    Array,
    GpuGroup,
    Rank,
    StepTimeline,
    column,
    correlated,
    simulate,
)
from benchmarks.situations.physics import GpuStep, power_share

#: Seconds over which the driver averages: utilization (1/6 to 1), power (1).
UTILIZATION_SECONDS = 0.3
POWER_SECONDS = 1.0
IDLE_CLOCK_SHARE = 0.17


@dataclass(frozen=True, slots=True)
class ExportedSignals:
    """Which families there are. `activity_seconds`: over how long a gauge of activity averages."""

    busy_counter: bool = True
    utilization: bool = True
    activity: bool = True
    activity_seconds: float = 5.0
    memory_activity: bool = True
    throttle: bool = True
    power: bool = True
    links: bool = True
    pcie_link: bool = True
    host: bool = True
    pressure: bool = True
    network: bool = True
    job: bool = False
    job_communication: bool = False
    job_memory: bool = False
    owners: bool = False
    day: bool = True
    """Whether a day of history is there, rolled up by the hour."""
    missed_ratio: float = 0.0
    """Share of the scrapes that fail."""


@dataclass(frozen=True, slots=True)
class Observation:
    """Readings by name, one row an interval and one column a GPU (or node); NaN where there is none.

    A name is there only if its family is. Counters stand as their rate in the interval.
    """

    gpu: Mapping[str, Array]
    node: Mapping[str, Array]


def observe(rng: np.random.Generator, scene: GpuGroup, exporters: ExportedSignals, intervals: int) -> Observation:
    """`intervals` scrapes of the scene, SCRAPE_SECONDS apart."""
    course = simulate(rng, scene, intervals)
    gpu = {**_utilization_gauge(rng, scene, course, exporters), **_gpu_condition(rng, scene, course, exporters)}
    if exporters.activity:
        gpu |= _activity(rng, scene, course, exporters)
    if exporters.links:
        gpu |= _links(scene, course)
    if exporters.job:
        gpu |= _job(scene, course, exporters)
    node = _nodes(rng, scene, course, exporters) if exporters.host else {}
    missed = rng.random(intervals) < exporters.missed_ratio
    for readings in (gpu, node):
        for array in readings.values():
            array[missed] = np.nan
    return Observation(gpu, node)


def _sample_share(rng: np.random.Generator, share: Array, course: StepTimeline, seconds: float) -> Array:
    """A share as a mean over `seconds` before the scrape: longer steps are included whole, or not at all."""
    whole = np.minimum(1.0, course.step_seconds / (2 * seconds))
    scatter = np.sqrt(np.clip(share * (1 - share), 0, None) * whole)
    return np.asarray(np.clip(share + scatter * rng.standard_normal(share.shape), 0.0, 1.0))


def _utilization_gauge(
    rng: np.random.Generator, scene: GpuGroup, course: StepTimeline, exporters: ExportedSignals
) -> dict[str, Array]:
    ranks = scene.ranks
    duty = np.clip(course.kernels + course.collective, 0, 1)
    background = np.array([2e-4 if rank.processes else 0.0 for rank in ranks])  # a monitor that looks in
    duty = np.clip(duty + background * rng.random(duty.shape), 0, 1)
    steady = np.array([rank.memory for rank in ranks])
    found: dict[str, Array] = {
        "memory_used": np.clip(steady + 0.002 * rng.standard_normal(duty.shape) * (steady > 0.02), 0, 0.999),
        "processes": np.tile(np.array([float(rank.processes) for rank in ranks]), (duty.shape[0], 1)),
    }
    if exporters.utilization and exporters.day:
        found["utilization_day_peak"] = np.tile(_hourly_peak(scene, duty), (duty.shape[0], 1))
    if exporters.utilization:
        seconds = SCRAPE_SECONDS if exporters.busy_counter else UTILIZATION_SECONDS
        found["utilization"] = _sample_share(rng, duty, course, seconds)
        if exporters.memory_activity:
            moves = course.kernels * np.minimum(1.0, column(ranks, "dram") * 1.15) + course.collective * 0.1
            found["memory_activity"] = _sample_share(rng, np.clip(moves, 0, 1), course, UTILIZATION_SECONDS)
    return found


def _hourly_peak(scene: GpuGroup, duty: Array) -> Array:
    hour = int(3600 / SCRAPE_SECONDS)
    means = [duty[start : start + hour].mean(axis=0) for start in range(0, duty.shape[0], hour)]
    peak = np.max(means, axis=0)
    return np.asarray(peak if scene.day_peak is None else np.maximum(peak, scene.day_peak))


def _activity(
    rng: np.random.Generator, scene: GpuGroup, course: StepTimeline, exporters: ExportedSignals
) -> dict[str, Array]:
    ranks = scene.ranks
    fill, link = column(ranks, "fill"), column(ranks, "collective_fill")
    parts = {
        "sm_activity": course.kernels * fill + course.collective * link,
        "tensor_activity": course.kernels * column(ranks, "tensor"),
        "fp32_activity": course.kernels * column(ranks, "fp32"),
        "fp64_activity": course.kernels * column(ranks, "fp64"),
        "dram_activity": course.kernels * column(ranks, "dram") + course.exchange * 0.08,
    }
    seen: dict[str, Array] = {}
    together = rng.standard_normal(course.kernels.shape)  # one sampling sees the same part of the step in all of them
    whole = np.minimum(1.0, course.step_seconds / (2 * exporters.activity_seconds))
    for name, share in parts.items():
        scatter = np.sqrt(np.clip(share * (1 - share), 0, None) * whole) * together
        seen[name] = np.clip(share + scatter + 0.003 * rng.standard_normal(share.shape) * (share > 0), 0, 1)
    return seen


def _gpu_condition(
    rng: np.random.Generator, scene: GpuGroup, course: StepTimeline, exporters: ExportedSignals
) -> dict[str, Array]:
    ranks, hardware = scene.ranks, scene.hardware
    shape = course.kernels.shape
    limit = np.array([rank.limit_share for rank in ranks], dtype=np.float64) * hardware.limit_watts
    drawn = hardware.idle_watts + (hardware.limit_watts - hardware.idle_watts) * _power(ranks, course)
    watts = np.minimum(drawn * (1 + 0.02 * rng.standard_normal(shape)), limit * 1.01)
    heat = np.array([rank.heat_celsius for rank in ranks])
    warm = 30 + 42 * watts / hardware.limit_watts + heat + correlated(rng, shape, 300.0)
    held = np.array([rank.thermal for rank in ranks]) > 0.3  # the driver holds the temperature just there
    warm = np.where(held, hardware.slowdown_celsius - 1 + correlated(rng, shape, 300.0), warm).astype(np.float64)
    busy = np.clip(course.kernels + course.collective, 0, 1)
    clocks = np.array([rank.clock for rank in ranks])
    in_kernels = np.clip(course.kernels / np.maximum(busy, 1e-9), 0, 1)
    clock = 1 - (1 - clocks) * (0.3 + 0.7 * in_kernels)  # throttled a little between kernels, too
    if scene.lowers_idle_clocks:
        clock = np.where(busy < 0.01, IDLE_CLOCK_SHARE, clock)
    found: dict[str, Array] = {
        "temperature": np.asarray(np.round(np.minimum(warm, hardware.slowdown_celsius)), dtype=np.float64),
        "sm_clock": hardware.sm_clock * np.clip(clock * (1 + 0.006 * rng.standard_normal(shape)), 0, 1),
        "sm_clock_max": np.full(shape, hardware.sm_clock),
    }
    if exporters.power:
        found["power"] = _sample_power(rng, watts, course, hardware.idle_watts)
        found["power_limit"] = np.tile(limit, (shape[0], 1))
    if exporters.throttle:
        for name, seconds in (("thermal", "thermal"), ("power_cap", "power_cap_ratio"), ("power_brake", "brake")):
            share = np.array([getattr(rank, seconds) for rank in ranks])
            found[f"throttle_{name}"] = np.clip(share * busy * (1 + 0.05 * rng.standard_normal(shape)), 0, 1)
    if exporters.pcie_link:
        found["pcie_generation"] = np.full(shape, float(hardware.pcie_generation))
        width = np.array([max(1.0, 16 * rank.pcie_share) for rank in ranks])
        found["pcie_width"] = np.tile(width, (shape[0], 1))
    return found


def _power(ranks: tuple[Rank, ...], course: StepTimeline) -> Array:
    """Of each interval: what the ranks draw in a whole step of kernels, or of collectives, by their shares."""

    def alone(rank: Rank) -> float:
        step = rank.step
        kernels = GpuStep(1.0, fill=step.fill, tensor=step.tensor, fp32=step.fp32, fp64=step.fp64, dram=step.dram)
        return power_share(kernels, rank.clock)

    return np.asarray(course.kernels * np.array([alone(rank) for rank in ranks]) + course.collective * 0.38)


def _sample_power(rng: np.random.Generator, watts: Array, course: StepTimeline, idle: float) -> Array:
    whole = np.minimum(1.0, course.step_seconds / (2 * POWER_SECONDS))
    return np.asarray(
        np.clip(watts + 0.3 * (watts - idle) * whole * rng.standard_normal(watts.shape), idle * 0.9, None)
    )


def _links(scene: GpuGroup, course: StepTimeline) -> dict[str, Array]:
    """Bytes a second. Collectives go over NVLink where there is one, else over PCIe."""
    ranks, hardware = scene.ranks, scene.hardware
    alone = np.array([sum(1 for other in ranks if other.job == rank.job) < 2 for rank in ranks])
    moved = course.exchange * column(ranks, "link_share") + course.kernels * column(ranks, "hidden_link_share")
    moved = np.where(alone, 0.0, moved * (0.12 if scene.network_share else 1.0))
    width = np.array([rank.pcie_share for rank in ranks])
    pcie = hardware.pcie * width
    inputs = column(ranks, "input_bytes_per_second") * (course.kernels + course.collective)
    copied = course.copy * np.minimum(pcie * 0.8, 7e9)  # pageable memory is copied by the host first
    over_pcie = np.zeros_like(moved) if hardware.nvlink else moved * pcie
    found: dict[str, Array] = {
        "pcie_receive": np.minimum(inputs + copied + over_pcie, pcie),
        "pcie_transmit": np.minimum(0.1 * inputs + over_pcie, pcie),
    }
    if hardware.nvlink:
        found["nvlink_receive"] = moved * hardware.nvlink
        found["nvlink_transmit"] = moved * hardware.nvlink
    return found


def _job(scene: GpuGroup, course: StepTimeline, exporters: ExportedSignals) -> dict[str, Array]:
    """Rates of the job's own counters; of GPUs without a job there are none."""
    none = np.array([np.nan if rank.job is None or rank.load is not None else 1.0 for rank in scene.ranks])
    running = course.running * none
    found: dict[str, Array] = {
        "job_step_seconds": running,
        "job_data_wait_seconds": course.data_wait * none,
        "job_steps": running / course.step_seconds,
    }
    if exporters.job_communication:
        found["job_communication_seconds"] = course.collective * none
    if exporters.job_memory:
        needed = [rank.memory if rank.needed_memory is None else rank.needed_memory for rank in scene.ranks]
        peak = np.array(needed)
        found["job_peak_memory_bytes"] = peak * scene.hardware.memory_bytes * 0.97 * np.ones_like(running) * none
    return found


def _nodes(
    rng: np.random.Generator, scene: GpuGroup, course: StepTimeline, exporters: ExportedSignals
) -> dict[str, Array]:
    shape = (course.kernels.shape[0], len(scene.hosts))
    on_node = np.array([[float(rank.node == k) for k in range(len(scene.hosts))] for rank in scene.ranks])
    between = scene.network_share * (course.exchange @ on_node) / np.maximum(on_node.sum(axis=0), 1)

    def around(name: str) -> Array:
        level = np.array([getattr(host, name) for host in scene.hosts])
        return np.asarray(np.clip(level * np.exp(0.12 * correlated(rng, shape, 120.0)), 0, 1))

    found: dict[str, Array] = {"cpu": around("cpu"), "disk_busy": around("disk_busy")}
    if exporters.pressure:
        found["io_pressure"] = around("io_pressure")
    if exporters.network:
        network = around("network")
        found["network_receive"] = np.clip(network + between, 0, 1)
        found["network_transmit"] = np.clip(0.2 * network + between, 0, 1)
    return found
