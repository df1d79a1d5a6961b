"""How much of everything may be had, and how well it should be used."""

from __future__ import annotations

from pydantic import Field, model_validator

from gpu_advisor.settings.field_types import PercentagePoints, StrictModel, TargetPercent


class GpuLimits(StrictModel):
    """How many GPUs a pool may have, and between which utilizations (percent) it should stay."""

    min: int = Field(1, ge=0, description="a pool keeps at least this many GPUs")
    max: int = Field(8, ge=1, description="a pool gets at most this many GPUs")
    target_utilization: TargetPercent = Field(90, description="percent; training is judged by it")
    scale_up_threshold: TargetPercent = Field(85, description="percent; a serving pool above it grows")
    scale_down_threshold: TargetPercent = Field(60, description="percent; a serving pool below it may shrink")

    @model_validator(mode="after")
    def _ordered(self) -> GpuLimits:
        if self.min > self.max:
            raise ValueError(f"min ({self.min}) is above max ({self.max}): make max at least {self.min}")
        if not self.scale_down_threshold < self.scale_up_threshold <= self.target_utilization:
            raise ValueError(
                f"thresholds contradict each other: scale_down_threshold ({self.scale_down_threshold:g}) must be below "
                f"scale_up_threshold ({self.scale_up_threshold:g}), and that at most "
                f"target_utilization ({self.target_utilization:g})"
            )
        return self


class MemoryLimits(StrictModel):
    """GPU memory: the target share in percent, and what a job may ask for in GB."""

    min_gb: float = Field(8, gt=0)
    max_gb: float = Field(128, gt=0)
    target_usage: TargetPercent = Field(85, description="percent of the GPU's memory")
    tolerance: PercentagePoints = Field(5, description="percentage points to either side")

    @model_validator(mode="after")
    def _ordered(self) -> MemoryLimits:
        if self.min_gb > self.max_gb:
            raise ValueError(f"min_gb ({self.min_gb:g}) is above max_gb ({self.max_gb:g}): exchange them")
        return self


class CpuLimits(StrictModel):
    """CPU of a node: the target share in percent, and how many cores a job may ask for."""

    min_cores: int = Field(4, ge=1)
    max_cores: int = Field(32, ge=1)
    target_usage: TargetPercent = Field(80, description="percent of all cores")
    tolerance: PercentagePoints = Field(10, description="percentage points to either side")

    @model_validator(mode="after")
    def _ordered(self) -> CpuLimits:
        if self.min_cores > self.max_cores:
            raise ValueError(f"min_cores ({self.min_cores}) is above max_cores ({self.max_cores}): exchange them")
        return self


class ResourceSettings(StrictModel):
    gpu: GpuLimits = GpuLimits()
    memory: MemoryLimits = MemoryLimits()
    cpu: CpuLimits = CpuLimits()
