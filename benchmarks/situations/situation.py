"""A situation, and what all classes of situations are drawn with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from benchmarks.situations.gpu_group import GpuGroup, Rank
from benchmarks.situations.hardware import MODELS, WEIGHTS, Hardware
from benchmarks.situations.observation import ExportedSignals
from benchmarks.situations.physics import GpuStep, cap_clock

Rng = np.random.Generator
Kind = Literal["training", "serving"]

#: Seconds that are simulated before the moment at which a diagnosis is asked for.
HISTORY_SECONDS = 1800.0


@dataclass(frozen=True, slots=True)
class Situation:
    """One thing that is wrong, or nothing. `kind` is the pool's, by its owner's settings; None without any.

    `identifiable`: whether the families that distinguish this cause from all others exist.
    """

    label: str
    variant: str
    scene: GpuGroup
    exporters: ExportedSignals
    kind: Kind | None
    identifiable: bool


Draw = Callable[[Rng], Situation]


def uniform(rng: Rng, low: float, high: float) -> float:
    return float(rng.uniform(low, high))


def log_uniform(rng: Rng, low: float, high: float) -> float:
    """Between the two, all orders of magnitude alike."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def bernoulli(rng: Rng, share: float) -> bool:
    return bool(rng.random() < share)


def choose(rng: Rng, names: Sequence[str], weights: Sequence[float] | None = None) -> str:
    shares = None if weights is None else np.array(weights) / sum(weights)
    return str(rng.choice(np.array(names), p=shares))


def draw_hardware(rng: Rng) -> Hardware:
    return MODELS[int(rng.choice(len(MODELS), p=np.array(WEIGHTS)))]


def full_kernels(rng: Rng, seconds: float | None = None) -> GpuStep:
    """Kernels that fill the GPU: mixed precision mostly, some in fp32."""
    mixed = bernoulli(rng, 0.85)
    return GpuStep(
        kernels=log_uniform(rng, 0.05, 3.0) if seconds is None else seconds,
        fill=uniform(rng, 0.74, 0.97),
        tensor=uniform(rng, 0.22, 0.70) if mixed else 0.0,
        fp32=uniform(rng, 0.03, 0.15) if mixed else uniform(rng, 0.35, 0.7),
        dram=uniform(rng, 0.20, 0.60),
        collective_fill=uniform(rng, 0.06, 0.2),
        hidden_link_share=uniform(rng, 0.02, 0.15),
        input_bytes_per_second=log_uniform(rng, 1e6, 8e8),
    )


def with_ordinary_losses(rng: Rng, step: GpuStep, gpus: int) -> GpuStep:
    """With the small losses that every real job has."""
    return replace(
        step,
        gaps=step.gaps + step.kernels * uniform(rng, 0, 0.03),
        data_wait=step.data_wait + step.kernels * uniform(rng, 0, 0.03),
        copy=step.copy + step.kernels * uniform(rng, 0, 0.01),
        collective=step.collective + (step.kernels * uniform(rng, 0, 0.05) if gpus > 1 else 0.0),
    )


def apply_power_cap(rank: Rank) -> Rank:
    """With the clock that the power limit leaves it, which is normal."""
    clock = cap_clock(rank.step, rank.limit_share)
    return rank if clock >= 0.995 else replace(rank, clock=min(rank.clock, clock), power_cap_ratio=0.95)


def pauses(rng: Rng) -> tuple[tuple[float, float], ...]:
    """Evaluations and checkpoints, now and then, in which the GPUs rest."""
    if bernoulli(rng, 0.6):
        return ()
    every, lasting = uniform(rng, 600, 3600), uniform(rng, 15, 90)
    first = uniform(rng, 0, every)
    starts = np.arange(first, HISTORY_SECONDS, every)
    return tuple((float(start), float(start + lasting)) for start in starts)


def exporters(rng: Rng, model: Hardware, serving: bool = False) -> ExportedSignals:
    """What is installed: our exporter or another's, on this model, with or without reports of jobs."""
    job = not serving and bernoulli(rng, 0.45)
    return ExportedSignals(
        busy_counter=bernoulli(rng, 0.7),
        activity=bernoulli(rng, 0.93) if model.activity else model.profiling and bernoulli(rng, 0.5),
        activity_seconds=float(rng.choice([1.0, 5.0, 15.0])),
        throttle=bernoulli(rng, 0.85),
        power=bernoulli(rng, 0.96),
        links=bernoulli(rng, 0.85),
        pcie_link=bernoulli(rng, 0.85),
        host=bernoulli(rng, 0.93),
        pressure=bernoulli(rng, 0.85),
        network=bernoulli(rng, 0.8),
        job=job,
        job_communication=job and bernoulli(rng, 0.6),
        job_memory=job and bernoulli(rng, 0.5),
        owners=bernoulli(rng, 0.75),
        day=bernoulli(rng, 0.85),
        missed_ratio=float(rng.choice([0.0, 0.0, 0.01, 0.03])),
    )


def draw_pool_kind(rng: Rng, kind: Kind) -> Kind | None:
    return kind if bernoulli(rng, 0.6) else None


def draw_gpu_count(rng: Rng, least: int = 1) -> int:
    sizes = [n for n in (1, 2, 4, 8, 16) if n >= least]
    return int(rng.choice(sizes))
