"""Situations in which nothing has to be done, those that look like trouble among them."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.situations.hardware import MODELS, Hardware
from benchmarks.situations.observation import Exporters
from benchmarks.situations.physics import Step, cause, power_share
from benchmarks.situations.scene import Host, Rank, Scene
from benchmarks.situations.situations import (
    HISTORY_SECONDS,
    Rng,
    Situation,
    around,
    capped,
    chance,
    exporters,
    full_kernels,
    hardware,
    ordinary,
    pauses,
    pick,
    size,
    stated_kind,
    uniform,
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
    variant = pick(rng, tuple(VARIANTS), tuple(VARIANTS.values()))
    if variant.startswith("serving"):
        return _serving(rng, variant)
    if variant == "unused":
        return _unused(rng)
    return _training(rng, variant)


def _hosts(rng: Rng, nodes: int) -> tuple[Host, ...]:
    return tuple(
        Host(uniform(rng, 0.05, 0.8), around(rng, 0.001, 0.06), around(rng, 0.01, 0.5), around(rng, 0.003, 0.3))
        for _ in range(nodes)
    )


def _training(rng: Rng, variant: str) -> Situation:
    model, gpus = hardware(rng), size(rng)
    if variant == "MIG":
        model, gpus = MODELS[1], 1
    while True:
        step = ordinary(rng, full_kernels(rng), gpus)
        if variant == "power cap":
            step = replace(step, tensor=uniform(rng, 0.6, 0.8), dram=uniform(rng, 0.4, 0.6))
        if variant == "science":
            step = replace(step, tensor=0.0, fp64=uniform(rng, 0.2, 0.6), fp32=uniform(rng, 0, 0.1))
        if cause(step) == "none":
            break
    memory = uniform(rng, 0.93, 0.985) if variant == "full memory" else uniform(rng, 0.15, 0.92)
    rank = capped(Rank(step, memory=memory))
    if variant == "hot":  # near the limit, where the driver takes a little clock now and then
        rank = replace(rank, heat_celsius=uniform(rng, 14, 22), thermal=uniform(rng, 0, 0.06))
    ranks = tuple(replace(rank, node=k // 8) for k in range(gpus))
    seen, kind = exporters(rng, model), stated_kind(rng, "training")
    if variant == "MIG":
        seen = replace(seen, utilization=False, activity=chance(rng, 0.5))
    scene = Scene(model, ranks, _hosts(rng, 1 + (gpus - 1) // 8), gpus > 1, uniform(rng, 0.02, 0.08),
                  pauses=_pauses(rng, variant), parks=chance(rng, 0.3))  # fmt: skip
    interrupted = variant in ("pausing", "just started")  # then all that can be asked is that nothing be made up
    return Situation("healthy", variant, scene, seen, kind, not interrupted and _told(seen, rank))


def _pauses(rng: Rng, variant: str) -> tuple[tuple[float, float], ...]:
    if variant == "just started":  # data and weights are loaded first, and before that the GPUs were free
        return ((0.0, HISTORY_SECONDS - uniform(rng, 120, 420)),)
    if variant == "pausing":  # right now, for some minutes
        return ((HISTORY_SECONDS - uniform(rng, 60, 420), HISTORY_SECONDS),)
    return pauses(rng)


def _told(seen: Exporters, rank: Rank) -> bool:
    """Whether anybody could tell that kernels do real work: by activity, by the job's word, or by the power drawn."""
    draws = seen.power and power_share(rank.step, rank.clock) >= 0.65
    return seen.utilization and (seen.activity or draws or (seen.job and seen.job_communication))


def _serving(rng: Rng, variant: str) -> Situation:
    """Work comes from outside: some load; a large model with little, that no smaller GPU could hold; a quiet hour."""
    model: Hardware = hardware(rng)
    gpus = int(rng.choice([1, 2, 4, 8]))
    quiet = variant != "serving"
    night = variant == "serving at night"
    step = Step(
        kernels=around(rng, 0.02, 1.0),
        fill=uniform(rng, 0.4, 0.95),
        tensor=uniform(rng, 0.04, 0.3),
        fp32=uniform(rng, 0.02, 0.15),
        dram=uniform(rng, 0.25, 0.62),
        input_bytes_per_second=around(rng, 1e5, 1e8),
    )
    load = uniform(rng, 0.04, 0.3) if quiet else uniform(rng, 0.38, 0.85)
    memory = uniform(rng, 0.05, 0.4) if night else uniform(rng, 0.5, 0.95)
    ranks = tuple(Rank(step, load=load, memory=memory, job=k) for k in range(gpus))
    scene = Scene(model, ranks, _hosts(rng, 1), load_swing=uniform(rng, 0.05, 0.35),
                  swing_seconds=uniform(rng, 300, 3600),
                  day_peak=uniform(rng, 0.45, 0.9) if night else None)  # fmt: skip
    seen, kind = exporters(rng, model, serving=True), stated_kind(rng, "serving")
    identifiable = kind == "serving" and (seen.day or not night)
    return Situation("healthy", variant, scene, seen, kind, identifiable)


def _unused(rng: Rng) -> Situation:
    model, gpus = hardware(rng), size(rng)
    rank = Rank(Step(1.0, tensor=0.0), load=0.0, memory=uniform(rng, 0.0, 0.03), processes=0, job=None)
    scene = Scene(model, tuple(replace(rank, node=k // 8) for k in range(gpus)), _hosts(rng, 1 + (gpus - 1) // 8),
                  parks=True)  # fmt: skip
    seen, kind = exporters(rng, model, serving=True), stated_kind(rng, "training")
    return Situation("healthy", "unused", scene, seen, kind, identifiable=True)
