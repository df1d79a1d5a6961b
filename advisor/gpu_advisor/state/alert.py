"""An alert as it is kept between evaluations."""

from __future__ import annotations
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any
from gpu_advisor.state.view import Issued


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert. `started` and `resolved` in seconds since 1970; `resolved` is None while it fires."""

    id: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    started: float
    resolved: float | None = None
    url: str = ""
