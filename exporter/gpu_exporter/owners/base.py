"""What an owner is, and what the parser of one kind of owner has to provide."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from enum import Enum


class OwnerKind(str, Enum):
    """What runs a process, the most telling first: a container of a pod is a container too, and has a slice."""

    KUBERNETES = "kubernetes"
    SLURM = "slurm"
    CONTAINER = "container"
    SYSTEMD = "systemd"
    USER = "user"


@dataclass(frozen=True, slots=True)
class Owner:
    """Who a process belongs to. Empty text for what is not known or does not apply."""

    kind: OwnerKind
    pod_uid: str = ""
    container_id: str = ""
    slurm_job: str = ""
    slurm_step: str = ""
    unit: str = ""
    slice: str = ""
    user: str = ""

    def fill_from(self, other: Owner) -> Owner:
        """This owner, with what it leaves empty taken from the other."""
        missing = {f.name: getattr(other, f.name) for f in fields(self) if not getattr(self, f.name)}
        return replace(self, **missing)

    @property
    def known(self) -> int:
        """How much is known: of two readings of one process, the one that knows more is the better."""
        return sum(bool(getattr(self, f.name)) for f in fields(self))


#: The names on the way from the root to a process's control group -> whose it is, or None if it is not of this kind.
CgroupParser = Callable[[tuple[str, ...]], "Owner | None"]
