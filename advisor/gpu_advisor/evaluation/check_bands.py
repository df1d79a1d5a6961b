"""The target range of each check, by the settings. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from gpu_advisor.evaluation.pools import Pool
from gpu_advisor.evaluation.recommendation import Severity
from gpu_advisor.evaluation.signals import (
    NODE_CPU,
    NODE_DISK_BUSY,
    NODE_IO_PRESSURE,
    NODE_MEMORY,
    NODE_NETWORK_RECEIVE,
    NODE_NETWORK_TRANSMIT,
    Signal,
)
from gpu_advisor.settings import CpuLimits, MemoryLimits, PoolSettings, Settings

#: I/O pressure above a tenth of the time is a bottleneck; disks and links saturate before 100 %.
IO_PRESSURE_LIMIT = 0.10
DISK_BUSY_LIMIT = 0.90
NETWORK_LIMIT = 0.80
NODE_MEMORY_LIMIT = 0.95


@dataclass(frozen=True, slots=True)
class TargetBand:
    """The target range of a value, edges included, with the severity of a value below it; above, it is a warning."""

    low: float
    high: float
    below: Severity = "warning"

    def edge(self, value: float) -> float:
        """The edge that the value misses, or is nearest to. Edges at 0 and 1 cannot be missed."""
        if not 0.0 < self.low < 1.0:
            return self.high
        if not 0.0 < self.high < 1.0:
            return self.low
        return self.low if value - self.low <= self.high - value else self.high


@dataclass(frozen=True, slots=True)
class NodeCheck:
    """A check of the first of its signals that has a value, or of the worst of all."""

    name: str
    title: str
    signals: tuple[tuple[Signal, Callable[[Settings], TargetBand]], ...]
    pick: Literal["first", "worst"] = "first"


def _band_around(limits: MemoryLimits | CpuLimits, below: Severity = "warning") -> TargetBand:
    """The target, and the tolerance to either side."""
    low, high = limits.target_usage - limits.tolerance, limits.target_usage + limits.tolerance
    return TargetBand(max(0.0, low / 100), min(1.0, high / 100), below)


def _cpu_band(settings: Settings) -> TargetBand:
    return _band_around(settings.resources.cpu, "info")


def _upper_limit(limit: float) -> Callable[[Settings], TargetBand]:
    return lambda _: TargetBand(0.0, limit)


NODE_CHECKS: tuple[NodeCheck, ...] = (
    NodeCheck("cpu", "CPU utilization", ((NODE_CPU, _cpu_band),)),
    NodeCheck("memory", "node memory", ((NODE_MEMORY, _upper_limit(NODE_MEMORY_LIMIT)),)),
    NodeCheck(
        "storage",
        "storage I/O",
        ((NODE_IO_PRESSURE, _upper_limit(IO_PRESSURE_LIMIT)), (NODE_DISK_BUSY, _upper_limit(DISK_BUSY_LIMIT))),
    ),
    NodeCheck(
        "network",
        "network bandwidth",
        ((NODE_NETWORK_RECEIVE, _upper_limit(NETWORK_LIMIT)), (NODE_NETWORK_TRANSMIT, _upper_limit(NETWORK_LIMIT))),
        "worst",
    ),
)


def utilization_band(settings: Settings, pool: PoolSettings) -> TargetBand:
    """Training is checked against the target utilization, serving against its two thresholds."""
    limits = settings.gpu_limits(pool)
    if pool.kind == "serving":
        return TargetBand(limits.scale_down_threshold / 100, limits.scale_up_threshold / 100)
    return TargetBand(limits.target_utilization / 100, 1.0)


def mean_band(settings: Settings, pools: Sequence[Pool]) -> TargetBand:
    """The band of the mean over GPUs of several pools, each GPU weighted with its pool's band."""
    bands = [(utilization_band(settings, pool.settings), len(pool.gpus)) for pool in pools if pool.gpus]
    count = sum(gpus for _, gpus in bands)
    return TargetBand(sum(b.low * gpus for b, gpus in bands) / count, sum(b.high * gpus for b, gpus in bands) / count)


def memory_band(settings: Settings) -> TargetBand:
    return _band_around(settings.resources.memory)
