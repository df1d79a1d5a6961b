"""An alert, as stored between evaluations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert. `started` and `resolved` are Unix times; `resolved` is None while it fires. `gpus` are those of its
    owner.
    """

    id: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    started: float
    resolved: float | None = None
    url: str = ""
    gpus: tuple[str, ...] = ()

    @property
    def recommendation_id(self) -> str:
        return self.labels.get("recommendation_id", self.id)
