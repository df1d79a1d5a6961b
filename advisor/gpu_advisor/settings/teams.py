"""Teams: who is responsible for which owners of GPUs. Alerts are routed, and money is summed, by team."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from gpu_advisor.settings.field_types import Regex, StrictModel


class TeamSettings(StrictModel):
    """A team, by its owners' namespaces, users or accounts. The first team that matches an owner is its team."""

    #: One line of printable text: it is the value of a label in alerts and metrics.
    name: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")]
    namespaces: list[Regex] = Field(
        default_factory=list, description="regular expressions, each matching a whole Kubernetes namespace"
    )
    users: list[Regex] = Field(default_factory=list, description="regular expressions, each matching a whole user name")
    accounts: list[Regex] = Field(
        default_factory=list, description="regular expressions, each matching a whole Slurm account"
    )

    @model_validator(mode="after")
    def _matches_something(self) -> TeamSettings:
        if not (self.namespaces or self.users or self.accounts):
            raise ValueError(f"team {self.name} matches no owner: give namespaces, users or accounts")
        return self
