"""Query parameters: declared once, validated by Pydantic, documented in the OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Annotated, Any

from flask import Flask, g, request
from pydantic import Field, TypeAdapter, ValidationError
from werkzeug.datastructures import MultiDict

from gpu_advisor.web.api.problem_details import ProblemError

MAX_PER_PAGE = 1000

Text = Annotated[str, Field(min_length=1)]


@dataclass(frozen=True)
class Parameter:
    """`type`: what Pydantic validates; without a `default`, a parameter that is not given is None."""

    name: str
    about: str
    type: Any = Text
    default: str | int | None = None
    _adapter: TypeAdapter[Any] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_adapter", TypeAdapter(self.type))

    def parse(self, text: str) -> Any:
        """Raises ProblemError."""
        try:
            return self._adapter.validate_python(text)
        except ValidationError as error:
            shown = text if len(text) <= 40 else f"{text[:39]}…"
            detail = f"{self.name}={shown!r}: {error.errors()[0]['msg']}"
            raise ProblemError(HTTPStatus.BAD_REQUEST, detail) from error

    @property
    def schema(self) -> dict[str, Any]:
        schema = self._adapter.json_schema()
        return {key: value for key, value in schema.items() if key not in ("title", "description")}


PAGINATION = (
    Parameter("page", "which page, from 1; the header Link names the others", Annotated[int, Field(ge=1, le=10**9)], 1),
    Parameter("per_page", "how many on a page", Annotated[int, Field(ge=1, le=MAX_PER_PAGE)], 100),
)


def parse_query(query_args: MultiDict[str, str], parameters: Sequence[Parameter]) -> dict[str, Any]:
    """The values by name. Raises ProblemError, which names the parameter and how to fix it."""
    known = {each.name: each for each in parameters}
    unknown = sorted(set(query_args) - set(known))
    if unknown:
        hint = f"known are {', '.join(known)}" if known else "there is none"
        raise ProblemError(HTTPStatus.BAD_REQUEST, f"unknown parameter {unknown[0]!r}; {hint}")
    duplicates = sorted(name for name, values in query_args.lists() if len(values) > 1)
    if duplicates:
        raise ProblemError(HTTPStatus.BAD_REQUEST, f"{duplicates[0]!r} is given more than once: give it once")
    return {name: each.parse(query_args[name]) if name in query_args else each.default for name, each in known.items()}


def register(app: Flask, parameters: Mapping[str, Sequence[Parameter]]) -> None:
    """Parse the query of each request to one of these endpoints, before its handler runs."""

    @app.before_request
    def parse() -> None:
        own = parameters.get(request.endpoint or "")
        if own is not None:
            g.query = parse_query(request.args, own)


def query_of_request() -> dict[str, Any]:
    """The values of the present request's parameters, by name."""
    found: dict[str, Any] = g.query
    return found
