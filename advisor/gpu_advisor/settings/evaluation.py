"""How often the advisor looks, and over how long."""

from __future__ import annotations

from pydantic import Field, model_validator

from gpu_advisor.settings.field_types import Percent, Seconds, StrictModel


class EvaluationSettings(StrictModel):
    """How often the advisor looks, and over how long."""

    interval_seconds: Seconds = 15
    window_seconds: Seconds = Field(300, description="the checks' means")
    idle_window_seconds: Seconds = Field(1800, description="a GPU idle for this long may be given back")
    idle_utilization: Percent = Field(1, description="percent; a GPU below it is idle")
    min_coverage_ratio: float = Field(
        0.9, gt=0, le=1, description="a window with less data than this share is not judged"
    )
    step_seconds: Seconds = Field(60, description="distance of the points that scaling looks at")
    scale_up_stabilization_seconds: Seconds = Field(60, description="a pool grows by the lowest need within it")
    scale_down_stabilization_seconds: Seconds = Field(300, description="a pool shrinks to the highest need within it")
    cooldown_seconds: Seconds = Field(
        300, description="no reversal within this time after a change of the pool's size, but for growth at saturation"
    )
    history_seconds: Seconds = Field(4 * 3600, description="how much of a pool's past its size is computed from")
    level_half_life_seconds: Seconds = Field(600, description="a demand so long ago counts half in the present level")
    excess_half_life_seconds: Seconds = Field(9000, description="the same, for how far demand went above forecasts")
    headroom_deviations: float = Field(
        3.5, ge=0, le=20, description="head-room of serving pools, in deviations of demand above forecasts"
    )

    @model_validator(mode="after")
    def _check_windows(self) -> EvaluationSettings:
        if self.idle_window_seconds < self.window_seconds:
            raise ValueError(
                f"idle_window_seconds ({self.idle_window_seconds}) is below window_seconds ({self.window_seconds}): "
                "judge idleness over at least the window of the checks"
            )
        shortest = min(self.scale_up_stabilization_seconds, self.scale_down_stabilization_seconds)
        if self.step_seconds > shortest:
            raise ValueError(
                f"step_seconds ({self.step_seconds}) is above the shortest stabilization ({shortest}): make it smaller"
            )
        longest = max(self.scale_down_stabilization_seconds, self.cooldown_seconds)
        if self.history_seconds < longest:
            raise ValueError(
                f"history_seconds ({self.history_seconds}) is below the longest of scale_down_stabilization_seconds "
                f"and cooldown_seconds ({longest}): look at least so far back"
            )
        return self
