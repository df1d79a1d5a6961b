"""Who gives out GPUs, of which machines, and for how long."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from gpu_advisor.hardware.gpu_types import DEFAULT_MEMORY_GB, RESOURCE_NAMES
from gpu_advisor.settings.field_types import Seconds, StrictModel

_RESOURCE_NAME_PATTERN = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?/[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$"
ResourceName = Annotated[str, Field(pattern=_RESOURCE_NAME_PATTERN)]
Vendor = Literal["nvidia", "amd", "intel", "huawei"]


def _default_resource_names() -> dict[Vendor, list[str]]:
    usual = RESOURCE_NAMES
    return {
        "nvidia": [*usual["nvidia"]], "amd": [*usual["amd"]], "intel": [*usual["intel"]], "huawei": [*usual["huawei"]],
    }  # fmt: skip


class AllocationSettings(StrictModel):
    """GPUs that are given out over the API. Machines are those that the signals show, unless a file lists them."""

    inventory_file: str = Field("", description="YAML that lists the machines, read again when it changes")
    database: str = Field("", description="where the leases are kept; leases.db in state_dir if not given")
    lease_seconds: Seconds = Field(3600, description="how long an allocation holds without renewal, if not said")
    longest_lease_seconds: Seconds = Field(7 * 86400, description="no request may ask for longer at a time")
    resource_names: dict[Vendor, Annotated[list[ResourceName], Field(min_length=1)]] = Field(
        default_factory=_default_resource_names,
        description="resource names in Kubernetes by vendor, the usual one first",
    )
    default_resource_name: ResourceName = Field("nvidia.com/gpu", description="of GPUs whose vendor is not said")
    gpu_memory_specs: dict[str, Annotated[float, Field(gt=0, le=10_000)]] = Field(
        default_factory=lambda: {name: float(size) for name, size in DEFAULT_MEMORY_GB.items()},
        description="GB by type, only where neither the machine nor its file tells",
    )
    monitor_update_interval: Seconds = Field(30, description="seconds from one look of the monitoring to the next")
    resource_change_threshold: float = Field(
        0.1, gt=0, le=1, description="a change of utilization or memory by this share (0 to 1) is noted as one"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = Field(
        "INFO", description="what allocation tells in the log"
    )

    @model_validator(mode="after")
    def _together(self) -> AllocationSettings:
        if self.lease_seconds > self.longest_lease_seconds:
            raise ValueError(
                f"lease_seconds ({self.lease_seconds}) is above longest_lease_seconds ({self.longest_lease_seconds}): "
                "make it smaller"
            )
        named = [name for names in self.resource_names.values() for name in names]
        if self.default_resource_name not in named:
            raise ValueError(f"default_resource_name ({self.default_resource_name}) is not in resource_names: add it")
        return self

    @property
    def resource_names_by_vendor(self) -> dict[str, tuple[str, ...]]:
        """Resource names by vendor."""
        return {str(vendor): tuple(names) for vendor, names in self.resource_names.items()}
