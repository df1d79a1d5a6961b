"""GPU-hours and utilization over time of a group of GPUs. Pure.

The definitions are those of the dashboard "GPU cost and waste": unused is observed time in which no kernel ran;
unobserved time is in no sum, so it does not count as waste. Idle is less than 1 % busy over half an hour with data for
at least 90 % of it; memory is allocated above 5 %.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import fsum

from gpu_advisor.evaluation.facts import Gpu
from gpu_advisor.evaluation.money import GpuPrice
from gpu_advisor.evaluation.pools import ALLOCATED_MEMORY_RATIO
from gpu_advisor.report import series
from gpu_advisor.report.fleet_history import FleetHistory, Steps
from gpu_advisor.report.schema import Cost, Trends

IDLE_RATIO, IDLE_MIN_COVERAGE = 0.01, 0.9


@dataclass(frozen=True, slots=True)
class GpuHourUsage:
    """GPU-hours. `present` counts each GPU from its first to its last sample, `observed` the observed part of it.

    `memory_allocated` and `idle_allocated`: None if memory is never known, else sums over where it is known.
    `memory_unknown` is observed time with unknown memory.
    """

    present: float
    observed: float
    busy: float
    memory_allocated: float | None
    idle_allocated: float | None
    memory_unknown: float

    @property
    def unused(self) -> float:
        return max(0.0, self.observed - self.busy)

    @property
    def unobserved(self) -> float:
        return max(0.0, self.present - self.observed)

    @property
    def utilization(self) -> float | None:
        return self.busy / self.observed if self.observed else None

    @property
    def coverage(self) -> float | None:
        return self.observed / self.present if self.present else None


def gpu_hour_usage(past: FleetHistory, gpu: Gpu) -> GpuHourUsage:
    """Of one GPU."""
    step, uuid = past.period.step_hours, gpu.uuid
    first, last = past.observed_spans.get(uuid, (0, -1))
    utilization, seen = past.of(series.UTILIZATION, uuid), observed_ratio_by_step(past, uuid)
    memory = past.of(series.MEMORY, uuid)
    allocated = [share for index, share in seen.items() if memory.get(index, 0.0) > ALLOCATED_MEMORY_RATIO]
    idle = [seen[index] for index in _idle(past, uuid, seen) if memory.get(index, 0.0) > ALLOCATED_MEMORY_RATIO]
    unknown = [share for index, share in seen.items() if index not in memory]
    known = len(unknown) < len(seen)
    return GpuHourUsage(
        present=(last - first + 1) * step,
        observed=fsum(seen.values()) * step,
        busy=fsum(share * utilization[index] for index, share in seen.items()) * step,
        memory_allocated=fsum(allocated) * step if known else None,
        idle_allocated=fsum(idle) * step if known else None,
        memory_unknown=fsum(unknown) * step,
    )


def observed_ratio_by_step(past: FleetHistory, uuid: str) -> dict[int, float]:
    """The observed share of each step with known utilization."""
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
        present=fsum(each.present for each in parts),
        observed=fsum(each.observed for each in parts),
        busy=fsum(each.busy for each in parts),
        memory_allocated=_sum(each.memory_allocated for each in parts),
        idle_allocated=_sum(each.idle_allocated for each in parts),
        memory_unknown=fsum(each.memory_unknown for each in parts),
    )


def cost(usage_by_gpu: Mapping[Gpu, GpuHourUsage], prices: Mapping[str, GpuPrice]) -> Cost:
    """What these GPUs cost; prices are by uuid. Sums are None without any price."""
    priced = [(each, prices[gpu.uuid].amount) for gpu, each in usage_by_gpu.items() if gpu.uuid in prices]
    return {
        "total": _sum(each.present * price for each, price in priced),
        "unobserved": _sum(each.unobserved * price for each, price in priced),
        "unused": _sum(each.unused * price for each, price in priced),
        "idle_allocated": _sum(
            None if each.idle_allocated is None else each.idle_allocated * price for each, price in priced
        ),
        "unpriced_gpu_hours": fsum(each.present for gpu, each in usage_by_gpu.items() if gpu.uuid not in prices),
    }


def _sum(values: Iterable[float | None]) -> float | None:
    """Of the known values; None without any."""
    known = [value for value in values if value is not None]
    return fsum(known) if known else None


def mean(steps: Iterable[float | None]) -> float | None:
    known = [value for value in steps if value is not None]
    return fsum(known) / len(known) if known else None


def mean_memory(past: FleetHistory, gpus: Sequence[Gpu]) -> float | None:
    """Over the GPUs and steps that have a value."""
    return mean(value for gpu in gpus for value in past.of(series.MEMORY, gpu.uuid).values())


def trends(past: FleetHistory, gpus: Sequence[Gpu]) -> Trends:
    """Means are over observed time: an unobserved GPU is in none of them, rather than idle."""
    uuids = [gpu.uuid for gpu in gpus]
    seen = [(observed_ratio_by_step(past, uuid), past.of(series.UTILIZATION, uuid)) for uuid in uuids]
    memory = [past.of(series.MEMORY, uuid) for uuid in uuids]
    cpu = [past.cpu.get(node, {}) for node in sorted({gpu.node for gpu in gpus})]
    utilization: list[float | None] = []
    named: list[float | None] = []
    busy: list[float | None] = []
    for index in range(past.period.points):
        observed = [(share[index], value[index]) for share, value in seen if index in share]
        weight = fsum(share for share, _ in observed)
        work = fsum(share * value for share, value in observed)
        utilization.append(work / weight if weight else None)
        # A GPU observed for a part of the step counts as if the rest had been alike, as on the dashboards.
        busy.append(fsum(value for _, value in observed) if weight else None)
        # A step without any GPU was not scraped: the number of GPUs is unknown, not zero.
        named.append(float(sum(1 for uuid in uuids if index in past.observed_steps.get(uuid, ()))) or None)
    points = past.period.points
    return {
        "gpu_utilization": utilization,
        "gpu_memory": _means(memory, points),
        "cpu": _means(cpu, points),
        "gpus": named,
        "busy_gpus": busy,
    }


def _means(of_each: Sequence[Steps], points: int) -> list[float | None]:
    return [mean(steps.get(index) for steps in of_each) for index in range(points)]
