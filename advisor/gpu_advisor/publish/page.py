"""The advisor's own page: what is wrong, what to do, and the evidence. Server-rendered, no outside assets."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from http import HTTPStatus

from flask import Flask, Response, make_response, render_template

from gpu_advisor.facts import Gpu
from gpu_advisor.publish import document
from gpu_advisor.publish.problem import Problem
from gpu_advisor.recommendation import Check, Status
from gpu_advisor.view import View

#: Beyond this many GPUs the page shows the worst only; /checks has them all.
MOST_GPUS_SHOWN = 256

_POLICY = (
    "default-src 'none'; style-src 'self' 'unsafe-inline'; script-src 'self'; img-src 'self' data:; connect-src 'self'"
)


def register(app: Flask, view: Callable[[], View]) -> None:
    app.add_template_filter(percent)
    app.add_template_filter(value_text)
    app.add_template_filter(document.timestamp, "timestamp")
    app.add_template_filter(moment)

    @app.get("/")
    def page() -> Response:
        now = view()
        return _html(
            "page.html", view=now, headline=headline(now), abstentions=document.abstentions(now), **tables(now)
        )

    @app.get("/page/<id_>")
    def drill_down(id_: str) -> Response:
        now = view()
        for issued in now.issued:
            if issued.id == id_:
                return _html("recommendation.html", view=now, issued=issued, advice=issued.recommendation)
        raise Problem(HTTPStatus.NOT_FOUND, f"no recommendation {id_!r} is given now; the page / lists them")


def _html(template: str, **values: object) -> Response:
    response = make_response(render_template(template, **values))
    response.headers["Content-Security-Policy"] = _POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    return response


def percent(ratio: float | None) -> str:
    """0.123 -> 12 %; what is not known is a dash, never a zero."""
    if ratio is None:
        return "–"
    return f"{ratio * 100:.1f} %" if 0.0005 <= ratio < 0.1 else f"{ratio * 100:.0f} %"


def value_text(value: float | None, unit: str) -> str:
    if value is None:
        return "–"
    if unit == "ratio":
        return percent(value)
    if unit == "bytes":
        return f"{value / 2**30:.1f} GiB"
    return f"{value:g}"


def moment(seconds: float) -> str:
    """A time for people; the machine-readable one stands in the element's attribute."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


def headline(view: View) -> str:
    """One sentence that says how things are."""
    if view.evaluation is None:
        return "No answer yet: the data source has not given one."
    if view.stale:
        return "The data source does not answer. What follows is the last good answer, and may be out of date."
    if view.issued:
        count = len(view.issued)
        return "One thing to do." if count == 1 else f"{count} things to do."
    if not view.evaluation.facts.gpus:
        return "No GPU to advise on."
    return "Nothing to do."


def tables(view: View) -> dict[str, object]:
    """The checks, arranged as the page shows them: by fleet, by node and by GPU."""
    checks = view.evaluation.checks if view.evaluation else ()
    by_scope: dict[tuple[str, str], dict[str, Check]] = {}
    for check in checks:
        by_scope.setdefault((check.scope.kind, check.scope.name), {})[check.item] = check
    gpus = view.evaluation.facts.gpus if view.evaluation else ()
    rows = [(gpu, by_scope.get(("gpu", gpu.uuid), {})) for gpu in gpus]
    if len(rows) > MOST_GPUS_SHOWN:
        rows = sorted(rows, key=_worst_first)[:MOST_GPUS_SHOWN]
    return {
        "fleet": [check for check in checks if check.scope.kind == "fleet"],
        "nodes": [(name, items) for (kind, name), items in by_scope.items() if kind == "node"],
        "gpus": rows,
        "gpu_count": len(gpus),
        "pools": view.evaluation.pools if view.evaluation else (),
    }


def _worst_first(row: tuple[Gpu, dict[str, Check]]) -> tuple[bool, float]:
    check = row[1].get("gpu_utilization")
    known = check is not None and check.status is not Status.UNKNOWN
    return known, (check.value or 0.0) if check and known else 0.0
