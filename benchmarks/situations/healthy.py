"""Situations in which nothing has to be done, those that look like trouble among them."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.situations.gpu_group import GpuGroup, Rank, SimulatedHost
from benchmarks.situations.hardware import MODELS, Hardware
from benchmarks.situations.observation import ExportedSignals
from benchmarks.situations.physics import GpuStep, cause, power_share
from benchmarks.situations.situation import (
    HISTORY_SECONDS,
    Rng,
    Situation,
    apply_power_cap,
    bernoulli,
    choose,
    draw_gpu_count,
    draw_hardware,
    draw_pool_kind,
    exporters,
    full_kernels,
    log_uniform,
    pauses,
    uniform,
    with_ordinary_losses,
)

VARIANTS = {
    "training": 0.24,
    "full memory": 0.08,
    "power cap": 0.10,
    "hot": 0.07,
    "science": 0.06,
    "pausing": 0.07,
    "just started": 0.07,
    "serving": 0.14,
    "serving a large model": 0.06,
    "serving at night": 0.04,
    "unused": 0.05,
    "MIG": 0.02,
}


def healthy(rng: Rng) -> Situation:
    variant = choose(rng, tuple(VARIANTS), tuple(VARIANTS.values()))
    if variant.startswith("serving"):
        return _serving(rng, variant)
    if variant == "unused":
        return _unused(rng)
    return _training(rng, variant)


def _hosts(rng: Rng, nodes: int) -> tuple[SimulatedHost, ...]:
    return tuple(
        SimulatedHost(
            uniform(rng, 0.05, 0.8),
            log_uniform(rng, 0.001, 0.06),
            log_uniform(rng, 0.01, 0.5),
            log_uniform(rng, 0.003, 0.3),
        )
        for _ in range(nodes)
    )


def _training(rng: Rng, variant: str) -> Situation:
    model, gpus = draw_hardware(rng), draw_gpu_count(rng)
    if variant == "MIG":
        model, gpus = MODELS[1], 1
    while True:
        step = with_ordinary_losses(rng, full_kernels(rng), gpus)
        if variant == "power cap":
            step = replace(step, tensor=uniform(rng, 0.6, 0.8), dram=uniform(rng, 0.4, 0.6))
        if variant == "science":
            step = replace(step, tensor=0.0, fp64=uniform(rng, 0.2, 0.6), fp32=uniform(rng, 0, 0.1))
        if cause(step) == "none":
            break
    memory = uniform(rng, 0.93, 0.985) if variant == "full memory" else uniform(rng, 0.15, 0.92)
    rank = apply_power_cap(Rank(step, memory=memory))
    if variant == "hot":  # near the limit, where the driver takes a little clock now and then
        rank = replace(rank, heat_celsius=uniform(rng, 14, 22), thermal=uniform(rng, 0, 0.06))
    ranks = tuple(replace(rank, node=k // 8) for k in range(gpus))
    seen, kind = exporters(rng, model), draw_pool_kind(rng, "training")
    if variant == "MIG":
        seen = replace(seen, utilization=False, activity=bernoulli(rng, 0.5))
    scene = GpuGroup(model, ranks, _hosts(rng, 1 + (gpus - 1) // 8), gpus > 1, uniform(rng, 0.02, 0.08),
                  pauses=_pauses(rng, variant), lowers_idle_clocks=bernoulli(rng, 0.3))  # fmt: skip
    interrupted = variant in ("pausing", "just started")  # then all that can be asked is that nothing be made up
    return Situation("healthy", variant, scene, seen, kind, not interrupted and _is_identifiable(seen, rank))


def _pauses(rng: Rng, variant: str) -> tuple[tuple[float, float], ...]:
    if variant == "just started":  # data and weights are loaded first, and before that the GPUs were free
        return ((0.0, HISTORY_SECONDS - uniform(rng, 120, 420)),)
    if variant == "pausing":  # right now, for some minutes
        return ((HISTORY_SECONDS - uniform(rng, 60, 420), HISTORY_SECONDS),)
    return pauses(rng)


def _is_identifiable(seen: ExportedSignals, rank: Rank) -> bool:
    """Whether anything shows that kernels do real work: activity, the job's report, or the power drawn."""
    draws = seen.power and power_share(rank.step, rank.clock) >= 0.65
    return seen.utilization and (seen.activity or draws or (seen.job and seen.job_communication))


def _serving(rng: Rng, variant: str) -> Situation:
    """Work comes from outside: some load; a large model with little, that no smaller GPU could hold; a quiet hour."""
    model: Hardware = draw_hardware(rng)
    gpus = int(rng.choice([1, 2, 4, 8]))
    quiet = variant != "serving"
    night = variant == "serving at night"
    step = GpuStep(
        kernels=log_uniform(rng, 0.02, 1.0),
        fill=uniform(rng, 0.4, 0.95),
        tensor=uniform(rng, 0.04, 0.3),
        fp32=uniform(rng, 0.02, 0.15),
        dram=uniform(rng, 0.25, 0.62),
        input_bytes_per_second=log_uniform(rng, 1e5, 1e8),
    )
    load = uniform(rng, 0.04, 0.3) if quiet else uniform(rng, 0.38, 0.85)
    memory = uniform(rng, 0.05, 0.4) if night else uniform(rng, 0.5, 0.95)
    ranks = tuple(Rank(step, load=load, memory=memory, job=k) for k in range(gpus))
    scene = GpuGroup(model, ranks, _hosts(rng, 1), load_swing=uniform(rng, 0.05, 0.35),
                  swing_seconds=uniform(rng, 300, 3600),
                  day_peak=uniform(rng, 0.45, 0.9) if night else None)  # fmt: skip
    seen, kind = exporters(rng, model, serving=True), draw_pool_kind(rng, "serving")
    identifiable = kind == "serving" and (seen.day or not night)
    return Situation("healthy", variant, scene, seen, kind, identifiable)


def _unused(rng: Rng) -> Situation:
    model, gpus = draw_hardware(rng), draw_gpu_count(rng)
    rank = Rank(GpuStep(1.0, tensor=0.0), load=0.0, memory=uniform(rng, 0.0, 0.03), processes=0, job=None)
    scene = GpuGroup(model, tuple(replace(rank, node=k // 8) for k in range(gpus)), _hosts(rng, 1 + (gpus - 1) // 8),
                  lowers_idle_clocks=True)  # fmt: skip
    seen, kind = exporters(rng, model, serving=True), draw_pool_kind(rng, "training")
    return Situation("healthy", "unused", scene, seen, kind, identifiable=True)
