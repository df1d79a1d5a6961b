"""The HTTP API, over whatever the view is at the moment of the request. What it offers is told in operations.py."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import urlencode

from flask import Flask, Response, request

from gpu_advisor.allocation.desk import GpuDesk
from gpu_advisor.documents import document, shapes
from gpu_advisor.evaluation.what_if import WhatIfError, changed, compare
from gpu_advisor.notify import metrics
from gpu_advisor.notify.alertmanager import AlertmanagerState
from gpu_advisor.settings import Settings
from gpu_advisor.state.continuity import Snooze
from gpu_advisor.state.view import View
from gpu_advisor.web.api import access, chosen, gpu_api, openapi, problem, report_api, spreadsheet
from gpu_advisor.web.api.access import Access
from gpu_advisor.web.api.body import dumped, read_body, read_json
from gpu_advisor.web.api.gpu_operations import GPU_OPERATIONS
from gpu_advisor.web.api.operation import CSV, JSON, METRICS, TEXT
from gpu_advisor.web.api.operations import OPERATIONS, SnoozeBody
from gpu_advisor.web.api.parameters import read
from gpu_advisor.web.api.problem import Problem, pointer
from gpu_advisor.web.api.rendered import Rendering, Renderings, rendering
from gpu_advisor.web.page.curves import Range
from gpu_advisor.web.page.page import Rooms
from gpu_advisor.web.page.page import register as register_page

T = TypeVar("T")

MOST_BODY_BYTES = 1 << 20
LONGEST_SNOOZE_SECONDS = 366 * 86400


@dataclass(frozen=True)
class Doors:
    """All that the API can reach. `view` and `alertmanagers` are asked anew at each request, and `curves` is the data
    source for the page's charts."""

    view: Callable[[], View]
    alertmanagers: Callable[[], tuple[AlertmanagerState, ...]]
    snooze: Callable[[str, Snooze | None], None]
    settings: Settings = field(default_factory=Settings)
    access: Access = field(default_factory=lambda: Access({}, ""))
    clock: Callable[[], float] = time.time
    curves: Range | None = None
    gpus: GpuDesk | None = None
    deciding: threading.Lock = field(
        default_factory=threading.Lock
    )  # what-ifs wait for each other, not others for them


def create_app(doors: Doors) -> Flask:
    """The WSGI application."""
    app = Flask("gpu_advisor.web.page")
    app.config["MAX_CONTENT_LENGTH"] = MOST_BODY_BYTES
    problem.register(app)
    access.register(app, doors.access)
    register_page(app, Rooms(doors.view, doors.alertmanagers, doors.settings, doors.curves, doors.deciding))
    gpu_api.register(app)
    gpus = gpu_api.GpuHandlers(doors.gpus, lambda: _simulated(doors.view()))
    for name, handler in {**_Handlers(doors).table(), **gpus.table()}.items():
        operation = OPERATIONS[name]
        app.add_url_rule(
            operation.path.replace("{id}", "<id_>"), endpoint=name, view_func=handler, methods=[operation.method]
        )
    return app


def _simulated(view: View) -> bool:
    return view.evaluation is not None and view.evaluation.facts.simulated


