"""The HTML pages: overview, recommendation, check and what-if. Server-rendered, without external assets."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import quote, urlencode

from flask import Flask, Response, make_response, render_template, request
from jinja2 import pass_context
from jinja2.runtime import Context
from markupsafe import Markup

from gpu_advisor.documents import savings, serialize
from gpu_advisor.evaluation.recommendation import Check, Evidence, Recommendation
from gpu_advisor.evaluation.what_if import WhatIfComparison, WhatIfError, apply_changes, compare_settings
from gpu_advisor.notify.alertmanager import AlertmanagerStatus
from gpu_advisor.settings import Settings
from gpu_advisor.state.view import View
from gpu_advisor.web.api.problem_details import ProblemError
from gpu_advisor.web.page import checklist, evidence_charts, template_filters, what_if_form
from gpu_advisor.web.page.bidi import external_names, isolate, right_to_left_names
from gpu_advisor.web.page.evidence_history import EvidenceHistory, EvidenceSeries, RangeQuery

_CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

#: Recommendations on one page; /recommendations has all.
MAX_RECOMMENDATIONS = 100

#: Outcomes on the page; /outcomes has all.
MAX_OUTCOMES = 10


@dataclass(frozen=True)
class PageContext:
    """Dependencies of the pages."""

    view: Callable[[], View]
    alertmanagers: Callable[[], tuple[AlertmanagerStatus, ...]]
    settings: Settings
    query_range: RangeQuery | None
    what_if_lock: threading.Lock


def register(app: Flask, page_context: PageContext) -> None:
    for each in template_filters.FILTERS:
        app.add_template_filter(each)
    app.add_template_filter(serialize.format_optional_rfc3339, "timestamp")
    app.add_template_filter(_isolate, "isolate")
    app.add_template_filter(shlex.quote, "shell_quote")
    app.add_template_filter(check_link)
    app.add_template_filter(prometheus_link)
    app.add_template_global(evidence_charts.meter, "meter")
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    pages = _Pages(page_context)
    app.add_url_rule("/", "page", pages.overview)
    app.add_url_rule("/page/what-if", "page_what_if", pages.what_if)
    app.add_url_rule("/page/check", "page_check", pages.check)
    app.add_url_rule("/page/<id_>", "page_recommendation", pages.recommendation)


class _Pages:
    def __init__(self, page_context: PageContext) -> None:
        self._context = page_context
        self._evidence_history = EvidenceHistory(page_context.query_range)

    def overview(self) -> Response:
        view = self._context.view()
        found = savings.rank_by_savings(view, self._context.settings.cost.gpu_price_per_hour)
        open_ = [each for each in found if not each.issued.snoozed]
        evaluation = view.evaluation
        gpus = checklist.gpus(evaluation) if evaluation else []
        nodes = checklist.nodes(evaluation.checks) if evaluation else []
        return _html_response(
            "page.html",
            view,
            headline=headline(view),
            total=savings.total_savings(open_),
            items=checklist.items(evaluation.checks) if evaluation else [],
            advice=open_[:MAX_RECOMMENDATIONS],
            advice_count=len(open_),
            snoozed=[each for each in found if each.issued.snoozed],
            pools=serialize.pools(view),
            nodes=checklist.worst_rows(nodes),
            node_count=len(nodes),
            gpus=checklist.worst_rows(gpus),
            gpu_count=len(gpus),
            outcomes=list(reversed(view.outcomes.recent))[:MAX_OUTCOMES],
            abstentions=serialize.all_abstentions(view)[: checklist.MAX_ROWS],
            abstention_count=len(serialize.all_abstentions(view)),
            alertmanagers=self._context.alertmanagers(),
        )

    def recommendation(self, id_: str) -> Response:
        view = self._context.view()
        found = savings.rank_by_savings(view, self._context.settings.cost.gpu_price_per_hour)
        each = next((each for each in found if each.issued.id == id_), None)
        if each is None:
            ended = [outcome for outcome in view.outcomes.recent if outcome.closed.promise.id == id_]
            return _not_found(f"no active recommendation {id_!r}: see the page /", view, ended)
        return _html_response(
            "recommendation.html", view, issued=each.issued, advice=each.advice, savings=each.savings,
            shown=self._evidence_with_charts(each.advice.evidence, view),
        )  # fmt: skip

    def check(self) -> Response:
        view = self._context.view()
        check_key = (request.args.get("item"), request.args.get("kind"), request.args.get("of"))
        for check in view.evaluation.checks if view.evaluation else ():
            if (check.item, check.scope.kind, check.scope.name) == check_key:
                related = [each for each in view.issued if _is_related(check, each.recommendation)]
                return _html_response(
                    "check.html",
                    view,
                    check=check,
                    related=related,
                    shown=self._evidence_with_charts(check.evidence, view),
                )
        return _not_found("no such check: see the page /", view, [])

    def what_if(self) -> Response:
        view, settings = self._context.view(), self._context.settings
        form = what_if_form.fill_form(what_if_form.form_fields(settings, what_if_form.gpu_models(view)), request.args)
        problems: list[str] = []
        comparison: WhatIfComparison | None = None
        overrides = what_if_form.setting_overrides(form)
        if overrides and view.evaluation:
            try:
                other = apply_changes(settings, overrides)
                with self._context.what_if_lock:
                    comparison = compare_settings(view.evaluation, settings, other)
            except WhatIfError as error:
                form, problems = what_if_form.attach_problems(form, error.problems)
        return _html_response(
            "what_if.html", view, form=form, problems=problems, comparison=comparison,
            difference=what_if_form.difference(comparison) if comparison else None,
            answer=serialize.what_if(view, comparison) if comparison else None,
        )  # fmt: skip

    def _evidence_with_charts(self, evidence: Sequence[Evidence], view: View) -> list[tuple[Evidence, str]]:
        """Each piece of evidence with its chart."""
        curves = self._evidence_history.of(evidence, view.source.up)
        return [(each, _evidence_chart(each, curve)) for each, curve in zip(evidence, curves, strict=True)]


def _evidence_chart(evidence: Evidence, curve: EvidenceSeries | None) -> str:
    return evidence_charts.evidence_chart(curve, evidence.threshold, evidence.unit, evidence.about) if curve else ""


@pass_context
def _isolate(context: Context, text: str) -> Markup:
    return isolate(text, context["rtl_names"])


def _html_response(template: str, view: View, status: HTTPStatus = HTTPStatus.OK, **values: object) -> Response:
    # Relative links work behind a proxy that serves the page below a path prefix.
    root = "../" * (request.path.count("/") - 1) or "./"
    rtl_names = right_to_left_names(external_names(view))
    response = make_response(render_template(template, root=root, view=view, rtl_names=rtl_names, **values), status)
    response.headers["Content-Security-Policy"] = _CONTENT_SECURITY_POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Cache-Control"] = "no-store"
    return response


def _not_found(what: str, view: View, ended: Sequence[object]) -> Response:
    """A page for browsers; a problem document for other clients."""
    if "text/html" not in request.headers.get("Accept", ""):
        raise ProblemError(HTTPStatus.NOT_FOUND, what)
    return _html_response("resolved.html", view, HTTPStatus.NOT_FOUND, ended=ended)


def check_link(check: Check) -> str:
    """The page of a check, relative to the root."""
    return "page/check?" + urlencode({"item": check.item, "kind": check.scope.kind, "of": check.scope.name})


def prometheus_link(promql: str | None, view: View) -> str:
    """The query in Prometheus' web interface; empty for other sources."""
    if not promql or view.source.name != "prometheus" or not view.source.address.startswith(("http://", "https://")):
        return ""
    return f"{view.source.address}/graph?g0.tab=1&g0.expr={quote(promql, safe='')}"


def _is_related(check: Check, advice: Recommendation) -> bool:
    of = check.scope
    return (
        of == advice.scope
        or (of.kind == "gpu" and of.name in advice.gpus)
        or (of.kind == "node" and of.name in advice.nodes)
    )


def headline(view: View) -> str:
    """The page's title: the status in one sentence."""
    if view.evaluation is None:
        return "No data from the source yet"
    if view.overdue and view.source.up:
        return "No evaluation has finished for a while: showing the last successful one"
    if view.stale:
        return "The data source is down: showing the last successful evaluation"
    count = sum(1 for each in view.issued if not each.snoozed)
    if count:
        return "1 recommendation" if count == 1 else f"{count} recommendations"
    if not view.evaluation.facts.gpus:
        return "No GPUs found"
    return "No recommendations except snoozed ones" if view.issued else "No recommendations"
