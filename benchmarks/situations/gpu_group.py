"""What happens to a group of GPUs over time: the causes, in physical terms, before anybody looks."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.situations.hardware import Hardware
from benchmarks.situations.physics import GpuStep

Array = NDArray[np.float64]

#: Seconds between two scrapes: the step of all series.
SCRAPE_SECONDS = 15.0
DAY_SECONDS = 86400.0


@dataclass(frozen=True, slots=True)
class SimulatedHost:
    """One node's own figures, as shares; `network` is what goes on besides the GPUs' collectives."""

    cpu: float = 0.2
    io_pressure: float = 0.01
    disk_busy: float = 0.05
    network: float = 0.02


@dataclass(frozen=True, slots=True)
class Rank:
    """One GPU: its work, and the condition that it is in.

    `clock` is the share of the full clock while kernels run; `power_cap_ratio`, `thermal` and `brake` are the shares of
    busy time in which the driver reports the power limit, heat or a brake signal as the reason. `limit_share` is the
    power limit as a share of the model's own.
    """

    step: GpuStep
    node: int = 0
    clock: float = 1.0
    power_cap_ratio: float = 0.0
    thermal: float = 0.0
    brake: float = 0.0
    limit_share: float = 1.0
    heat_celsius: float = 0.0
    memory: float = 0.6
    """Share of the memory that the driver sees held."""
    needed_memory: float | None = None
    """Share that the work needs at its peak, where the framework took more in advance; None: the same."""
    processes: int = 1
    pcie_share: float = 1.0
    load: float | None = None
    """Of open work: the share of the time in which requests are served, on average."""
    affected: bool = True
    job: int | None = 0


@dataclass(frozen=True, slots=True)
class GpuGroup:
    """GPUs of one model on a few nodes. `synchronous`: those of one job wait for each other in each step.

    `load_swing` is how far open work swings around its mean (0..1) over `swing_seconds`; `pauses` are
    (start, end) in seconds in which jobs evaluate, save or load and use no GPU.
    """

    hardware: Hardware
    ranks: tuple[Rank, ...]
    hosts: tuple[SimulatedHost, ...]
    synchronous: bool = False
    jitter: float = 0.05
    jitter_seconds: float = 240.0
    load_swing: float = 0.0
    swing_seconds: float = 600.0
    daily_amplitude: float = 0.0
    """How far open work follows the day around its mean (0..1); `daily_peak_seconds` is when it is highest."""
    daily_peak_seconds: float = 0.0
    day_peak: float | None = None
    """Highest hourly mean of utilization within the last day, where more happened than the scenario has."""
    pauses: tuple[tuple[float, float], ...] = ()
    network_share: float = 0.0
    """Of the nodes' network, while ranks exchange data; then little of it stays on the links between GPUs."""
    lowers_idle_clocks: bool = False
    """Whether clocks fall while nothing runs."""


@dataclass(frozen=True, slots=True)
class StepTimeline:
    """Shares of each interval (rows) and GPU (columns) that each part of the step took, and the step's seconds."""

    kernels: Array
    gaps: Array
    data_wait: Array
    copy: Array
    collective: Array
    exchange: Array  # the part of `collective` in which data moves, as opposed to waiting for a peer
    absent: Array
    step_seconds: Array
    running: Array = field(repr=False)


def correlated(rng: np.random.Generator, shape: tuple[int, ...], seconds: float) -> Array:
    """Noise of variance 1 along the first axis, whose correlation falls to 1/e in `seconds`."""
    keep = float(np.exp(-SCRAPE_SECONDS / seconds))
    fresh = rng.standard_normal(shape) * np.sqrt(1 - keep**2)
    noise = np.empty(shape)
    noise[0] = rng.standard_normal(shape[1:])
    for i in range(1, shape[0]):
        noise[i] = keep * noise[i - 1] + fresh[i]
    return noise


