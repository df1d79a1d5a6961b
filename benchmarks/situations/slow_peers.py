"""Situations in which one GPU, or one node, is slower than its peers."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.situations.gpu_group import GpuGroup, Rank, SimulatedHost
from benchmarks.situations.hardware import Hardware
from benchmarks.situations.physics import ACTIONABLE_RATIO, GpuStep, cap_clock
from benchmarks.situations.situation import (
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


def _hosts(rng: Rng, nodes: int, slow: int | None = None) -> tuple[SimulatedHost, ...]:
    cpu, disk = uniform(rng, 0.05, 0.5), log_uniform(rng, 0.01, 0.3)
    hosts = [
        SimulatedHost(cpu, log_uniform(rng, 0.001, 0.03), disk, log_uniform(rng, 0.003, 0.15)) for _ in range(nodes)
    ]
    if slow is not None:
        hosts[slow] = replace(hosts[slow], cpu=uniform(rng, 0.5, 1.0))
    return tuple(hosts)


def _is_slowed_enough(ranks: list[Rank]) -> bool:
    """Whether the slowest rank holds the others up by what is worth acting on, and does so on its own account."""
    seconds = [rank.step.own_seconds(rank.clock) + rank.step.collective for rank in ranks]
    return max(seconds) / sorted(seconds)[len(seconds) // 2] - 1 >= ACTIONABLE_RATIO


def straggler(rng: Rng) -> Situation:
    """One rank of a synchronous job is slower than the rest, which wait for it in their collectives."""
    model, gpus = draw_hardware(rng), draw_gpu_count(rng, 4)
    nodes = max(1, gpus // 4) if bernoulli(rng, 0.5) else max(1, gpus // 8)
    variants = ("clock", "uneven", "host", "copy") if nodes > 2 else ("clock", "uneven", "copy")
    variant = choose(rng, variants)
    while True:
        step = with_ordinary_losses(rng, full_kernels(rng), gpus)
        step = replace(step, collective=step.kernels * uniform(rng, 0.01, 0.06))
        memory = uniform(rng, 0.4, 0.95)
        ranks = [apply_power_cap(Rank(step, k * nodes // gpus, memory=memory, affected=False)) for k in range(gpus)]
        slow = int(rng.integers(gpus))
        node = ranks[slow].node
        for k in range(gpus):
            if k == slow or (variant == "host" and ranks[k].node == node):
                ranks[k] = replace(_slow(rng, ranks[k], variant), affected=True)
        if _is_slowed_enough(ranks):
            break
    seen, kind = exporters(rng, model), draw_pool_kind(rng, "training")
    scene = GpuGroup(model, tuple(ranks), _hosts(rng, nodes, node if variant == "host" else None), True,
                  uniform(rng, 0.02, 0.05), pauses=pauses(rng))  # fmt: skip
    grouped = seen.owners or seen.job
    waits_idle = variant in ("host", "copy")  # then plain utilization differs, too
    identifiable = grouped and (seen.activity or seen.job_communication or waits_idle or variant == "clock")
    return Situation("straggler", variant, scene, seen, kind, identifiable)


def _slow(rng: Rng, rank: Rank, variant: str) -> Rank:
    step, by = rank.step, uniform(rng, 0.3, 1.2)
    if variant == "clock":  # stuck, with no reason given by the driver
        return replace(rank, clock=rank.clock / (1 + by), power_cap_ratio=0.0)
    if variant == "uneven":
        return replace(rank, step=replace(step, kernels=step.kernels * (1 + by)))
    if variant == "host":
        return replace(rank, step=replace(step, data_wait=step.data_wait + step.kernels * by))
    return replace(rank, step=replace(step, copy=step.copy + step.kernels * by), pcie_share=1 / 8)


def throttled_thermal(rng: Rng) -> Situation:
    """Heat holds the clock down: of one GPU, of a node, or of all that there are."""
    return _throttled(rng, "throttled_thermal", choose(rng, ("one", "node", "all"), (0.5, 0.3, 0.2)))


def throttled_power(rng: Rng) -> Situation:
    """Power holds the clock down below what peers have: a limit set low, or a brake signal of the power supply."""
    return _throttled(rng, "throttled_power", choose(rng, ("limit", "brake")))


def _overheat(rng: Rng, rank: Rank) -> Rank:
    return replace(
        rank, clock=rank.clock * uniform(rng, 0.4, 0.78), thermal=uniform(rng, 0.6, 1.0), power_cap_ratio=0.0,
        heat_celsius=uniform(rng, 25, 45),
    )  # fmt: skip


def _power_brake(rng: Rng, rank: Rank) -> Rank:
    return replace(rank, clock=rank.clock * uniform(rng, 0.3, 0.7), brake=uniform(rng, 0.6, 1.0), power_cap_ratio=0.0)


def _low_power_limit(rng: Rng, rank: Rank) -> Rank:
    limit = uniform(rng, 0.3, 0.6)
    return replace(rank, limit_share=limit, clock=min(rank.clock, cap_clock(rank.step, limit)), power_cap_ratio=0.95)


def _throttled(rng: Rng, label: str, variant: str) -> Situation:
    model, gpus = draw_hardware(rng), draw_gpu_count(rng, 4)
    together = bernoulli(rng, 0.5)
    slow = {"one": 1, "all": gpus}.get(variant, max(1, gpus // 4 if variant == "node" else int(rng.integers(1, 3))))
    while True:
        step = _dense(rng, with_ordinary_losses(rng, full_kernels(rng), gpus if together else 1))
        memory = uniform(rng, 0.4, 0.95)
        normal = apply_power_cap(Rank(step, memory=memory, affected=False))
        worse = {"limit": _low_power_limit, "brake": _power_brake}.get(variant, _overheat)
        bad = [replace(worse(rng, normal), affected=True) for _ in range(slow)]
        if all(step.seconds(rank.clock) / step.seconds(normal.clock) - 1 >= ACTIONABLE_RATIO for rank in bad):
            break
    ranks = [*bad, *([normal] * (gpus - slow))]
    node_of = [k // slow if variant == "node" else k // 8 for k in range(gpus)]
    # Alone, each GPU has a job of its own; together, all wait for the slowest.
    placed = tuple(replace(rank, node=node_of[k], job=0 if together else k) for k, rank in enumerate(ranks))
    return _make_situation(rng, label, variant, model, placed, together)


def _dense(rng: Rng, step: GpuStep) -> GpuStep:
    return replace(step, tensor=uniform(rng, 0.35, 0.7), fp32=uniform(rng, 0.03, 0.1))


def _make_situation(
    rng: Rng, label: str, variant: str, model: Hardware, ranks: tuple[Rank, ...], together: bool
) -> Situation:
    seen, kind = exporters(rng, model), draw_pool_kind(rng, "training")
    nodes = 1 + max(rank.node for rank in ranks)
    scene = GpuGroup(model, ranks, _hosts(rng, nodes), together, uniform(rng, 0.02, 0.05), pauses=pauses(rng))
    reason = seen.throttle or (variant == "limit" and seen.power)
    return Situation(label, variant, scene, seen, kind, identifiable=reason)
