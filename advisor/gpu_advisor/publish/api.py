"""The HTTP API, over whatever the view is at the moment of the request."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import get_args

from flask import Flask, Response, jsonify, request

from gpu_advisor.publish import document, metrics, problem
from gpu_advisor.publish.alertmanager import AlertmanagerState
from gpu_advisor.publish.page import register as register_page
from gpu_advisor.publish.problem import Problem
from gpu_advisor.recommendation import Severity, Status
from gpu_advisor.view import Issued, View

MOST_PER_PAGE = 1000

#: Query parameter -> whether a recommendation has that value.
FILTERS: dict[str, Callable[[Issued, str], bool]] = {
    "kind": lambda issued, value: issued.recommendation.kind == value,
    "severity": lambda issued, value: issued.recommendation.severity == value,
    "node": lambda issued, value: value in issued.recommendation.nodes,
    "pool": lambda issued, value: (
        issued.recommendation.scope.kind == "pool" and issued.recommendation.scope.name == value
    ),
}


def create_app(view: Callable[[], View], alertmanagers: Callable[[], tuple[AlertmanagerState, ...]]) -> Flask:
    """The WSGI application. It only reads: both arguments are asked anew at each request."""
    app = Flask("gpu_advisor.publish")
    app.json.sort_keys = False  # type: ignore[attr-defined] # the order of the document is for people
    problem.register(app)
    register_page(app, view)

    @app.get("/recommendations")
    def recommendations() -> Response:
        allowed = (*FILTERS, "format", "page", "per_page")
        _only(allowed)
        now = view()
        chosen = _chosen(now.issued)
        if _choice("format", ("json", "csv"), "json") == "csv":
            return _tagged(Response(document.as_csv(chosen), content_type="text/csv; charset=utf-8"))
        page, per_page = _whole("page", 1, 10**9, 1), _whole("per_page", 1, MOST_PER_PAGE, 100)
        return _tagged(jsonify(document.recommendations(now, chosen, page, per_page)))

    @app.get("/recommendations/<id_>")
    def one_recommendation(id_: str) -> Response:
        _only(())
        now = view()
        for issued in now.issued:
            if issued.id == id_:
                return _tagged(jsonify({**document.header(now), "recommendation": document.recommendation(issued)}))
        raise Problem(HTTPStatus.NOT_FOUND, f"no recommendation {id_!r} is given now; GET /recommendations lists them")

    @app.get("/checks")
    def checks() -> Response:
        _only(("item", "status", "scope_kind", "scope", "page", "per_page"))
        now = view()
        wanted_status = _choice("status", tuple(each.value for each in Status), "")
        wanted_kind = _choice("scope_kind", ("fleet", "pool", "node", "gpu"), "")
        item, scope = request.args.get("item", ""), request.args.get("scope", "")
        found = [
            check
            for check in (now.evaluation.checks if now.evaluation else ())
            if (not wanted_status or check.status.value == wanted_status)
            and (not wanted_kind or check.scope.kind == wanted_kind)
            and (not item or check.item == item)
            and (not scope or check.scope.name == scope)
        ]
        page, per_page = _whole("page", 1, 10**9, 1), _whole("per_page", 1, MOST_PER_PAGE, 100)
        first = (page - 1) * per_page
        return _tagged(
            jsonify(
                {
                    **document.header(now),
                    "total": len(found),
                    "page": page,
                    "per_page": per_page,
                    "checks": [document.check(check) for check in found[first : first + per_page]],
                    "abstentions": [document.abstention(each) for each in document.abstentions(now)],
                }
            )
        )

    @app.get("/metrics")
    def own_metrics() -> Response:
        return Response(
            metrics.exposition(view(), alertmanagers()), content_type="text/plain; version=0.0.4; charset=utf-8"
        )

    # A source that is away makes answers stale, marked as such; it does not take the service out.
    @app.get("/-/healthy")
    @app.get("/-/ready")
    def healthy() -> Response:
        return Response("ok\n", content_type="text/plain; charset=utf-8")

    return app


def _only(allowed: Sequence[str]) -> None:
    unknown = sorted(set(request.args) - set(allowed))
    if unknown:
        raise Problem(
            HTTPStatus.BAD_REQUEST,
            f"unknown parameter {unknown[0]!r}; " + (f"there are {', '.join(allowed)}" if allowed else "there is none"),
        )
    twice = sorted(name for name, values in request.args.lists() if len(values) > 1)
    if twice:
        raise Problem(HTTPStatus.BAD_REQUEST, f"{twice[0]!r} is given more than once: give it once")


def _chosen(issued: Sequence[Issued]) -> list[Issued]:
    wanted = {name: request.args[name] for name in FILTERS if name in request.args}
    _choice("severity", get_args(Severity), "")
    return [each for each in issued if all(FILTERS[name](each, value) for name, value in wanted.items() if value)]


def _choice(name: str, choices: Sequence[str], default: str) -> str:
    value = request.args.get(name, default)
    if value not in choices and value != default:
        raise Problem(HTTPStatus.BAD_REQUEST, f"{name}={value!r}: choose from {', '.join(choices)}")
    return value


def _whole(name: str, low: int, high: int, default: int) -> int:
    text = request.args.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 12 and low <= int(text) <= high):
        raise Problem(HTTPStatus.BAD_REQUEST, f"{name}={text!r}: give a whole number from {low} to {high}")
    return int(text)


def _tagged(response: Response) -> Response:
    """With an ETag, and 304 for who has it already."""
    response.set_etag(hashlib.sha256(response.get_data()).hexdigest()[:16])
    response.headers["Cache-Control"] = "no-cache"
    response.make_conditional(request)
    return response
