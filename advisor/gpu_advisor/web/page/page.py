"""The advisor's own pages: what is wrong, what to do, and the evidence. Server-rendered, no outside assets."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import quote, urlencode

from flask import Flask, Response, make_response, render_template, request
from jinja2 import pass_context
from jinja2.runtime import Context
from markupsafe import Markup

from gpu_advisor.documents import document, worth
from gpu_advisor.evaluation.recommendation import Check, Evidence, Recommendation
from gpu_advisor.evaluation.what_if import Comparison, WhatIfError, changed, compare
from gpu_advisor.notify.alertmanager import AlertmanagerState
from gpu_advisor.settings import Settings
from gpu_advisor.state.view import View
from gpu_advisor.web.api.problem import Problem
from gpu_advisor.web.page import charts, glance, what_if_form, wording
from gpu_advisor.web.page.bidi import isolated, names_of, turning
from gpu_advisor.web.page.curves import Curve, Curves, Range

_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

#: Recommendations on one page; /recommendations has all.
MOST_ADVICE = 100

#: Outcomes on the page; /outcomes has all.
MOST_OUTCOMES = 10


@dataclass(frozen=True)
class Rooms:
    """All that the pages can reach: a part of what the API can."""

    view: Callable[[], View]
    alertmanagers: Callable[[], tuple[AlertmanagerState, ...]]
    settings: Settings
    curves: Range | None
    deciding: threading.Lock


def register(app: Flask, rooms: Rooms) -> None:
    for each in wording.FILTERS:
        app.add_template_filter(each)
    app.add_template_filter(document.timestamp, "timestamp")
    app.add_template_filter(_isolated, "isolated")
    app.add_template_filter(check_link)
    app.add_template_filter(prometheus_link)
    app.add_template_global(charts.meter, "meter")
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    pages = _Pages(rooms)
    app.add_url_rule("/", "page", pages.overview)
    app.add_url_rule("/page/what-if", "page_what_if", pages.what_if)
    app.add_url_rule("/page/check", "page_check", pages.check)
    app.add_url_rule("/page/<id_>", "page_recommendation", pages.recommendation)


class _Pages:
    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self._curves = Curves(rooms.curves)

    def overview(self) -> Response:
        view = self._rooms.view()
        found = worth.valued(view, self._rooms.settings.cost.gpu_price_per_hour)
        open_ = [each for each in found if not each.issued.snoozed]
        evaluation = view.evaluation
        gpus = glance.gpus(evaluation) if evaluation else []
        nodes = glance.nodes(evaluation.checks) if evaluation else []
        return _html(
            "page.html",
            view,
            headline=headline(view),
            total=worth.total(open_),
            items=glance.items(evaluation.checks) if evaluation else [],
            advice=open_[:MOST_ADVICE],
            advice_count=len(open_),
            snoozed=[each for each in found if each.issued.snoozed],
            pools=document.pools(view),
            nodes=glance.leading(nodes),
            node_count=len(nodes),
            gpus=glance.leading(gpus),
            gpu_count=len(gpus),
            outcomes=list(reversed(view.outcomes.recent))[:MOST_OUTCOMES],
            abstentions=document.abstentions(view)[: glance.MOST_ROWS],
            abstention_count=len(document.abstentions(view)),
            alertmanagers=self._rooms.alertmanagers(),
        )

    def recommendation(self, id_: str) -> Response:
        view = self._rooms.view()
        found = worth.valued(view, self._rooms.settings.cost.gpu_price_per_hour)
        each = next((each for each in found if each.issued.id == id_), None)
        if each is None:
            ended = [told for told in view.outcomes.recent if told.closed.promise.id == id_]
            return _gone(f"no recommendation {id_!r} is given now; the page / lists them", view, ended)
        return _html(
            "recommendation.html", view, issued=each.issued, advice=each.advice, worth=each.worth,
            shown=self._shown(each.advice.evidence, view),
        )  # fmt: skip

    def check(self) -> Response:
        view = self._rooms.view()
        asked = (request.args.get("item"), request.args.get("kind"), request.args.get("of"))
        for check in view.evaluation.checks if view.evaluation else ():
            if (check.item, check.scope.kind, check.scope.name) == asked:
                related = [each for each in view.issued if _concerns(check, each.recommendation)]
                return _html("check.html", view, check=check, related=related, shown=self._shown(check.evidence, view))
        return _gone("there is no such check now; the page / lists them", view, [])

    def what_if(self) -> Response:
        view, settings = self._rooms.view(), self._rooms.settings
        form = what_if_form.filled(what_if_form.groups(settings, what_if_form.models(view)), request.args)
        problems: list[str] = []
        comparison: Comparison | None = None
        different = what_if_form.changes(form)
        if different and view.evaluation:
            try:
                other = changed(settings, different)
                with self._rooms.deciding:
                    comparison = compare(view.evaluation, settings, other)
            except WhatIfError as error:
                form, problems = what_if_form.told(form, error.problems)
        return _html(
            "what_if.html", view, form=form, problems=problems, comparison=comparison,
            difference=what_if_form.difference(comparison) if comparison else None,
            answer=document.what_if(view, comparison) if comparison else None,
        )  # fmt: skip

    def _shown(self, evidence: Sequence[Evidence], view: View) -> list[tuple[Evidence, str]]:
        """Each piece of evidence, and its curve as a drawing."""
        curves = self._curves.of(evidence, view.source.up)
        return [(each, _drawn(each, curve)) for each, curve in zip(evidence, curves, strict=True)]


def _drawn(evidence: Evidence, curve: Curve | None) -> str:
    return charts.chart(curve, evidence.threshold, evidence.unit, evidence.about) if curve else ""


@pass_context
def _isolated(context: Context, text: str) -> Markup:
    return isolated(text, context["turning"])


def _html(template: str, view: View, status: HTTPStatus = HTTPStatus.OK, **values: object) -> Response:
    # Links lead from where the page is: so it also works behind a proxy that serves it below some path.
    root = "../" * (request.path.count("/") - 1) or "./"
    turn = turning(names_of(view))
    response = make_response(render_template(template, root=root, view=view, turning=turn, **values), status)
    response.headers["Content-Security-Policy"] = _POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Cache-Control"] = "no-store"
    return response


def _gone(what: str, view: View, ended: Sequence[object]) -> Response:
    """For a browser a page that leads on; for all others the problem as everywhere."""
    if "text/html" not in request.headers.get("Accept", ""):
        raise Problem(HTTPStatus.NOT_FOUND, what)
    return _html("resolved.html", view, HTTPStatus.NOT_FOUND, ended=ended)


def check_link(check: Check) -> str:
    """Where a check's evidence is shown, from the root of the pages."""
    return "page/check?" + urlencode({"item": check.item, "kind": check.scope.kind, "of": check.scope.name})


def prometheus_link(promql: str | None, view: View) -> str:
    """The query in Prometheus' own page; empty where the source is no Prometheus."""
    if not promql or view.source.name != "prometheus" or not view.source.address.startswith(("http://", "https://")):
        return ""
    return f"{view.source.address}/graph?g0.tab=1&g0.expr={quote(promql, safe='')}"


def _concerns(check: Check, advice: Recommendation) -> bool:
    of = check.scope
    return (
        of == advice.scope
        or (of.kind == "gpu" and of.name in advice.gpus)
        or (of.kind == "node" and of.name in advice.nodes)
    )


def headline(view: View) -> str:
    """One sentence that says how things are."""
    if view.evaluation is None:
        return "No answer yet: the data source has not given one."
    if view.stale:
        return "The data source does not answer. What follows is the last good answer, and may be out of date."
    count = sum(1 for each in view.issued if not each.snoozed)
    if count:
        return "One thing to do." if count == 1 else f"{count} things to do."
    if not view.evaluation.facts.gpus:
        return "No GPU to advise on."
    return "Nothing to do that is not snoozed." if view.issued else "Nothing to do."
