"""Field types of the settings."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from gpu_advisor.settings.addresses import AddressError, split_host_port


class StrictModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, hide_input_in_errors=True)


Percent = Annotated[float, Field(gt=0, le=100)]


def _is_not_a_ratio(percent: float) -> float:
    """Reject 0.9 where 90 is meant: no target or threshold is 1 % or less."""
    if percent <= 1:
        raise ValueError(f"{percent:g} is not a percentage (above 1, up to 100): did you mean {100 * percent:g}?")
    return percent


#: A target or threshold in percent. Where 1 % or less is meaningful, use Percent.
TargetPercent = Annotated[Percent, AfterValidator(_is_not_a_ratio)]


def _is_in_points(points: float) -> float:
    if 0 < points < 1:
        raise ValueError(f"{points:g} is not in percentage points (0, or 1 to 50): did you mean {100 * points:g}?")
    return points


#: A distance to either side of a target in percent.
PercentagePoints = Annotated[float, Field(ge=0, le=50), AfterValidator(_is_in_points)]
Seconds = Annotated[int, Field(gt=0, le=366 * 86400, description="seconds")]


def _validate_regex(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
    return text


Regex = Annotated[str, AfterValidator(_validate_regex)]


def _validate_url(text: str) -> str:
    """A URL without credentials, as URLs appear in logs, metrics and pages. Errors never repeat the text."""
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise ValueError("not a URL: write it as in http://127.0.0.1:9090") from error
    if "@" in text:
        raise ValueError("a URL must not contain credentials: set username and password")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("not a URL: write it as in http://127.0.0.1:9090")
    return text


Url = Annotated[str, AfterValidator(_validate_url)]
OptionalUrl = Annotated[str, AfterValidator(lambda text: text and _validate_url(text))]


def validate_host_port(text: str) -> str:
    """Return a valid HOST:PORT unchanged. Raises ValueError."""
    try:
        split_host_port(text)
    except AddressError as error:
        raise ValueError(str(error)) from error
    return text
