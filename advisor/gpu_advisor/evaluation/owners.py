"""Who uses a GPU, and since when. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class GpuOwner:
    """One owner of a GPU. Fields that are unknown or do not apply are empty.

    `started` is when its first process, its pod or its job began (Unix time), never when a series did.
    `observed_whole_window` says that it was there throughout the idle window, where `started` is unknown.
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

    def __str__(self) -> str:
        if self.pod:
            return f"pod {self.namespace}/{self.pod}" if self.namespace else f"pod {self.pod}"
        if self.job:
            return f"job {self.job}" + (f" of {self.user}" if self.user else "")
        return next(
            (f"{what} {name}" for what, name in (("unit", self.unit), ("container", self.container),
                                                ("user", self.user)) if name),
            "an unknown owner",
        )  # fmt: skip

    def is_older_than(self, since: float) -> bool | None:
        """Whether it began before a time; None if unknown."""
        if self.started is not None:
            return self.started <= since
        return True if self.observed_whole_window else None
