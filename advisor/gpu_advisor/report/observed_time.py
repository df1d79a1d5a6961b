"""How much of a period has data. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from math import fsum

from gpu_advisor.report.fleet_history import FleetHistory
from gpu_advisor.report.usage import observed_ratio_by_step

#: Relative errors of floating-point sums.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class ObservedTime:
    """Hours by which sums of a fleet are divided to get rates.

    `present` is the time from the first sample of any GPU to the last: GPUs are present, and cost money, all this time.
    `observed` is the time with data: of each step, the share in which the GPU that was observed longest was observed.
    `touched` counts each step with any data as whole.
    """

    period: float
    present: float
    observed: float
    touched: float

    @staticmethod
    def of(past: FleetHistory, within: frozenset[int] | None = None) -> ObservedTime:
        """`within`: steps to which the time with data is limited."""
        step, spans = past.period.step_hours, past.observed_spans.values()
        share: dict[int, float] = {}
        for gpu in past.gpus:
            for index, observed in observed_ratio_by_step(past, gpu.uuid).items():
                if within is None or index in within:
                    share[index] = max(share.get(index, 0.0), observed)
        steps = max(last for _, last in spans) - min(first for first, _ in spans) + 1 if spans else 0
        return ObservedTime(past.period.points * step, steps * step, fsum(share.values()) * step, len(share) * step)

    @property
    def ratio(self) -> float:
        return self.observed / self.period

    def unobserved_rate(self, present: float, observed: float) -> float:
        """What is present and unobserved, per hour with data: of sums over the period, in GPU-hours or money."""
        rate = present / self.present - observed / self.observed
        return rate if rate > _ROUNDING * present / self.present else 0.0
