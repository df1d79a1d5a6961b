"""The classes: each draws situations whose physical cause is the class, near-misses of the others among them.

`identifiable` is decided here, from which families distinguish the causes in principle, before there was any advisor
to be measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from benchmarks.situations.gpu_group import GpuGroup, Rank, SimulatedHost
from benchmarks.situations.healthy import healthy
from benchmarks.situations.physics import GpuStep, cause
from benchmarks.situations.situation import (
    Draw,
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
from benchmarks.situations.slow_peers import straggler, throttled_power, throttled_thermal


def _hosts(rng: Rng, count: int, **levels: float) -> tuple[SimulatedHost, ...]:
    ordinary_host = {
        "cpu": uniform(rng, 0.05, 0.5),
        "io_pressure": log_uniform(rng, 0.001, 0.04),
        "disk_busy": log_uniform(rng, 0.01, 0.3),
        "network": log_uniform(rng, 0.003, 0.15),
    }
    return tuple(SimulatedHost(**(ordinary_host | levels)) for _ in range(count))


def _even(step: GpuStep, gpus: int, memory: float, needed: float | None = None) -> tuple[Rank, ...]:
    ranks = (Rank(step, node=k // 8, memory=memory, needed_memory=needed) for k in range(gpus))
    return tuple(ranks)


def data_bound(rng: Rng) -> Situation:
    """The GPU waits for its batches: too little preprocessing, slow storage, too few workers, or unpinned copies."""
    model, gpus = draw_hardware(rng), draw_gpu_count(rng)
    variant = choose(rng, ("cpu", "storage", "workers", "copy"), (0.35, 0.3, 0.25, 0.1))
    while True:
        step = with_ordinary_losses(rng, full_kernels(rng), gpus)
        waits = step.seconds() * uniform(rng, 0.25, 3.0)
        wanted = replace(step, copy=step.copy + waits) if variant == "copy" else replace(step, data_wait=waits)
        if cause(wanted) == "data":
            break
    levels = {
        "cpu": {"cpu": uniform(rng, 0.86, 1.0)},
        "storage": {"io_pressure": uniform(rng, 0.15, 0.8), "disk_busy": uniform(rng, 0.7, 1.0)},
        "workers": {"cpu": uniform(rng, 0.03, 0.3)},
        "copy": {},
    }[variant]
    seen, kind = exporters(rng, model), draw_pool_kind(rng, "training")
    ranks = tuple(apply_power_cap(rank) for rank in _even(wanted, gpus, uniform(rng, 0.15, 0.97)))
    scene = GpuGroup(model, ranks, _hosts(rng, 1 + (gpus - 1) // 8, **levels), gpus > 1, uniform(rng, 0.03, 0.12),
                  pauses=pauses(rng))  # fmt: skip
    host = seen.host and (variant == "cpu" or (variant == "storage" and seen.pressure))
    known = kind == "training" or seen.job
    identifiable = (
        (seen.job and variant != "copy")
        or (known and host)
        or (seen.activity and host)
        or (seen.activity and known and (variant != "copy" or seen.links))
    )
    return Situation("data_bound", variant, scene, seen, kind, identifiable)


def _underfilled(rng: Rng) -> GpuStep:
    """Kernels too small for the GPU, and gaps between them: more samples a step would cost little more time."""
    while True:
        fill = uniform(rng, 0.08, 0.5)
        kernels = log_uniform(rng, 0.005, 0.3)
        step = GpuStep(
            kernels=kernels,
            gaps=kernels * uniform(rng, 0, 1.3),
            data_wait=kernels * uniform(rng, 0, 0.05),
            fill=fill,
            tensor=fill * uniform(rng, 0.1, 0.6),
            fp32=fill * uniform(rng, 0.05, 0.3),
            dram=uniform(rng, 0.06, 0.45),
            collective_fill=uniform(rng, 0.06, 0.2),
            input_bytes_per_second=log_uniform(rng, 1e6, 2e8),
        )
        if cause(step) == "batch":
            return step


def _duty(step: GpuStep) -> float:
    return (step.kernels + step.collective) / step.seconds()


def small_batch(rng: Rng) -> Situation:
    """The batch does not fill the GPU, and there is memory for a larger one."""
    model, gpus, step = draw_hardware(rng), draw_gpu_count(rng), _underfilled(rng)
    preallocated = bernoulli(rng, 0.12)
    needed = uniform(rng, 0.06, 0.6)
    memory = uniform(rng, 0.75, 0.97) if preallocated else needed
    seen, kind = exporters(rng, model), draw_pool_kind(rng, "training")
    scene = GpuGroup(model, _even(step, gpus, memory, needed), _hosts(rng, 1 + (gpus - 1) // 8), gpus > 1,
                  uniform(rng, 0.02, 0.08), pauses=pauses(rng))  # fmt: skip
    memory_known = not preallocated or seen.job_memory
    identifiable = memory_known and (seen.activity or (seen.job and _duty(step) < 0.75))
    return Situation("small_batch", "preallocated" if preallocated else "plain", scene, seen, kind, identifiable)


def memory_bound(rng: Rng) -> Situation:
    """Memory is the limit: its bandwidth, or there is no room for the larger batch that would fill the GPU."""
    model, gpus = draw_hardware(rng), draw_gpu_count(rng)
    variant = choose(rng, ("bandwidth", "capacity"))
    seen, kind = exporters(rng, model), draw_pool_kind(rng, "training")
    if variant == "capacity":
        step, memory = _underfilled(rng), uniform(rng, 0.94, 0.995)
        identifiable = seen.activity or (seen.job and _duty(step) < 0.75)
    else:
        memory = uniform(rng, 0.2, 0.97)
        while True:
            step = replace(
                with_ordinary_losses(rng, full_kernels(rng), gpus),
                stalled=uniform(rng, 0.22, 0.7), dram=uniform(rng, 0.74, 0.95),
                tensor=uniform(rng, 0.02, 0.2), fp32=uniform(rng, 0.02, 0.2),
            )  # fmt: skip
            if cause(step) == "bandwidth":
                break
        identifiable = seen.activity
    scene = GpuGroup(model, _even(step, gpus, memory), _hosts(rng, 1 + (gpus - 1) // 8), gpus > 1,
                  uniform(rng, 0.02, 0.08), pauses=pauses(rng))  # fmt: skip
    return Situation("memory_bound", variant, scene, seen, kind, identifiable)


def communication_bound(rng: Rng) -> Situation:
    """Exchanging gradients or activations takes time that nothing hides: between GPUs, or between nodes."""
    model = draw_hardware(rng)
    gpus = draw_gpu_count(rng, 2)
    between = gpus >= 16 or bernoulli(rng, 0.4)
    while True:
        step = with_ordinary_losses(rng, full_kernels(rng), gpus)
        step = replace(step, collective=step.kernels * uniform(rng, 0.3, 2.5), link_share=uniform(rng, 0.3, 0.85))
        if cause(step) == "communication":
            break
    nodes = 2 if between else 1
    ranks = tuple(
        apply_power_cap(Rank(step, node=k * nodes // gpus, memory=uniform(rng, 0.4, 0.95))) for k in range(gpus)
    )
    share = uniform(rng, 0.5, 0.95) if between else 0.0
    scene = GpuGroup(model, ranks, _hosts(rng, nodes), True, uniform(rng, 0.02, 0.08), pauses=pauses(rng),
                  network_share=share)  # fmt: skip
    seen, kind = exporters(rng, model), draw_pool_kind(rng, "training")
    link = (seen.host and seen.network) if between else seen.links
    identifiable = seen.job_communication or (seen.activity and link)
    variant = "between nodes" if between else "nvlink" if model.nvlink else "pcie"
    return Situation("communication_bound", variant, scene, seen, kind, identifiable)


def idle_holding_memory(rng: Rng) -> Situation:
    """Nothing has run for the whole half hour, and memory is held."""
    model, gpus = draw_hardware(rng), draw_gpu_count(rng)
    variant = choose(rng, ("notebook", "server", "hung"))
    load = {"notebook": 0.0, "server": uniform(rng, 0, 0.003), "hung": 0.0}[variant]
    rank = Rank(full_kernels(rng), load=load, memory=uniform(rng, 0.07, 0.95), processes=1)
    seen, kind = exporters(rng, model, serving=True), draw_pool_kind(rng, "training")
    scene = GpuGroup(model, tuple(replace(rank, node=k // 8) for k in range(gpus)), _hosts(rng, 1 + (gpus - 1) // 8),
                  lowers_idle_clocks=bernoulli(rng, 0.5))  # fmt: skip
    return Situation("idle_holding_memory", variant, scene, seen, kind, identifiable=True)


def wrong_instance_size(rng: Rng) -> Situation:
    """Requests come as they come; even their highest rate needs a small part of this GPU and of its memory."""
    model, gpus = draw_hardware(rng), int(rng.choice([1, 2]))
    fill = uniform(rng, 0.05, 0.9)
    step = GpuStep(
        kernels=log_uniform(rng, 0.004, 0.2),
        fill=fill,
        tensor=fill * uniform(rng, 0.05, 0.5),
        fp32=fill * uniform(rng, 0.05, 0.3),
        dram=uniform(rng, 0.05, 0.6),
        input_bytes_per_second=log_uniform(rng, 1e5, 1e8),
    )
    load, swing = uniform(rng, 0.02, 0.16), uniform(rng, 0.05, 0.3)
    ranks = tuple(Rank(step, load=load, memory=uniform(rng, 0.03, 0.25), job=k) for k in range(gpus))
    seen, kind = exporters(rng, model, serving=True), draw_pool_kind(rng, "serving")
    scene = GpuGroup(model, ranks, _hosts(rng, 1, cpu=uniform(rng, 0.03, 0.4)), load_swing=swing,
                  swing_seconds=uniform(rng, 300, 3600))  # fmt: skip
    identifiable = seen.day and (kind == "serving" or (seen.activity and fill < 0.4))
    return Situation("wrong_instance_size", "serving", scene, seen, kind, identifiable)


def busy_but_empty(rng: Rng) -> Situation:
    """Kernels run all the time and do no parallel work: they spin, wait for a peer that is dead, or are serial."""
    model = draw_hardware(rng)
    variant = choose(rng, ("spin", "hung collective", "serial"))
    if variant == "hung collective":
        gpus = draw_gpu_count(rng, 2)
        step = GpuStep(0.0, collective=1.0, link_share=0.0, hidden_link_share=0.0,
                    collective_fill=uniform(rng, 0.05, 0.2))  # fmt: skip
    else:
        gpus = draw_gpu_count(rng)
        fill = uniform(rng, 0.004, 0.03)
        kernels = log_uniform(rng, 0.01, 1.0)
        step = GpuStep(
            kernels, gaps=kernels * uniform(rng, 0, 0.07), fill=fill, tensor=0.0, hidden_link_share=0.0,
            fp32=fill * uniform(rng, 0, 0.5), dram=uniform(rng, 0, 0.012),
            input_bytes_per_second=log_uniform(rng, 1e3, 1e6),
        )  # fmt: skip
    memory = uniform(rng, 0.01, 0.95)
    seen, kind = exporters(rng, model, serving=variant != "serial"), draw_pool_kind(rng, "training")
    scene = GpuGroup(model, _even(step, gpus, memory), _hosts(rng, 1 + (gpus - 1) // 8), jitter=0.02)
    return Situation("busy_but_empty", variant, scene, seen, kind, identifiable=seen.activity)


CLASSES: dict[str, Draw] = {
    "data_bound": data_bound,
    "small_batch": small_batch,
    "memory_bound": memory_bound,
    "idle_holding_memory": idle_holding_memory,
    "straggler": straggler,
    "throttled_thermal": throttled_thermal,
    "throttled_power": throttled_power,
    "communication_bound": communication_bound,
    "wrong_instance_size": wrong_instance_size,
    "busy_but_empty": busy_but_empty,
    "healthy": healthy,
}


def draw(label: str, seed: int, count: int) -> Iterator[tuple[Situation, Rng]]:
    """`count` situations of a class, each with a generator of its own for what is observed of it."""
    index = list(CLASSES).index(label)
    for number in range(count):
        rng = np.random.default_rng([seed, index, number])
        yield CLASSES[label](rng), rng
