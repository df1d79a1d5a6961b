"""Errors of the API as problem documents (RFC 9457)."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

from flask import Flask, Response, jsonify
from werkzeug.exceptions import HTTPException

from gpu_advisor.documents import schema
from gpu_advisor.state.view import View

#: The media type of a problem document.
PROBLEM_JSON = "application/problem+json"


class ProblemError(Exception):
    """A request that cannot be served. `detail` names the field and says how to fix it."""

    def __init__(self, status: HTTPStatus, detail: str, errors: Sequence[schema.FieldError] = ()) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = list(errors)


def problem_response(
    status: HTTPStatus, detail: str, errors: Sequence[schema.FieldError] = (), reasons: Sequence[str] = ()
) -> Response:
    document: schema.ProblemDocument = {
        "type": "about:blank", "title": status.phrase, "status": status.value, "detail": detail,
    }  # fmt: skip
    if errors:
        document["errors"] = list(errors)
    if reasons:
        document["reasons"] = list(reasons)
    response = jsonify(document)
    response.status_code = status.value
    response.content_type = PROBLEM_JSON
    return response


def explain_no_evaluation(view: View) -> str:
    """Why there is nothing to answer with yet."""
    return f"no evaluation has succeeded yet: {view.source.message or 'the first one has not finished; retry'}"


def json_pointer(path: Sequence[str | int]) -> str:
    """JSON Pointer (RFC 6901)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def register(app: Flask) -> None:
    app.register_error_handler(
        ProblemError, lambda problem: problem_response(problem.status, problem.detail, problem.errors)
    )

    def http_error(error: HTTPException) -> Response:
        status = HTTPStatus(error.code or 500)
        response = problem_response(status, error.description or status.phrase)
        for name, value in error.get_headers():
            if name in ("Allow", "Retry-After"):
                response.headers[name] = value
        return response

    app.register_error_handler(HTTPException, http_error)
