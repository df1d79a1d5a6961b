"""Errors of the API as problem documents (RFC 9457)."""

from __future__ import annotations

from http import HTTPStatus

from flask import Flask, Response, jsonify
from werkzeug.exceptions import HTTPException


class Problem(Exception):
    """A request that cannot be served. `detail` names the field and tells the mend."""

    def __init__(self, status: HTTPStatus, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


def answer(status: HTTPStatus, detail: str) -> Response:
    response = jsonify(type="about:blank", title=status.phrase, status=status.value, detail=detail)
    response.status_code = status.value
    response.content_type = "application/problem+json"
    return response


def register(app: Flask) -> None:
    app.register_error_handler(Problem, lambda problem: answer(problem.status, problem.detail))

    def http_error(error: HTTPException) -> Response:
        status = HTTPStatus(error.code or 500)
        response = answer(status, error.description or status.phrase)
        for name, value in error.get_headers():
            if name == "Allow":
                response.headers[name] = value
        return response

    app.register_error_handler(HTTPException, http_error)