def column(ranks: tuple[Rank, ...], name: str) -> Array:
    """A figure of each rank's step."""
    return np.array([getattr(rank.step, name) for rank in ranks], dtype=float)


def simulate(rng: np.random.Generator, scene: GpuGroup, intervals: int) -> StepTimeline:
    """The scene over time. Ranks of a synchronous job have steps of equal length: who is early waits."""
    ranks = scene.ranks
    shape = (intervals, len(ranks))
    clocks = np.array([rank.clock for rank in ranks])
    stalled = column(ranks, "stalled")
    own = scene.jitter * correlated(rng, (intervals, 4, len(ranks)), scene.jitter_seconds)
    shared = scene.jitter * correlated(rng, (intervals, 4, 1), scene.jitter_seconds)
    factor = np.exp(own * 0.6 + shared)  # kernels wobble by a tenth of what waiting does
    kernels = column(ranks, "kernels") * ((1 - stalled) / clocks + stalled) * factor[:, 0] ** 0.1
    gaps = column(ranks, "gaps") * factor[:, 1] ** 0.3
    data_wait = column(ranks, "data_wait") * factor[:, 2]
    copy = column(ranks, "copy") * factor[:, 2] ** 0.2
    exchange = column(ranks, "collective") * factor[:, 3] ** 0.5
    absent = column(ranks, "absent") * np.ones(shape)
    own_seconds = kernels + gaps + data_wait + copy + absent
    collective = exchange
    if scene.synchronous:
        least = exchange.min(axis=1, keepdims=True)
        together = own_seconds.max(axis=1, keepdims=True) + least
        collective, exchange = together - own_seconds, np.broadcast_to(least, shape)
    step = own_seconds + collective
    course = StepTimeline(
        kernels=kernels / step,
        gaps=gaps / step,
        data_wait=data_wait / step,
        copy=copy / step,
        collective=collective / step,
        exchange=exchange / step,
        absent=absent / step,
        step_seconds=step,
        running=np.ones(shape),
    )
    return _apply_pauses(scene, _apply_load(rng, scene, course))


def _apply_load(rng: np.random.Generator, scene: GpuGroup, course: StepTimeline) -> StepTimeline:
    """Open work runs only while there are requests."""
    loads = np.array([np.nan if rank.load is None else rank.load for rank in scene.ranks])
    if np.isnan(loads).all():
        return course
    shape = course.kernels.shape
    swing = correlated(rng, (shape[0], 1), scene.swing_seconds) * 0.8
    swing = swing + correlated(rng, shape, 60.0) * 0.35
    times = np.arange(shape[0]) * SCRAPE_SECONDS
    wave = 1 + scene.daily_amplitude * np.cos(2 * np.pi * (times - scene.daily_peak_seconds) / DAY_SECONDS)
    load = np.clip(loads * wave[:, None] * (1 + scene.load_swing * swing), 0.0, 0.995)
    share = np.where(np.isnan(load), 1.0, load)
    parts = {
        name: getattr(course, name) * share
        for name in ("kernels", "gaps", "data_wait", "copy", "collective", "exchange")
    }
    return replace(course, **parts, absent=course.absent * share + (1 - share))


def _apply_pauses(scene: GpuGroup, course: StepTimeline) -> StepTimeline:
    """While jobs pause, nothing runs on their GPUs."""
    running = np.ones(course.kernels.shape)
    ends = (np.arange(course.kernels.shape[0]) + 1) * SCRAPE_SECONDS
    for start, end in scene.pauses:
        overlap = np.clip(np.minimum(ends, end) - np.maximum(ends - SCRAPE_SECONDS, start), 0, None) / SCRAPE_SECONDS
        running = running - overlap[:, None]
    running = np.clip(running, 0.0, 1.0)
    if (running == 1).all():
        return course
    parts = {
        name: getattr(course, name) * running
        for name in ("kernels", "gaps", "data_wait", "copy", "collective", "exchange")
    }
    return replace(course, **parts, absent=course.absent * running + (1 - running), running=running)
