"""Query parameters: declared once, read by the handlers and told by the OpenAPI document."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from werkzeug.datastructures import MultiDict

from gpu_advisor.web.api.problem_details import ProblemError

MAX_PER_PAGE = 1000


@dataclass(frozen=True, slots=True)
class TextParameter:
    """Any text, or one of `choices`. Not given: None, or `default`."""

    name: str
    about: str
    choices: tuple[str, ...] = ()
    default: str | None = None

    def read(self, text: str) -> str:
        if self.choices and text not in self.choices:
            raise ProblemError(HTTPStatus.BAD_REQUEST, f"{self.name}={text!r}: choose from {', '.join(self.choices)}")
        if not text:
            raise ProblemError(HTTPStatus.BAD_REQUEST, f"{self.name} is empty: give it a value, or leave it out")
        return text

    @property
    def schema(self) -> dict[str, Any]:
        return {"type": "string", "enum": list(self.choices)} if self.choices else {"type": "string", "minLength": 1}


@dataclass(frozen=True, slots=True)
class IntegerParameter:
    """A whole number, both ends included."""

    name: str
    about: str
    low: int
    high: int
    default: int

    def read(self, text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 12 and self.low <= int(text) <= self.high):
            raise ProblemError(
                HTTPStatus.BAD_REQUEST, f"{self.name}={text!r}: give a whole number from {self.low} to {self.high}"
            )
        return int(text)

    @property
    def schema(self) -> dict[str, Any]:
        return {"type": "integer", "minimum": self.low, "maximum": self.high}


@dataclass(frozen=True, slots=True)
class NumberParameter:
    """A number, both ends included. Not given: None."""

    name: str
    about: str
    low: float
    high: float
    default: None = None

    def read(self, text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not self.low <= value <= self.high:  # NaN is not
            raise ProblemError(
                HTTPStatus.BAD_REQUEST, f"{self.name}={text!r}: give a number from {self.low:g} to {self.high:g}"
            )
        return value

    @property
    def schema(self) -> dict[str, Any]:
        return {"type": "number", "minimum": self.low, "maximum": self.high}


Parameter = TextParameter | IntegerParameter | NumberParameter

PAGINATION: tuple[Parameter, ...] = (
    IntegerParameter("page", "which page, from 1; the header Link names the others", 1, 10**9, 1),
    IntegerParameter("per_page", "how many on a page", 1, MAX_PER_PAGE, 100),
)


def read(query_args: MultiDict[str, str], parameters: Sequence[Parameter]) -> dict[str, Any]:
    """The values by name. Raises ProblemError, which names the parameter and the mend."""
    known = {each.name: each for each in parameters}
    unknown = sorted(set(query_args) - set(known))
    if unknown:
        hint = f"there are {', '.join(known)}" if known else "there is none"
        raise ProblemError(HTTPStatus.BAD_REQUEST, f"unknown parameter {unknown[0]!r}; {hint}")
    duplicates = sorted(name for name, values in query_args.lists() if len(values) > 1)
    if duplicates:
        raise ProblemError(HTTPStatus.BAD_REQUEST, f"{duplicates[0]!r} is given more than once: give it once")
    return {name: each.read(query_args[name]) if name in query_args else each.default for name, each in known.items()}
