"""The advisor as a scaling policy of a replay: the function that sizes serving pools live."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from math import inf

from gpu_advisor.backtest.replay import Observation
from gpu_advisor.evaluation.scaling.demand_history import DemandPoint
from gpu_advisor.evaluation.scaling.headroom import TUNING_SECONDS, Headroom, tuning_time
from gpu_advisor.evaluation.scaling.saturation import LONG_HISTORY_SECONDS
from gpu_advisor.evaluation.scaling.sizing import ScalingLimits, decide_size, tuned_headroom
from gpu_advisor.settings import EvaluationSettings


@dataclass(slots=True)
class AdvisorPolicy:
    """Keeps only the demand history that a data source would have. `headroom` is that of the last decision.

    `target_ratio` is the SLO: the share of the demand (0..1) that may be unserved. Without one, the headroom is that of
    the settings.
    """

    limits: ScalingLimits
    evaluation: EvaluationSettings
    target_ratio: float | None = None
    headroom: Headroom | None = None
    _history: deque[DemandPoint] = field(default_factory=deque)
    _tuned_at: float = -inf

    def __call__(self, observed: Observation, /) -> int:
        if observed.utilization_ratio is not None:
            self._history.append(DemandPoint(observed.at, observed.ready, observed.ready, observed.utilization_ratio))
        while self._history and self._history[0].at <= observed.at - LONG_HISTORY_SECONDS:
            self._history.popleft()
        self.headroom = self._headroom(observed.at)
        present = observed.ready + observed.pending
        return decide_size(
            self._history, present, self.limits, self.evaluation, observed.at, observed.pending, self.headroom
        ).replicas

    def _headroom(self, at: float) -> Headroom:
        if self.target_ratio is None:
            return Headroom(self.evaluation.headroom_deviations)
        tuned_at = tuning_time(at, self.evaluation.step_seconds)
        is_new = not self._history or at - self._history[0].at < 2 * TUNING_SECONDS
        if self.headroom is None or is_new or tuned_at > self._tuned_at:  # else it stays within an hour
            self._tuned_at = tuned_at
            return tuned_headroom(self._history, self.limits, self.evaluation, at, self.target_ratio)
        return self.headroom