class _Handlers:
    """One method an operation, of the same name."""

    def __init__(self, doors: Doors) -> None:
        self._doors = doors
        self._renderings = Renderings()
        self._metrics = metrics.Exposition()
        self._openapi = dumped(openapi.document(doors.access.asked))

    def table(self) -> dict[str, Callable[..., Response]]:
        return {name: getattr(self, name) for name in OPERATIONS.keys() - GPU_OPERATIONS.keys()}

    def recommendations(self) -> Response:
        return self._listed(
            "recommendations", chosen.recommendations, document.recommendations, spreadsheet.recommendations
        )

    def checks(self) -> Response:
        return self._listed("checks", chosen.checks, document.checks, spreadsheet.checks)

    def abstentions(self) -> Response:
        return self._listed("abstentions", chosen.abstentions, document.all_abstentions)

    def outcomes(self) -> Response:
        return self._listed("outcomes", chosen.outcomes, document.outcomes)

    def one_recommendation(self, id_: str) -> Response:
        self._asked("one_recommendation")
        view = self._doors.view()
        issued = chosen.by_id(view, id_)
        body: shapes.OneRecommendation = {
            **document.header(view), "recommendation": document.recommendation(issued),
        }  # fmt: skip
        return _answer(rendering(dumped(body), JSON))

    def snooze(self, id_: str) -> Response:
        self._asked("snooze")
        chosen.by_id(self._doors.view(), id_)
        body, now = read_body(SnoozeBody), self._doors.clock()
        until = body.until.timestamp()
        if not now < until <= now + LONGEST_SNOOZE_SECONDS:
            words = "give a time in the future, within a year"
            raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"until: {words}", [{"pointer": "/until", "detail": words}])
        snooze = Snooze(body.reason, now, until)
        self._keep(id_, snooze)
        return Response(dumped(document.snooze(snooze)), content_type=JSON)

    def end_snooze(self, id_: str) -> Response:
        self._asked("end_snooze")
        if chosen.by_id(self._doors.view(), id_).snoozed is None:
            raise Problem(HTTPStatus.NOT_FOUND, f"recommendation {id_!r} is not snoozed: there is nothing to end")
        self._keep(id_, None)
        return Response(status=HTTPStatus.NO_CONTENT)

    def what_if(self) -> Response:
        self._asked("what_if")
        changes, view = read_json(), self._doors.view()
        if not isinstance(changes, Mapping):
            raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "give an object with what is different, as in the settings")
        try:
            other = changed(self._doors.settings, changes)
        except WhatIfError as error:
            errors: list[shapes.FieldProblem] = [
                {"pointer": pointer(path), "detail": words} for path, words in error.problems
            ]
            raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(error), errors) from error
        if view.evaluation is None:
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, "nothing is known yet: see `source` in GET /recommendations")
        with self._doors.deciding:
            comparison = compare(view.evaluation, self._doors.settings, other)
        return Response(dumped(document.what_if(view, comparison)), content_type=JSON)

    def report(self) -> Response:
        asked, doors = self._asked("report"), self._doors
        return report_api.answer(
            doors.curves, doors.view(), doors.settings, asked["since_seconds"], doors.clock(), asked["format"]
        )

    def own_metrics(self) -> Response:
        self._asked("own_metrics")
        body = self._metrics.of(self._doors.view(), self._doors.alertmanagers())
        return Response(body, content_type=f"{METRICS}; charset=utf-8")

    def openapi(self) -> Response:
        self._asked("openapi")
        return Response(self._openapi, content_type=JSON)

    def healthy(self) -> Response:
        return Response("ok\n", content_type=f"{TEXT}; charset=utf-8")

    ready = healthy

    def _asked(self, operation: str) -> dict[str, Any]:
        return read(request.args, OPERATIONS[operation].parameters)

    def _listed(
        self,
        operation: str,
        choose: Callable[[View, Mapping[str, Any]], Sequence[T]],
        as_page: Callable[[View, Sequence[T], int, int], Mapping[str, Any]],
        as_csv: Callable[[Sequence[T]], str] | None = None,
    ) -> Response:
        """A list: a page of it as JSON, or all of it as CSV. Rendered once for all who ask the same of this view."""
        asked, path, query = self._asked(operation), request.path, request.args.to_dict()

        def render(view: View) -> Rendering:
            found = choose(view, asked)
            if as_csv and asked["format"] == "csv":
                return rendering(as_csv(found).encode("utf-8", "replace"), f"{CSV}; charset=utf-8")
            page, per_page = asked["page"], asked["per_page"]
            links = _links(path, query, len(found), page, per_page)
            return rendering(dumped(as_page(view, found, page, per_page)), JSON, links)

        return _answer(self._renderings.get(self._doors.view(), request.full_path, render))

    def _keep(self, id_: str, snooze: Snooze | None) -> None:
        try:
            self._doors.snooze(id_, snooze)
        except sqlite3.Error as error:
            words = f"the ledger cannot be written ({error}): nothing was changed; see to the disk of state_dir"
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, words) from error


def _answer(made: Rendering) -> Response:
    """With an ETag, and 304 for who has it already."""
    response = Response(made.body, content_type=made.media)
    response.set_etag(made.etag)
    response.headers["Cache-Control"] = "no-cache"
    if made.link:
        response.headers["Link"] = made.link
    response.make_conditional(request)
    return response


def _links(path: str, asked: Mapping[str, str], total: int, page: int, per_page: int) -> str:
    """The other pages (RFC 8288), with whatever else was asked."""
    last = max(1, -(-total // per_page))
    pages = {"first": 1, "prev": page - 1, "next": page + 1, "last": last}
    others = {name: number for name, number in pages.items() if 1 <= number <= last}
    return ", ".join(
        f'<{path}?{urlencode({**asked, "page": number})}>; rel="{name}"' for name, number in others.items()
    )
