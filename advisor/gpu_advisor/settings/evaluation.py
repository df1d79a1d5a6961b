"""Evaluation interval and windows."""

from __future__ import annotations

from pydantic import Field, model_validator

from gpu_advisor.settings.field_types import Percent, Seconds, StrictModel


class EvaluationSettings(StrictModel):
    """Evaluation interval and windows."""

    interval_seconds: Seconds = Field(15, description="interval between evaluations")
    window_seconds: Seconds = Field(300, description="window of the checks' means")
    idle_window_seconds: Seconds = Field(1800, description="a GPU idle for this long may be released")
    idle_utilization: Percent = Field(1, description="percent; a GPU below it is idle")
    min_coverage_ratio: float = Field(
        0.9, gt=0, le=1, description="minimum data coverage of a window (0 to 1); below it, the window is not evaluated"
    )
    step_seconds: Seconds = Field(60, description="step of the demand history")
    scale_up_stabilization_seconds: Seconds = Field(
        60, description="a pool scales up to the lowest need within this window"
    )
    scale_down_stabilization_seconds: Seconds = Field(
        300, description="a pool scales down to the highest need within this window"
    )
    cooldown_seconds: Seconds = Field(
        300, description="no reversal within this time after a size change, except scaling up at saturation"
    )
    history_seconds: Seconds = Field(4 * 3600, description="demand history that sizing uses")
    level_half_life_seconds: Seconds = Field(
        600, description="half-life of the weight of past demand in the current level"
    )
    excess_half_life_seconds: Seconds = Field(
        9000, description="half-life of the weight of past excesses of demand over forecasts"
    )
    headroom_deviations: float = Field(
        3.5, ge=0, le=20, description="headroom of serving pools, in deviations of demand over forecasts"
    )

    @model_validator(mode="after")
    def _check_windows(self) -> EvaluationSettings:
        if self.idle_window_seconds < self.window_seconds:
            raise ValueError(
                f"idle_window_seconds ({self.idle_window_seconds}) is below window_seconds ({self.window_seconds}): "
                "make it at least window_seconds"
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
                f"and cooldown_seconds ({longest}): make it at least {longest}"
            )
        return self
