"""GPU-hours of a group of GPUs, and how its use went over time. Pure.

The definitions are those of the dashboard "GPU cost and waste": unused is the time in which a GPU was seen and no
kernel ran; what was not seen is in no sum, so it is not taken for waste. Idle is less than 1 % of half an hour of which
at least 90 % was seen; holding is more than 5 % of the memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import fsum

from gpu_advisor.evaluation.facts import Gpu
from gpu_advisor.evaluation.pools import ALLOCATED_MEMORY_RATIO
from gpu_advisor.report import series
from gpu_advisor.report.history_reader import FleetHistory, Steps

IDLE_RATIO, IDLE_MIN_COVERAGE = 0.01, 0.9

#: A value for each step of the period; None where nothing is known.
Trend = tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class GpuHourUsage:
    """GPU-hours. `there` counts each GPU from its first to its last sighting, `seen` what of it was observed.

    `held` and `idle_holding` are None where they cannot be told at all, and sums over what can be told else:
    `untold_holding` is how much was seen without it being known whether memory was held.
    """

    there: float
    seen: float
    busy: float
    held: float | None
    idle_holding: float | None
    untold_holding: float

    @property
    def unused(self) -> float:
        return max(0.0, self.seen - self.busy)

    @property
    def utilization(self) -> float | None:
        return self.busy / self.seen if self.seen else None

    @property
    def coverage(self) -> float | None:
        return self.seen / self.there if self.there else None


@dataclass(frozen=True, slots=True)
class Money:
    """In the currency of the settings' prices; None without any price. `unpriced_hours` are in none of the sums."""

    there: float | None
    unused: float | None
    idle_holding: float | None
    unpriced_hours: float


@dataclass(frozen=True, slots=True)
class Trends:
    """`gpus` are those named in a step, `busy` is in GPUs' worth of work."""

    utilization: Trend
    memory: Trend
    cpu: Trend
    gpus: Trend
    busy: Trend


def gpu_hour_usage(past: FleetHistory, gpu: Gpu) -> GpuHourUsage:
    """Of one GPU."""
    step, uuid = past.period.step_hours, gpu.uuid
    first, last = past.sightings.get(uuid, (0, -1))
    utilization, seen = past.of(series.UTILIZATION, uuid), observed_ratio_by_step(past, uuid)
    memory = past.of(series.MEMORY, uuid)
    held = [share for index, share in seen.items() if memory.get(index, 0.0) > ALLOCATED_MEMORY_RATIO]
    idle = [seen[index] for index in _idle(past, uuid, seen) if memory.get(index, 0.0) > ALLOCATED_MEMORY_RATIO]
    untold = [share for index, share in seen.items() if index not in memory]
    known = len(untold) < len(seen)
    return GpuHourUsage(
        there=(last - first + 1) * step,
        seen=fsum(seen.values()) * step,
        busy=fsum(share * utilization[index] for index, share in seen.items()) * step,
        held=fsum(held) * step if known else None,
        idle_holding=fsum(idle) * step if known else None,
        untold_holding=fsum(untold) * step,
    )


def observed_ratio_by_step(past: FleetHistory, uuid: str) -> dict[int, float]:
    """The share of each step in which the GPU was seen, where its utilization is known."""
    coverage = past.of(series.COVERAGE, uuid)
    return {index: min(1.0, coverage.get(index, 0.0)) for index in past.of(series.UTILIZATION, uuid)}


def _idle(past: FleetHistory, uuid: str, seen: Mapping[int, float]) -> Iterable[int]:
    short = past.period.step_seconds < series.IDLE_SECONDS
    mean = past.of(series.IDLE_UTILIZATION if short else series.UTILIZATION, uuid)
    coverage = past.of(series.IDLE_COVERAGE if short else series.COVERAGE, uuid)
    return (
        index for index in seen if mean.get(index, 1.0) < IDLE_RATIO and coverage.get(index, 0.0) >= IDLE_MIN_COVERAGE
    )


def total(parts: Sequence[GpuHourUsage]) -> GpuHourUsage:
    return GpuHourUsage(
        there=fsum(each.there for each in parts),
        seen=fsum(each.seen for each in parts),
        busy=fsum(each.busy for each in parts),
        held=_sum(each.held for each in parts),
        idle_holding=_sum(each.idle_holding for each in parts),
        untold_holding=fsum(each.untold_holding for each in parts),
    )


def money(of_each: Mapping[Gpu, GpuHourUsage], prices: Mapping[str, float]) -> Money:
    """What these GPUs cost, by model."""
    priced = [(each, prices[gpu.name]) for gpu, each in of_each.items() if gpu.name in prices]
    return Money(
        there=_sum(each.there * price for each, price in priced),
        unused=_sum(each.unused * price for each, price in priced),
        idle_holding=_sum(None if each.idle_holding is None else each.idle_holding * price for each, price in priced),
        unpriced_hours=fsum(each.there for gpu, each in of_each.items() if gpu.name not in prices),
    )


def _sum(values: Iterable[float | None]) -> float | None:
    """Of what is known; None where nothing is."""
    known = [value for value in values if value is not None]
    return fsum(known) if known else None


def mean(steps: Iterable[float | None]) -> float | None:
    known = [value for value in steps if value is not None]
    return fsum(known) / len(known) if known else None


def trends(past: FleetHistory, gpus: Sequence[Gpu]) -> Trends:
    """Means are over what was seen in a step: a GPU that was not seen is in none, rather than idle."""
    uuids = [gpu.uuid for gpu in gpus]
    seen = [(observed_ratio_by_step(past, uuid), past.of(series.UTILIZATION, uuid)) for uuid in uuids]
    memory = [past.of(series.MEMORY, uuid) for uuid in uuids]
    cpu = [past.cpu.get(node, {}) for node in sorted({gpu.node for gpu in gpus})]
    utilization: list[float | None] = []
    named: list[float | None] = []
    busy: list[float | None] = []
    for index in range(past.period.points):
        there = [(share[index], value[index]) for share, value in seen if index in share]
        weight = fsum(share for share, _ in there)
        work = fsum(share * value for share, value in there)
        utilization.append(work / weight if weight else None)
        # Of a GPU that was seen for a part of the step: as if the rest had been alike, as the dashboards show it.
        busy.append(fsum(value for _, value in there) if weight else None)
        # Where nobody is named, nothing was scraped: the number of GPUs is then unknown, not zero.
        named.append(float(sum(1 for uuid in uuids if index in past.named.get(uuid, ()))) or None)
    points = past.period.points
    return Trends(tuple(utilization), _means(memory, points), _means(cpu, points), tuple(named), tuple(busy))


def _means(of_each: Sequence[Steps], points: int) -> Trend:
    return tuple(mean(steps.get(index) for steps in of_each) for index in range(points))
