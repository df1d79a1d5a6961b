"""GPUs that belong together."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from gpu_advisor.settings.kinds import Regex, Strict
from gpu_advisor.settings.resources import GpuLimits

PoolKind = Literal["serving", "training", "undecided"]


class PoolSettings(Strict):
    """GPUs that belong together. The first pool whose selectors all match takes a GPU."""

    name: str = Field(min_length=1)
    kind: PoolKind = Field("undecided", description="serving pools are scaled, all others watched for idle GPUs")
    match: dict[Literal["uuid", "name", "node", "vendor"], Regex] = Field(
        default_factory=dict, description="regular expressions, each matching the whole of a GPU's property"
    )
    gpus_per_replica: int = Field(1, ge=1)
    gpu: GpuLimits | None = Field(None, description="instead of resources.gpu")

    @model_validator(mode="after")
    def _whole_replicas(self) -> PoolSettings:
        if self.gpu and self.gpu.max < self.gpus_per_replica:
            raise ValueError(
                f"gpu.max ({self.gpu.max}) is below gpus_per_replica ({self.gpus_per_replica}): not one replica fits"
            )
        return self
