"""The replayed world: replicas that take time to start, a sensor that saturates, and the account of what came of it.

One replica is one GPU. Decisions are taken at the end of each interval. A scale-up is billed at once and serves from
the first interval that begins after the start delay; a scale-down acts in the next interval, on what has not started
yet first. Work above the capacity is unserved and not carried over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from gpu_advisor.backtest.trace import Trace


@dataclass(frozen=True, slots=True)
class Observation:
    """What a policy is told at the end of an interval: never the demand itself.

    `at` is in seconds from the trace's start. `ready` replicas served in the interval, `pending` are starting;
    `utilization_ratio` is min(1, demand / ready), and None where nothing was recorded or nothing was there to measure.
    """

    at: float
    ready: int
    pending: int
    utilization_ratio: float | None


class ScalingPolicy(Protocol):
    """Decides how many replicas there shall be. A policy may remember: it is made anew for each replay."""

    def __call__(self, seen: Observation, /) -> int: ...


@dataclass(frozen=True, slots=True)
class SimulatedPool:
    """Replicas: those there at first, and the limits that every decision is held to."""

    start: int
    min: int
    max: int
    start_delay_seconds: float


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """What a policy did over a trace.

    `unserved_ratio` is the share of the demand above the capacity, `time_under_ratio` the share of the recorded
    intervals in which there was any. `actions` are intervals after which the number was changed, `reversals` the
    changes in the other direction than the change before.
    """

    gpu_hours: float
    unserved_ratio: float
    time_under_ratio: float
    actions: int
    reversals: int


def replay(trace: Trace, policy: ScalingPolicy, fleet: SimulatedPool) -> ReplayResult:
    """Walk a policy forward through a trace."""
    ready, starting = fleet.start, list[tuple[float, int]]()  # (serves from, replicas), the oldest first
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
        wanted = max(fleet.min, min(fleet.max, policy(Observation(end, ready, pending, utilization))))
        change = wanted - ready - pending
        if change > 0:
            starting.append((end + fleet.start_delay_seconds, change))
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
    """Cancels up to `count` replicas that are starting, the newest first; returns how many are left to be stopped."""
    while count and starting:
        at, replicas = starting.pop()
        if replicas > count:
            starting.append((at, replicas - count))
        count -= min(count, replicas)
    return count
