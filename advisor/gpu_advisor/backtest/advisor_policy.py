"""The advisor as a scaling policy of a replay: the function that sizes serving pools live."""

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
    """Keeps only the demand history that a data source would have."""

    limits: ScalingLimits
    evaluation: EvaluationSettings
    _history: deque[DemandPoint] = field(default_factory=deque)

    def __call__(self, observed: Observation, /) -> int:
        if observed.utilization_ratio is not None:
            self._history.append(DemandPoint(observed.at, observed.ready, observed.ready, observed.utilization_ratio))
        while self._history and self._history[0].at <= observed.at - LONG_HISTORY_SECONDS:
            self._history.popleft()
        present = observed.ready + observed.pending
        return decide_size(self._history, present, self.limits, self.evaluation, observed.at, observed.pending).replicas
