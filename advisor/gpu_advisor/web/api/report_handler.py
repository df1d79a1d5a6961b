"""GET /report: use, cost and waste over a time range, as JSON, HTML or Markdown."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http import HTTPStatus

from flask import Response

from gpu_advisor.report.generate import generate_report
from gpu_advisor.report.history_reader import SamplesQuery
from gpu_advisor.report.html import render_html
from gpu_advisor.report.markdown import render_markdown
from gpu_advisor.report.range_reader import RangeQuery
from gpu_advisor.report.schema import Report
from gpu_advisor.settings import Settings
from gpu_advisor.sources.base import SourceError
from gpu_advisor.state.view import View
from gpu_advisor.web.api.base import HTML, JSON, MARKDOWN
from gpu_advisor.web.api.json_body import dump_json
from gpu_advisor.web.api.problem_details import ProblemError, explain_no_evaluation

#: The advisor's page, relative to /report: the advisor may be behind a path prefix.
_HOME = "./"

RENDERINGS: dict[str, tuple[str, Callable[[Report], str]]] = {
    "json": (JSON, lambda document: dump_json(document).decode()),
    "html": (HTML, lambda document: render_html(document, home=_HOME)),
    "md": (MARKDOWN, render_markdown),
}

#: As in the report's own <meta> element, plus `frame-ancestors`, which works in a header only.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

#: One report at a time: each queries a lot of history, and evaluations need the data source too.
_report_lock = threading.Lock()


def report_response(
    query_range: RangeQuery | None,
    samples: SamplesQuery | None,
    view: View,
    settings: Settings,
    since_seconds: int,
    now: float,
    rendering: str,
) -> Response:
    """Raises ProblemError if the history cannot be read."""
    if query_range is None or view.evaluation is None:
        raise ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, explain_no_evaluation(view))
    try:
        with _report_lock:
            report_document = generate_report(query_range, view, settings, since_seconds, now, samples=samples)
    except SourceError as error:
        raise ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, f"the query of the data source failed: {error}") from error
    media, render = RENDERINGS[rendering]
    response = Response(render(report_document).encode("utf-8", "replace"), content_type=f"{media}; charset=utf-8")
    if rendering == "json":
        response.content_type = media
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Content-Security-Policy"] = _POLICY
    response.headers["Referrer-Policy"] = "no-referrer"
    return response
