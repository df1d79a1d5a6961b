"""The WSGI application: handlers of the operations in operations.py, over the current view."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import urlencode

from flask import Flask, Response, request

from gpu_advisor.allocation.allocation_service import AllocationService
from gpu_advisor.documents import schema, serialize
from gpu_advisor.evaluation.what_if import WhatIfError, apply_changes, compare_settings
from gpu_advisor.notify import metrics
from gpu_advisor.notify.alertmanager import AlertmanagerStatus
from gpu_advisor.report.history_reader import SamplesQuery
from gpu_advisor.settings import ConfigError, Settings
from gpu_advisor.state.active import Snooze
from gpu_advisor.state.feedback import Feedback
from gpu_advisor.state.view import View
from gpu_advisor.web.api import (
    allocation_handlers,
    authentication,
    browser_guard,
    csv_export,
    known_names,
    openapi,
    problem_details,
    query_filters,
    query_parameters,
    report_handler,
)
from gpu_advisor.web.api.allocation_operations import GPU_OPERATIONS
from gpu_advisor.web.api.authentication import PUBLIC_PATHS, Authenticator
from gpu_advisor.web.api.base import CSV, JSON, METRICS, TEXT
from gpu_advisor.web.api.json_body import dump_json, parse_body, read_json
from gpu_advisor.web.api.operations import OPERATIONS, FeedbackRequestBody, SnoozeRequestBody
from gpu_advisor.web.api.problem_details import ProblemError, explain_no_evaluation, json_pointer
from gpu_advisor.web.api.query_parameters import query_of_request
from gpu_advisor.web.api.response_cache import RenderedResponse, ResponseCache, render_response
from gpu_advisor.web.page.evidence_history import RangeQuery
from gpu_advisor.web.page.routes import PageContext, ProblemPage, accepts_html
from gpu_advisor.web.page.routes import register as register_page

T = TypeVar("T")

MAX_BODY_BYTES = 1 << 20
MAX_SNOOZE_SECONDS = 366 * 86400


def _refuse_feedback(_: Feedback) -> None:
    raise sqlite3.OperationalError("there is none")


@dataclass(frozen=True)
class ApiContext:
    """Dependencies of the handlers. `view` and `alertmanagers` are called for each request; `query_range` serves the
    charts and reports."""

    view: Callable[[], View]
    alertmanagers: Callable[[], tuple[AlertmanagerStatus, ...]]
    snooze: Callable[[str, Snooze | None], None]
    settings: Settings = field(default_factory=Settings)
    access: Authenticator = field(default_factory=lambda: Authenticator({}, ""))
    clock: Callable[[], float] = time.time
    query_range: RangeQuery | None = None
    samples: SamplesQuery | None = None
    allocation: AllocationService | None = None
    give_feedback: Callable[[Feedback], None] = _refuse_feedback
    #: Reads the settings again, and raises ConfigError; None where that is not switched on.
    reload: Callable[[], None] | None = None
    what_if_lock: threading.Lock = field(
        default_factory=threading.Lock
    )  # what-ifs wait for each other, not others for them


def create_app(context: ApiContext) -> Flask:
    """The WSGI application."""
    app = Flask("gpu_advisor.web.page")
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    problem_details.register(app)
    browser_guard.register(app, context.settings.web, context.access.login_required)
    authentication.register(app, context.access, _changes_state)
    checked = {name: each.parameters for name, each in OPERATIONS.items() if each.path not in PUBLIC_PATHS}
    query_parameters.register(app, checked)
    problem_page = register_page(
        app,
        PageContext(context.view, context.alertmanagers, context.settings, context.query_range, context.what_if_lock),
    )
    allocation_handlers.register(app)
    gpus = allocation_handlers.AllocationHandlers(context.allocation, lambda: _simulated(context.view()))
    for name, handler in {**_Handlers(context, problem_page).handlers(), **gpus.handlers()}.items():
        operation = OPERATIONS[name]
        app.add_url_rule(
            operation.path.replace("{id}", "<id_>"), endpoint=name, view_func=handler, methods=[operation.method]
        )
    return app


def _changes_state(endpoint: str | None) -> bool:
    return endpoint in OPERATIONS and OPERATIONS[endpoint].changes_state


def _simulated(view: View) -> bool:
    return view.evaluation is not None and view.evaluation.facts.simulated


class _Handlers:
    """One method per operation, with the same name."""

    def __init__(self, context: ApiContext, problem_page: ProblemPage) -> None:
        self._context = context
        self._problem_page = problem_page
        self._renderings = ResponseCache()
        self._metrics = metrics.MetricsExposition()
        self._openapi = dump_json(openapi.document(context.access.login_required, context.access.protects_writes))

    def handlers(self) -> dict[str, Callable[..., Response]]:
        return {name: getattr(self, name) for name in OPERATIONS.keys() - GPU_OPERATIONS.keys()}

    def recommendations(self) -> Response:
        return self._list_response(
            query_filters.filter_recommendations, serialize.recommendations, csv_export.recommendations_csv
        )

    def checks(self) -> Response:
        return self._list_response(query_filters.filter_checks, serialize.checks, csv_export.checks_csv)

    def abstentions(self) -> Response:
        return self._list_response(query_filters.filter_abstentions, serialize.abstentions_page)

    def outcomes(self) -> Response:
        return self._list_response(query_filters.filter_outcomes, serialize.outcomes)

    def one_recommendation(self, id_: str) -> Response:
        view = self._context.view()
        issued = query_filters.find_recommendation(view, id_)
        body: schema.RecommendationDetail = {
            **serialize.header(view), "recommendation": serialize.recommendation(issued, view),
        }  # fmt: skip
        return _conditional_response(render_response(dump_json(body), JSON))

    def snooze(self, id_: str) -> Response:
        query_filters.find_recommendation(self._context.view(), id_)
        body, now = parse_body(SnoozeRequestBody), self._context.clock()
        until = body.until.timestamp()
        if not now < until <= now + MAX_SNOOZE_SECONDS:
            words = "set a time in the future, at most a year from now"
            raise ProblemError(
                HTTPStatus.UNPROCESSABLE_ENTITY, f"until: {words}", [{"pointer": "/until", "detail": words}]
            )
        snooze = Snooze(body.reason, now, until)
        self._save_snooze(id_, snooze)
        return Response(dump_json(serialize.snooze(snooze)), content_type=JSON)

    def end_snooze(self, id_: str) -> Response:
        if query_filters.find_recommendation(self._context.view(), id_).snoozed is None:
            raise ProblemError(HTTPStatus.NOT_FOUND, f"recommendation {id_!r} is not snoozed")
        self._save_snooze(id_, None)
        return Response(status=HTTPStatus.NO_CONTENT)

    def feedback(self, id_: str) -> Response:
        kind = query_filters.kind_of_recommendation(self._context.view(), id_)
        body = parse_body(FeedbackRequestBody)
        feedback = Feedback(id_, kind, body.verdict, body.reason, body.by, self._context.clock())
        with _ledger_errors():
            self._context.give_feedback(feedback)
        return Response(dump_json(serialize.feedback(feedback)), content_type=JSON)

    def what_if(self) -> Response:
        changes, view = read_json(), self._context.view()
        if not isinstance(changes, Mapping):
            raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, "the body must be a JSON object of settings to change")
        try:
            other = apply_changes(self._context.settings, changes)
        except WhatIfError as error:
            errors: list[schema.FieldError] = [
                {"pointer": json_pointer(path), "detail": words} for path, words in error.problems
            ]
            raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, str(error), errors) from error
        if view.evaluation is None:
            raise ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, explain_no_evaluation(view))
        with self._context.what_if_lock:
            comparison = compare_settings(view.evaluation, self._context.settings, other)
        return Response(dump_json(serialize.what_if(view, comparison)), content_type=JSON)

    def report(self) -> Response:
        query_values, context = query_of_request(), self._context
        try:
            return report_handler.report_response(
                context.query_range,
                context.samples,
                context.view(),
                context.settings,
                query_values["since_seconds"],
                context.clock(),
                query_values["format"],
            )
        except ProblemError as problem:
            if query_values["format"] == "html" and accepts_html():
                return self._problem_page("No report", problem)
            raise

    def own_metrics(self) -> Response:
        body = self._metrics.render(self._context.view(), self._context.alertmanagers())
        return Response(body, content_type=f"{METRICS}; charset=utf-8")

    def openapi(self) -> Response:
        return Response(self._openapi, content_type=JSON)

    def healthy(self) -> Response:
        return Response("ok\n", content_type=f"{TEXT}; charset=utf-8")

    ready = healthy

    def reload(self) -> Response:
        if self._context.reload is None:
            raise ProblemError(HTTPStatus.FORBIDDEN, "not enabled: set web.enable_lifecycle, or send SIGHUP to `serve`")
        try:
            self._context.reload()
        except ConfigError as error:
            raise ProblemError(HTTPStatus.BAD_REQUEST, f"not reloaded: {error}") from error
        return Response("reloading\n", content_type=f"{TEXT}; charset=utf-8")

    def _list_response(
        self,
        apply_filters: Callable[[View, Mapping[str, Any]], Sequence[T]],
        serialize_page: Callable[[View, Sequence[T], int, int], Mapping[str, Any]],
        as_csv: Callable[[Sequence[T]], str] | None = None,
    ) -> Response:
        """A list: one page as JSON, or all of it as CSV. Cached per view and query."""
        query_values, path, query = query_of_request(), request.path, request.args.to_dict()

        def render(view: View) -> RenderedResponse:
            known_names.require_known(view, query_values)
            found = apply_filters(view, query_values)
            if as_csv and query_values["format"] == "csv":
                return render_response(as_csv(found).encode("utf-8", "replace"), f"{CSV}; charset=utf-8")
            page, per_page = query_values["page"], query_values["per_page"]
            links = _links(path, query, len(found), page, per_page)
            return render_response(dump_json(serialize_page(view, found, page, per_page)), JSON, links)

        return _conditional_response(self._renderings.get(self._context.view(), request.full_path, render))

    def _save_snooze(self, id_: str, snooze: Snooze | None) -> None:
        with _ledger_errors():
            self._context.snooze(id_, snooze)


@contextmanager
def _ledger_errors() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        words = f"cannot write the ledger ({error}), nothing was changed: check the disk of state_dir"
        raise ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, words) from error


def _conditional_response(cached_response: RenderedResponse) -> Response:
    """With an ETag; 304 if the client has it already."""
    response = Response(cached_response.body, content_type=cached_response.media)
    response.set_etag(cached_response.etag)
    response.headers["Cache-Control"] = "no-cache"
    if cached_response.link:
        response.headers["Link"] = cached_response.link
    response.make_conditional(request)
    return response


def _links(path: str, query_values: Mapping[str, str], total: int, page: int, per_page: int) -> str:
    """The Link header (RFC 8288) of the other pages, with the same filters."""
    last = max(1, -(-total // per_page))
    pages = {"first": 1, "prev": page - 1, "next": page + 1, "last": last}
    others = {name: number for name, number in pages.items() if 1 <= number <= last}
    return ", ".join(
        f'<{path}?{urlencode({**query_values, "page": number})}>; rel="{name}"' for name, number in others.items()
    )
