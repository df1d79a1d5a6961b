"""The kinds of values that settings are made of."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from gpu_advisor.settings.addresses import AddressError, split


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, hide_input_in_errors=True)


Percent = Annotated[float, Field(gt=0, le=100)]
Seconds = Annotated[int, Field(gt=0, le=366 * 86400, description="seconds")]


def _is_regex(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
    return text


Regex = Annotated[str, AfterValidator(_is_regex)]


def _is_url(text: str) -> str:
    """An address without a login: addresses are shown in logs, metrics and pages. Never repeats the text."""
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise ValueError("not a URL: write it as in http://127.0.0.1:9090") from error
    if "@" in text:
        raise ValueError("a URL must not hold a login, as it is shown to people: use username and password")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("not a URL: write it as in http://127.0.0.1:9090")
    return text


Url = Annotated[str, AfterValidator(_is_url)]


def host_and_port(text: str) -> str:
    """HOST:PORT as it is, or ValueError."""
    try:
        split(text)
    except AddressError as error:
        raise ValueError(str(error)) from error
    return text
