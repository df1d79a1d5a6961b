"""Other autoscalers of a fleet of inference servers, as their documentation describes them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from benchmarks.serving.week import MAX_REPLICAS, MIN_REPLICAS, STEP_SECONDS, Fleet, Scrape

#: https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale: relative difference that is ignored, and
#: the most that a period of 15 s (here a step) adds by default: as many as there are, or 4.
TOLERANCE, MOST_GROWTH, MOST_ADDED = 0.1, 1.0, 4


class Policy(Protocol):
    def decide(self, scrape: Scrape, fleet: Fleet) -> int:
        """The number of replicas wanted after a scrape."""
        ...


@dataclass(frozen=True, slots=True)
class ScaleDown:
    """`behavior.scaleDown` of an HPA: seconds of stabilization, and at most `pods` fewer in a period; 0: any number."""

    stabilization_seconds: int = 300
    pods: int = 0
    period_seconds: int = 15

    def __str__(self) -> str:
        return f", {self.pods} fewer in {self.period_seconds} s" if self.pods else ""


@dataclass
class Hpa:
    """A HorizontalPodAutoscaler on an External metric with an AverageValue target, which a step evaluates.

    desired = sum of the metric / target, over all replicas, also those that start; on the way down, the highest desire
    of the stabilization window. Source of the arithmetic: the page at TOLERANCE.
    """

    metric: Callable[[Scrape], float]
    target: float
    down: ScaleDown = ScaleDown()
    _desires: deque[int] = field(init=False)
    _removed: deque[tuple[float, int]] = field(default_factory=deque, init=False)

    def __post_init__(self) -> None:
        self._desires = deque(maxlen=self.down.stabilization_seconds // STEP_SECONDS)

    def decide(self, scrape: Scrape, fleet: Fleet) -> int:
        present, value = fleet.total, self.metric(scrape)
        within = abs(value / (self.target * present) - 1) <= TOLERANCE
        desired = min(MAX_REPLICAS, max(MIN_REPLICAS, present if within else math.ceil(value / self.target)))
        self._desires.append(desired)
        if desired > present:
            return min(desired, max(math.ceil(present * (1 + MOST_GROWTH)), present + MOST_ADDED))
        return self._reduce(scrape.at, present, min(present, max(self._desires)))

    def _reduce(self, at: float, present: int, wanted: int) -> int:
        if not self.down.pods or wanted >= present:
            return wanted
        while self._removed and self._removed[0][0] <= at - self.down.period_seconds:
            self._removed.popleft()
        left = self.down.pods - sum(count for _, count in self._removed)
        wanted = max(wanted, present - max(0, left))
        if wanted < present:
            self._removed.append((at, present - wanted))
        return wanted


@dataclass
class Saturation:
    """llm-d's analyser of saturation: every minute, one replica at a time, none while one starts.

    KV cache below 0.8 and queue below 5, with 0.1 and 3 to spare (docs/saturation-analyzer.md of
    https://github.com/llm-d/llm-d-workload-variant-autoscaler).
    """

    def decide(self, scrape: Scrape, fleet: Fleet) -> int:
        if scrape.at % 60 or fleet.pending:
            return fleet.total
        queue = scrape.waiting / scrape.replicas
        spare_kv, spare_queue = 0.8 - scrape.kv_usage, 5 - queue
        if spare_kv < 0.1 or spare_queue < 3:
            return fleet.total + 1
        fewer = scrape.replicas - 1
        if fewer >= 2 and 0.8 - scrape.kv_usage * scrape.replicas / fewer >= 0.1 and 5 - scrape.waiting / fewer >= 3:
            return fleet.total - 1
        return fleet.total


def _running(scrape: Scrape) -> float:
    return scrape.running


def _waiting(scrape: Scrape) -> float:
    return scrape.waiting


def _running_and_waiting(scrape: Scrape) -> float:
    return scrape.running + scrape.waiting


#: A queue is empty until it is too late: what an operator does about it is to let replicas go slowly.
SLOW = (ScaleDown(pods=1, period_seconds=300), ScaleDown(pods=1, period_seconds=600))
QUEUE_TARGETS, SLOW_QUEUE_TARGETS = (0.1, 0.3, 1, 3, 10, 30, 50), (0.1, 1, 10, 50)


def autoscalers() -> dict[str, Policy]:
    """Each by its name for people."""
    found: dict[str, Policy] = {"llm-d's saturation": Saturation()}
    found |= {f"HPA queue {target:g}": Hpa(_waiting, target) for target in QUEUE_TARGETS}
    found |= {
        f"HPA queue {target:g}{down}": Hpa(_waiting, target, down) for down in SLOW for target in SLOW_QUEUE_TARGETS
    }
    found |= {f"HPA running {target:g}": Hpa(_running, target) for target in (20, 25, 30, 35, 40, 43, 46, 50, 60)}
    found |= {f"HPA running and waiting {target:g}": Hpa(_running_and_waiting, target) for target in (40, 43, 46, 50)}
    return found
