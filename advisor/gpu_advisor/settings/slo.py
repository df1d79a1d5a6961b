"""Service level objectives of serving pools: what a pool is for, instead of how its headroom is computed."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, Field, model_validator

from gpu_advisor.settings.field_types import StrictModel

#: Objectives that a replay of the past can measure, in percent of the demanded GPU-time.
MIN_UNSERVED_PERCENT, MAX_UNSERVED_PERCENT = 0.01, 10.0

_PERCENT = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*%\s*")


def _parse_percent(value: object) -> float:
    return _check_range(_number_of_percent(value, "0.2%"))


def _number_of_percent(value: object, example: str) -> float:
    """A number of percent from `0.2%` or 0.2. Raises ValueError."""
    match = _PERCENT.fullmatch(value) if isinstance(value, str) else None
    number = float(match[1]) if match else value
    if isinstance(number, int | float) and not isinstance(number, bool):
        return float(number)
    raise ValueError(f"not a percentage: write it as in {example}")


def _check_range(percent: float) -> float:
    if MIN_UNSERVED_PERCENT <= percent <= MAX_UNSERVED_PERCENT:
        return percent
    limits = f"{MIN_UNSERVED_PERCENT:g}% to {MAX_UNSERVED_PERCENT:g}%"
    hint = f": did you mean {100 * percent:g}%?" if MIN_UNSERVED_PERCENT <= 100 * percent <= 1 else ""
    raise ValueError(f"{percent:g}% is not an unserved share of the demand ({limits}){hint}")


#: The shortest and longest latency objective (seconds).
MIN_LATENCY_SECONDS, MAX_LATENCY_SECONDS = 0.001, 600.0

_LATENCY = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(ms|s)\s*")


def parse_latency(value: object) -> float:
    """Seconds from `500ms` or `2s`. Raises ValueError: a bare number may be either."""
    match = _LATENCY.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("not a latency: write it with its unit, as in 500ms or 2s")
    seconds = float(match[1]) / (1000 if match[2] == "ms" else 1)
    if not MIN_LATENCY_SECONDS <= seconds <= MAX_LATENCY_SECONDS:
        raise ValueError(f"not between {MIN_LATENCY_SECONDS * 1000:g}ms and {MAX_LATENCY_SECONDS:g}s")
    return seconds


LatencySeconds = Annotated[
    float, BeforeValidator(parse_latency, json_schema_input_type=Annotated[str, Field(pattern=_LATENCY.pattern)])
]

UnservedPercent = Annotated[float, BeforeValidator(_parse_percent)]

#: Shares of windows that a day of history can tell apart, in percent, and the one that latency objectives ask for.
MIN_WINDOWS_PERCENT, MAX_WINDOWS_PERCENT, DEFAULT_WINDOWS_PERCENT = 90.0, 99.9, 99.0


def _check_windows(value: object) -> float:
    percent = _number_of_percent(value, "99%")
    if MIN_WINDOWS_PERCENT <= percent <= MAX_WINDOWS_PERCENT:
        return percent
    hint = f": did you mean {100 * percent:g}%?" if MIN_WINDOWS_PERCENT <= 100 * percent <= 100 else ""
    raise ValueError(
        f"{percent:g}% is not a share of windows that a day of history can show ({MIN_WINDOWS_PERCENT:g}% to "
        f"{MAX_WINDOWS_PERCENT:g}%){hint}"
    )


WindowsPercent = Annotated[float, BeforeValidator(_check_windows)]


class SloSettings(StrictModel):
    """Service level objective (SLO) of a serving pool. The advisor tunes the pool's headroom to it."""

    unserved: UnservedPercent | None = Field(
        None, description="percent, as in 0.2%: share of the demanded GPU-time above the capacity, at most"
    )

    ttft_p95: LatencySeconds | None = Field(
        None, description="as in 500ms: time to first token that 95 % of the requests keep, of language models"
    )
    itl_p95: LatencySeconds | None = Field(
        None, description="as in 50ms: inter-token latency that 95 % of the requests keep, of language models"
    )

    windows: WindowsPercent | None = Field(
        None,
        description="percent, as in 99%: share of the windows of evaluation.window_seconds that keep the latency "
        "objectives, at least; 99% with itl_p95, unless the headroom is set by hand",
    )

    @model_validator(mode="after")
    def _windows_of_latencies(self) -> SloSettings:
        if self.windows is not None and self.itl_p95 is None:
            raise ValueError("slo.windows is a share of windows that keep slo.itl_p95: state it, as in itl_p95: 50ms")
        if self.windows is not None and self.unserved is not None:
            raise ValueError("slo.windows and slo.unserved both tune the headroom: remove one")
        return self

    @model_validator(mode="after")
    def _not_empty(self) -> SloSettings:
        if all(getattr(self, name) is None for name in type(self).model_fields):
            raise ValueError(
                f"no objective: give one of {', '.join(type(self).model_fields)}, as in {{unserved: 0.2%}}"
            )
        return self

    @property
    def is_of_requests(self) -> bool:
        """Whether it has objectives for the latencies of requests to a language model."""
        return self.ttft_p95 is not None or self.itl_p95 is not None

    @property
    def missed_windows_ratio(self) -> float | None:
        """The share (0..1) of windows that may miss the latency objectives; None if they do not tune the headroom."""
        if self.itl_p95 is None or self.unserved is not None:
            return None
        return 1 - (DEFAULT_WINDOWS_PERCENT if self.windows is None else self.windows) / 100

    @property
    def unserved_ratio(self) -> float | None:
        """The objective as a ratio (0..1); None without one."""
        return None if self.unserved is None else self.unserved / 100
