"""GET /report: what a stretch of time was like, as JSON, as a page, or as Markdown."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http import HTTPStatus

from flask import Response

from gpu_advisor.report.generate import make
from gpu_advisor.report.history_reader import RangeQuery
from gpu_advisor.report.html import page
from gpu_advisor.report.markdown import markdown
from gpu_advisor.report.schema import Report
from gpu_advisor.settings import Settings
from gpu_advisor.sources.base import SourceError
from gpu_advisor.state.view import View
from gpu_advisor.web.api.base import HTML, JSON, MARKDOWN
from gpu_advisor.web.api.problem_details import ProblemError

RENDERINGS: dict[str, tuple[str, Callable[[Report], str]]] = {
    "json": (
        JSON,
        lambda report_document: json.dumps(report_document, separators=(",", ":"), ensure_ascii=False) + "\n",
    ),
    "html": (HTML, page),
    "md": (MARKDOWN, markdown),
}

#: As the page itself has it, and besides what a page cannot say of itself.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

#: One at a time: each reads a good deal of the data source, and evaluations need it too.
_report_lock = threading.Lock()


def report_response(
    query_range: RangeQuery | None, view: View, settings: Settings, since_seconds: int, now: float, rendering: str
) -> Response:
    """Raises ProblemError where the past cannot be read."""
    if query_range is None or view.evaluation is None:
        raise ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, "nothing is known yet: see `source` in GET /recommendations")
    try:
        with _report_lock:
            report_document = make(query_range, view, settings, since_seconds, now)
    except SourceError as error:
        raise ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, f"the data source does not answer: {error}") from error
    media, render = RENDERINGS[rendering]
    response = Response(render(report_document).encode("utf-8", "replace"), content_type=f"{media}; charset=utf-8")
    if rendering == "json":
        response.content_type = media
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Content-Security-Policy"] = _POLICY
    response.headers["Referrer-Policy"] = "no-referrer"
    return response
