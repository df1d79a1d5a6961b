"""Targets from the command line, as settings to evaluate. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class TargetOverrides:
    """Percent, as in the settings; None keeps the configured value. `pool` limits the GPU targets to one pool."""

    gpu: float | None = None
    memory: float | None = None
    cpu: float | None = None
    scale_up: float | None = None
    scale_down: float | None = None
    pool: str | None = None

    @property
    def changes(self) -> dict[str, Any]:
        """The body of POST /what-if, without targets that are not given."""
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


#: Part of a rejection -> how to fix it on this command line.
_HINTS: Mapping[str, str] = {
    "thresholds contradict": "move them along with --scale-up and --scale-down",
    "of a serving pool must be below": "give a lower --target-gpu, or name another pool with --pool",
    "no such pool": "leave --pool out, or name one of the settings' pools",
}


def hint_for(rejection: str) -> str:
    """How to fix a rejected target with this command's options; empty without such a hint."""
    return next((hint for text, hint in _HINTS.items() if text in rejection), "")
