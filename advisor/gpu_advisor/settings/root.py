"""The complete settings, with validation across sections."""

from __future__ import annotations

from typing import TypeVar

from pydantic import Field, ValidationInfo, field_validator, model_validator

from gpu_advisor.settings.allocation import AllocationSettings
from gpu_advisor.settings.cost import CostSettings
from gpu_advisor.settings.evaluation import EvaluationSettings
from gpu_advisor.settings.field_types import StrictModel
from gpu_advisor.settings.notification import AlertmanagerSettings, OutcomeSettings, WebSettings
from gpu_advisor.settings.pools import PoolSettings
from gpu_advisor.settings.resources import GpuLimits, ResourceSettings
from gpu_advisor.settings.source import SourceSettings
from gpu_advisor.settings.teams import TeamSettings

_Named = TypeVar("_Named", PoolSettings, TeamSettings)

#: A HorizontalPodAutoscaler does nothing while metric / (target * replicas) is this close to 1: with a target of
#: 100 / 1.1 percent or more, it never scales up.
HPA_TOLERANCE = 0.1


class Settings(StrictModel):
    """All of the advisor's settings. The file has the same shape."""

    cluster: str = Field("default", min_length=1, description="part of each recommendation's id")
    state_dir: str = Field("state", description="directory of the ledger and the embedded history")
    profiles_dir: str = Field(
        "", description="directory of gpu-advisor probe profiles (*.profile.json); calibrated batch sizes need them"
    )
    source: SourceSettings = SourceSettings()
    resources: ResourceSettings = ResourceSettings()
    pools: list[PoolSettings] = Field(default_factory=list)
    teams: list[TeamSettings] = Field(default_factory=list)
    evaluation: EvaluationSettings = EvaluationSettings()
    cost: CostSettings = CostSettings()
    alertmanagers: list[AlertmanagerSettings] = Field(default_factory=list)
    outcomes: OutcomeSettings = OutcomeSettings()
    allocation: AllocationSettings = AllocationSettings()
    web: WebSettings = WebSettings()

    @field_validator("pools", "teams")
    @classmethod
    def _check_distinct_names(cls, named: list[_Named], info: ValidationInfo) -> list[_Named]:
        names = [each.name for each in named]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f"{', '.join(twice)} is defined more than once: give each of the {info.field_name} its own name"
            )
        return named

    @field_validator("pools")
    @classmethod
    def _check_sizable_pools(cls, pools: list[PoolSettings], info: ValidationInfo) -> list[PoolSettings]:
        resources: ResourceSettings = info.data.get("resources", ResourceSettings())
        highest = 100 / (1 + HPA_TOLERANCE)
        for pool in pools:
            limits = pool.gpu or resources.gpu
            fewest, most = limits.replica_limits(pool.gpus_per_replica)
            if pool.kind != "undecided" and fewest > most:
                raise ValueError(
                    f"{pool.name}: no whole number of replicas of {pool.gpus_per_replica} GPUs lies between min "
                    f"({limits.min}) and max ({limits.max}): set gpu.min and gpu.max of the pool to multiples"
                )
            if pool.kind == "serving" and limits.target_utilization >= highest:
                raise ValueError(
                    f"{pool.name}: target_utilization ({limits.target_utilization:g}) of a serving pool must be below "
                    f"{highest:.1f}: autoscalers tolerate {HPA_TOLERANCE:.0%} and would never scale up"
                )
        return pools

    @model_validator(mode="after")
    def _check_one_headroom(self) -> Settings:
        of_demand = [pool.name for pool in self.pools if pool.unserved_ratio is not None]
        tuned = of_demand or [pool.name for pool in self.pools if pool.states_windows]
        if tuned and "headroom_deviations" in self.evaluation.model_fields_set:
            objective = "slo.unserved" if of_demand else "slo.windows"
            raise ValueError(
                f"evaluation.headroom_deviations contradicts {objective} of {', '.join(tuned)}: the SLO tunes the "
                "headroom; remove one, or set headroom_deviations at the pools without an SLO"
            )
        return self

    def gpu_limits(self, pool: PoolSettings) -> GpuLimits:
        return pool.gpu or self.resources.gpu
