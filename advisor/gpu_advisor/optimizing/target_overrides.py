"""Targets that a person gives, as the other settings that the advisor is asked about. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class TargetOverrides:
    """Percent, as in the settings; None: as the advisor's settings have it. `pool`: only this one's GPUs are meant."""

    gpu: float | None = None
    memory: float | None = None
    cpu: float | None = None
    scale_up: float | None = None
    scale_down: float | None = None
    pool: str | None = None

    @property
    def changes(self) -> dict[str, Any]:
        """The body of POST /what-if: what is not given is not in it."""
        limits = _without_none(
            target_utilization=self.gpu, scale_up_threshold=self.scale_up, scale_down_threshold=self.scale_down
        )
        resources = _without_none(
            gpu=limits if limits and not self.pool else None,
            memory=_without_none(target_usage=self.memory) or None,
            cpu=_without_none(target_usage=self.cpu) or None,
        )
        pools = {self.pool: {"gpu": limits}} if self.pool and limits else None
        return _without_none(resources=resources or None, pools=pools)


def _without_none(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


#: What a refused target is most often mended by.
_HINTS: Mapping[str, str] = {
    "thresholds contradict": "move them along with --scale-up and --scale-down",
    "of a serving pool must be below": "give a lower --target-gpu, or name another pool with --pool",
    "no such pool": "leave --pool out, or name one of the settings' pools",
}


def mend(refusal: str) -> str:
    """What to do on this command line about the settings' refusal; empty where the refusal says it all."""
    return next((mend for words, mend in _HINTS.items() if words in refusal), "")
