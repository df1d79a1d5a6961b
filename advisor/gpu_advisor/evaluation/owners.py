"""Who uses a GPU, and since when. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from gpu_advisor.settings.teams import TeamSettings

#: The group of GPUs without a known owner.
NO_OWNER = "no known owner"


#: Owners that gpu-exporter calls so are jobs of Slurm, whose `training_job` is the job's id.
SLURM = "slurm"

#: Kinds of owners that have a GPU also if it is not known which of them: a scheduler has allocated it.
_NAMELESS = {"kubernetes": "an unknown pod", SLURM: "an unknown Slurm job"}


class Controller(NamedTuple):
    """What replaces a pod that is deleted, by the name of its kind in Kubernetes. Both are empty if nothing does."""

    kind: str
    name: str


class Lease(NamedTuple):
    """A lease of this advisor on a GPU: made and expiring at these Unix times."""

    id: str
    made: float
    expires: float


@dataclass(frozen=True, slots=True, order=True)
class GpuOwner:
    """One owner of a GPU. Fields that are unknown or do not apply are empty.

    `started` is when its first process, its pod or its job began (Unix time), never when a series did.
    `observed_whole_window` says that it was there throughout the idle window, where `started` is unknown. `cluster` is
    empty unless the GPUs are in several: two clusters have pods and jobs of one name.
    """

    namespace: str = ""
    pod: str = ""
    container: str = ""
    job: str = ""  # a training job's name, or Slurm's id
    unit: str = ""
    user: str = ""
    kind: str = ""
    started: float | None = None
    observed_whole_window: bool = False
    account: str = ""  # Slurm's
    partition: str = ""  # Slurm's
    array_task: str = ""  # Slurm's number of a task of an array, 6_1, or of a heterogeneous job's component, 6+0
    team: str = ""  # by the settings' `teams`
    controller: Controller | None = None  # of a pod; None if unknown
    pod_uid: str = ""  # of a pod whose name is unknown
    deletion_due: float | None = None  # when a pod that is being deleted should have ended (Unix time)
    cluster: str = ""

    def __str__(self) -> str:
        return f"{self._name} in {self.cluster}" if self.cluster else self._name

    @property
    def _name(self) -> str:
        if self.pod:
            return f"pod {self.namespace}/{self.pod}" if self.namespace else f"pod {self.pod}"
        if self.job:
            return f"job {self.job}" + (f" of {self.user}" if self.user else "")
        return next(
            (f"{what} {name}" for what, name in (("unit", self.unit), ("container", self.container),
                                                ("user", self.user), ("pod with uid", self.pod_uid)) if name),
            _NAMELESS.get(self.kind, "an unknown owner"),
        )  # fmt: skip

    @property
    def names(self) -> frozenset[str]:
        """What people may call it: as a sentence does, or by one of its names."""
        pod = f"{self.namespace}/{self.pod}" if self.namespace and self.pod else ""
        given = (self._name, pod, self.pod, self.job, self.unit, self.container, self.user, self.pod_uid)
        return frozenset(name for name in (str(self), *given) if name) if any(given[1:]) else frozenset()

    def is_older_than(self, since: float) -> bool | None:
        """Whether it began before a time; None if unknown."""
        if self.started is not None:
            return self.started <= since
        return True if self.observed_whole_window else None

    @property
    def identity(self) -> GpuOwner:
        """The owner without its times and controller, which are not always known: equal in two evaluations."""
        return replace(self, started=None, observed_whole_window=False, controller=None, deletion_due=None)

    @property
    def workload(self) -> GpuOwner:
        """What starts and stops as a whole: of a container its pod, of a part of a Slurm job the job, else the owner
        itself. Its names only: two nodes may know different things of one job.
        """
        if self.pod:
            return GpuOwner(self.namespace, self.pod, cluster=self.cluster)
        if self.kind == SLURM and self.job:
            return GpuOwner(job=self.job, kind=SLURM, cluster=self.cluster)
        return self.identity


def is_known(owner: GpuOwner) -> bool:
    """Whether it has a name, or is at least known to be one of a scheduler's."""
    return owner != GpuOwner(kind=owner.kind) or owner.kind in _NAMELESS


def with_team(owner: GpuOwner, teams: Iterable[TeamSettings]) -> GpuOwner:
    """The owner with its team: the first that matches its namespace, user or account; none matches, no team."""
    return replace(owner, team=next((team.name for team in teams if _belongs_to(owner, team)), ""))


def _belongs_to(owner: GpuOwner, team: TeamSettings) -> bool:
    return (
        _matches(owner.namespace, team.namespaces)
        or _matches(owner.user, team.users)
        or _matches(owner.account, team.accounts)
    )


def _matches(text: str, patterns: Sequence[str]) -> bool:
    return bool(text) and any(re.fullmatch(pattern, text) for pattern in patterns)
