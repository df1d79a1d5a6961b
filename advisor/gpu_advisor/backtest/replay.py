"""The replay: replicas take time to start, utilization saturates, and cost and unserved demand are summed up.

One replica is one GPU. Decisions are made at the end of each interval. A scale-up is billed at once and serves from the
first interval that begins after the start delay; a scale-down acts in the next interval, on starting replicas first.
Demand above the capacity is unserved and not carried over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from gpu_advisor.backtest.trace import Trace


@dataclass(frozen=True, slots=True)
class Observation:
    """The input of a policy at the end of an interval, without the demand itself.

    `at` is in seconds from the trace's start. `ready` replicas served in the interval, `pending` are starting;
    `utilization_ratio` is min(1, demand / ready), and None if nothing was recorded or no replica was ready.
    """

    at: float
    ready: int
    pending: int
    utilization_ratio: float | None


class ScalingPolicy(Protocol):
    """Decides the number of replicas. A policy may have state: each replay gets a new one."""

    def __call__(self, observed: Observation, /) -> int: ...


@dataclass(frozen=True, slots=True)
class SimulatedPool:
    """The initial number of replicas, and the limits of every decision."""

    start: int
    min: int
    max: int
    start_delay_seconds: float


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """The result of a policy over a trace.

    `unserved_ratio` is the share of the demand above the capacity, `time_under_ratio` the share of the recorded
    intervals in which there was any. `actions` are intervals after which the size changed, `reversals`
    changes against the direction of the previous one.
    """

    gpu_hours: float
    unserved_ratio: float
    time_under_ratio: float
    actions: int
    reversals: int


def replay(trace: Trace, policy: ScalingPolicy, pool: SimulatedPool) -> ReplayResult:
    """Replay a trace with a policy."""
    ready, starting = pool.start, list[tuple[float, int]]()  # (serves from, replicas), the oldest first
    billed = demanded = unserved = 0.0
    recorded = under = actions = reversals = 0
    direction = 0
    for index, demand in enumerate(trace.demand):
        begin, end = index * trace.interval_seconds, (index + 1) * trace.interval_seconds
        while starting and starting[0][0] <= begin:
            ready += starting.pop(0)[1]
        pending = sum(count for _, count in starting)
        billed += (ready + pending) * trace.interval_seconds
        utilization = None
        if demand is not None:
            recorded += 1
            demanded += demand
            unserved += max(0.0, demand - ready)
            under += demand > ready
            utilization = min(1.0, demand / ready) if ready else None
        wanted = max(pool.min, min(pool.max, policy(Observation(end, ready, pending, utilization))))
        change = wanted - ready - pending
        if change > 0:
            starting.append((end + pool.start_delay_seconds, change))
        elif change < 0:
            ready -= _cancel_starting(starting, -change)
        if change:
            actions += 1
            reversals += direction * change < 0
            direction = 1 if change > 0 else -1
    return ReplayResult(
        gpu_hours=billed / 3600,
        unserved_ratio=unserved / demanded if demanded else 0.0,
        time_under_ratio=under / recorded if recorded else 0.0,
        actions=actions,
        reversals=reversals,
    )


def _cancel_starting(starting: list[tuple[float, int]], count: int) -> int:
    """Cancel up to `count` starting replicas, newest first; return how many running ones remain to be stopped."""
    while count and starting:
        at, replicas = starting.pop()
        if replicas > count:
            starting.append((at, replicas - count))
        count -= min(count, replicas)
    return count
