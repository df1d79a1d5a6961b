"""GPU allocation: leases, inventory and resource names."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from gpu_advisor.hardware.gpu_types import DEFAULT_MEMORY_GB, RESOURCE_NAMES
from gpu_advisor.settings.field_types import Seconds, StrictModel

_RESOURCE_NAME_PATTERN = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?/[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$"
ResourceName = Annotated[str, Field(pattern=_RESOURCE_NAME_PATTERN)]
Vendor = Literal["nvidia", "amd", "intel", "huawei"]


def _default_resource_names() -> dict[Vendor, list[str]]:
    names = RESOURCE_NAMES
    return {
        "nvidia": [*names["nvidia"]], "amd": [*names["amd"]], "intel": [*names["intel"]], "huawei": [*names["huawei"]],
    }  # fmt: skip


class AllocationSettings(StrictModel):
    """GPU allocation (leases) over the API. The machines are those observed, unless a file lists them."""

    inventory_file: str = Field("", description="YAML file that lists the machines; reloaded when it changes")
    database: str = Field("", description="SQLite file of the leases; empty: leases.db in state_dir")
    lease_seconds: Seconds = Field(3600, description="default lease duration without renewal")
    longest_lease_seconds: Seconds = Field(7 * 86400, description="maximum lease duration of a request")
    resource_names: dict[Vendor, Annotated[list[ResourceName], Field(min_length=1)]] = Field(
        default_factory=_default_resource_names,
        description="Kubernetes resource names by vendor, the most common first",
    )
    default_resource_name: ResourceName = Field("nvidia.com/gpu", description="resource name of GPUs of unknown vendor")
    gpu_memory_specs: dict[str, Annotated[float, Field(gt=0, le=10_000)]] = Field(
        default_factory=lambda: {name: float(size) for name, size in DEFAULT_MEMORY_GB.items()},
        description="GB by GPU type, used if neither the machine nor the inventory file gives the size",
    )
    monitor_update_interval: Seconds = Field(30, description="interval of the monitoring, in seconds")
    resource_change_threshold: float = Field(
        0.1, gt=0, le=1, description="a change of utilization or memory by this ratio (0 to 1) counts as a change"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = Field(
        "INFO", description="log level of allocation"
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
            raise ValueError(
                f"default_resource_name ({self.default_resource_name}) is not in resource_names: add it there"
            )
        return self

    @property
    def resource_names_by_vendor(self) -> dict[str, tuple[str, ...]]:
        """Resource names by vendor."""
        return {str(vendor): tuple(names) for vendor, names in self.resource_names.items()}
