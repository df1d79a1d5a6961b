"""JSON bodies: requests are validated, or refused with a problem document; responses are serialized."""

from __future__ import annotations

import json
from http import HTTPStatus
from math import isfinite
from typing import Any, TypeVar

from flask import request
from pydantic import BaseModel, ValidationError

from gpu_advisor.documents import schema
from gpu_advisor.web.api.base import JSON
from gpu_advisor.web.api.problem_details import ProblemError, json_pointer

B = TypeVar("B", bound=BaseModel)


def read_json() -> Any:
    """The body as JSON. Requiring its media type prevents CSRF: an HTML form of another site cannot send it."""
    if request.mimetype != JSON:
        raise ProblemError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"send the body as JSON, with Content-Type: {JSON}")
    try:
        return json.loads(request.get_data())
    except (ValueError, RecursionError) as error:
        raise ProblemError(HTTPStatus.BAD_REQUEST, f"the body is not JSON: {error}") from error


def parse_body(model: type[B]) -> B:
    read_json()
    try:
        return model.model_validate_json(request.get_data())
    except ValidationError as error:
        errors: list[schema.FieldError] = [
            {"pointer": json_pointer(each["loc"]), "detail": each["msg"]} for each in error.errors()
        ]
        words = "; ".join(f"{each['pointer'] or 'the body'}: {each['detail']}" for each in errors)
        raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, words, errors) from error


def dump_json(value: object) -> bytes:
    try:
        text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except ValueError:  # infinity or NaN, from absurd prices: not in JSON
        text = json.dumps(_replace_non_finite(value), separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "replace") + b"\n"


def _replace_non_finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _replace_non_finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_replace_non_finite(each) for each in value]
    return None if isinstance(value, float) and not isfinite(value) else value
