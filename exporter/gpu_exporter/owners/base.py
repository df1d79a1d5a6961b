"""Owners of processes, and the interface of a cgroup parser."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from enum import Enum


class OwnerKind(str, Enum):
    """What a process belongs to, most specific first: a pod's container is also a container and has a slice."""

    KUBERNETES = "kubernetes"
    SLURM = "slurm"
    CONTAINER = "container"
    SYSTEMD = "systemd"
    USER = "user"


@dataclass(frozen=True, slots=True)
class Owner:
    """The owner of a process. Fields that are unknown or do not apply are empty."""

    kind: OwnerKind
    pod_uid: str = ""
    container_id: str = ""
    slurm_job: str = ""
    slurm_step: str = ""
    unit: str = ""
    slice: str = ""
    user: str = ""

    def fill_from(self, other: Owner) -> Owner:
        """This owner, with empty fields taken from the other."""
        missing = {f.name: getattr(other, f.name) for f in fields(self) if not getattr(self, f.name)}
        return replace(self, **missing)

    @property
    def known_fields(self) -> int:
        """The number of known fields, to choose between owners from different cgroup paths."""
        return sum(bool(getattr(self, f.name)) for f in fields(self))


#: Components of a cgroup path -> owner, or None if the path is not of this kind.
CgroupParser = Callable[[tuple[str, ...]], "Owner | None"]
