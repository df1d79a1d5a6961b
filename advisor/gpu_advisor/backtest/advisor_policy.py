"""The advisor as a policy of a replay: the very function that sizes serving pools live, over the trail that it sees."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from gpu_advisor.backtest.replay import Observation
from gpu_advisor.evaluation.scaling.demand_history import DemandPoint
from gpu_advisor.evaluation.scaling.saturation import LONG_HISTORY_SECONDS
from gpu_advisor.evaluation.scaling.sizing import ScalingLimits, decide_size
from gpu_advisor.settings import EvaluationSettings


@dataclass(slots=True)
class AdvisorPolicy:
    """Keeps the trail that a data source would keep, and nothing else."""

    limits: ScalingLimits
    evaluation: EvaluationSettings
    _trail: deque[DemandPoint] = field(default_factory=deque)

    def __call__(self, seen: Observation, /) -> int:
        if seen.utilization_ratio is not None:
            self._trail.append(DemandPoint(seen.at, seen.ready, seen.ready, seen.utilization_ratio))
        while self._trail and self._trail[0].at <= seen.at - LONG_HISTORY_SECONDS:
            self._trail.popleft()
        present = seen.ready + seen.pending
        return decide_size(self._trail, present, self.limits, self.evaluation, seen.at, seen.pending).replicas
