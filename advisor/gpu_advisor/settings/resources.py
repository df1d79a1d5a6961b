"""Resource limits and utilization targets."""

from __future__ import annotations

from pydantic import Field, model_validator

from gpu_advisor.settings.field_types import PercentagePoints, StrictModel, TargetPercent

#: The maximum size of a pool without one.
UNLIMITED = 1 << 30


class GpuLimits(StrictModel):
    """Size limits of a pool, and its utilization targets in percent."""

    min: int = Field(1, ge=0, description="minimum GPUs of a pool")
    max: int | None = Field(None, ge=1, description="maximum GPUs of a pool; by default, none")
    target_utilization: TargetPercent = Field(90, description="percent; target of training pools")
    scale_up_threshold: TargetPercent = Field(
        85, description="percent; a serving pool above it scales up; not with slo.unserved"
    )
    scale_down_threshold: TargetPercent = Field(
        60, description="percent; a serving pool below it may scale down; not with slo.unserved"
    )

    @model_validator(mode="after")
    def _ordered(self) -> GpuLimits:
        problems = []
        if self.max is not None and self.min > self.max:
            problems.append(f"min ({self.min}) is above max ({self.max}): make max at least {self.min}")
        if not self.scale_down_threshold < self.scale_up_threshold <= self.target_utilization:
            problems.append(
                f"thresholds contradict each other: scale_down_threshold ({self.scale_down_threshold:g}) must be below "
                f"scale_up_threshold ({self.scale_up_threshold:g}), and that at most "
                f"target_utilization ({self.target_utilization:g})"
            )
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def replica_limits(self, gpus_per_replica: int) -> tuple[int, int]:
        """The smallest and the largest size, in replicas."""
        return -(-self.min // gpus_per_replica), UNLIMITED if self.max is None else self.max // gpus_per_replica


class MemoryLimits(StrictModel):
    """GPU memory: target, and limits of `memory_gb` of an allocation (by default none); `plan` reads no settings."""

    min_gb: float | None = Field(None, gt=0, description="GB; a request for less is refused")
    max_gb: float | None = Field(None, gt=0, description="GB; a request for more is refused")
    target_usage: TargetPercent = Field(85, description="percent of the GPU's memory")
    tolerance: PercentagePoints = Field(5, description="percentage points to either side")

    @model_validator(mode="after")
    def _ordered(self) -> MemoryLimits:
        if self.min_gb is not None and self.max_gb is not None and self.min_gb > self.max_gb:
            raise ValueError(f"min_gb ({self.min_gb:g}) is above max_gb ({self.max_gb:g}): swap them")
        return self


class CpuLimits(StrictModel):
    """Node CPU: target, and the cores of a job, which advice on data loading keeps to; `plan` plans GPUs only."""

    min_cores: int | None = Field(None, ge=1, description="cores that a job has at least")
    max_cores: int | None = Field(None, ge=1, description="cores that a job has at most")
    target_usage: TargetPercent = Field(80, description="percent of all cores")
    tolerance: PercentagePoints = Field(10, description="percentage points to either side")

    @model_validator(mode="after")
    def _ordered(self) -> CpuLimits:
        if self.min_cores is not None and self.max_cores is not None and self.min_cores > self.max_cores:
            raise ValueError(f"min_cores ({self.min_cores}) is above max_cores ({self.max_cores}): swap them")
        return self


class ResourceSettings(StrictModel):
    gpu: GpuLimits = GpuLimits()
    memory: MemoryLimits = MemoryLimits()
    cpu: CpuLimits = CpuLimits()
