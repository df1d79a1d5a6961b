"""An operation of the API: routes, handlers and the OpenAPI document are made from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from gpu_advisor.settings.field_types import StrictModel
from gpu_advisor.web.api.query_parameters import Parameter

JSON, CSV, TEXT, METRICS = "application/json", "text/csv", "text/plain", "text/plain; version=0.0.4"
HTML, MARKDOWN = "text/html", "text/markdown"


@dataclass(frozen=True, slots=True)
class Operation:
    """`responses`: media type -> TypedDict, or None for text. `errors`: statuses beside those that all may have.

    `changes_state`: whether web.write_token_file protects it.
    """

    method: Literal["GET", "POST", "DELETE"]
    path: str
    summary: str
    responses: dict[str, Any]
    parameters: tuple[Parameter, ...] = ()
    body: type[StrictModel] | None = None
    status: int = 200
    errors: tuple[int, ...] = ()
    has_etag: bool = field(default=False)
    changes_state: bool = field(default=False)
