"""The HTML pages. Server-rendered, complete without scripts, without external assets."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from flask import Flask, Response, request
from jinja2 import Environment
from markupsafe import Markup

from gpu_advisor.documents import serialize
from gpu_advisor.documents.advice_groups import AdviceGroup
from gpu_advisor.documents.runbook_files import runbook_html, runbook_names
from gpu_advisor.evaluation.recommendation import Evidence
from gpu_advisor.evaluation.serving.unmapped import unread_servers
from gpu_advisor.evaluation.what_if import WhatIfComparison, WhatIfError, apply_changes, compare_settings
from gpu_advisor.notify.alertmanager import AlertmanagerStatus
from gpu_advisor.settings import Settings
from gpu_advisor.state.feedback import Feedback
from gpu_advisor.state.outcomes import Outcome, latest_verdict
from gpu_advisor.state.view import View
from gpu_advisor.web.api.problem_details import PROBLEM_JSON, ProblemError
from gpu_advisor.web.api.response_cache import RenderedResponse, ResponseCache, render_response
from gpu_advisor.web.page import (
    checklist,
    evidence_charts,
    gpu_day,
    gpu_list,
    insufficient,
    what_if_form,
    what_if_money,
)
from gpu_advisor.web.page.advice_list import advice_list
from gpu_advisor.web.page.evidence_history import EvidenceHistory, EvidenceSeries, RangeQuery
from gpu_advisor.web.page.fleet_model import FleetModel, LatestModel
from gpu_advisor.web.page.gpu_rows import column_headings, options, render_rows
from gpu_advisor.web.page.related import is_related
from gpu_advisor.web.page.serving_list import serving_rows
from gpu_advisor.web.page.template_environment import extend_templates

_SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_HTML = "text/html; charset=utf-8"

#: Stands for the rows of the list of GPUs, which are UTF-8 already. No text on the page has it: their `<` is escaped.
_ROWS_HERE = Markup("<!-- rows -->")

#: Recommendations in full on the overview, and in short below them; /recommendations has all. A longer list of like
#: ones than there are cards is folded.
MAX_CARDS, MAX_RECOMMENDATIONS = 10, 100

#: Outcomes on the page; /outcomes has all.
MAX_OUTCOMES = 10

#: GPUs on the overview; /page/gpus has all.
OVERVIEW_GPUS = 25

#: Address, title, and the template that is the page of the link.
NAVIGATION = (
    ("", "Overview", "page.html"),
    ("page/gpus", "GPUs", "gpus.html"),
    ("page/jobs", "Jobs", "jobs.html"),
    ("page/serving", "Serving", "serving.html"),
    ("page/what-if", "What if", "what_if.html"),
    ("report?format=html", "Report", ""),
    ("runbooks/", "Runbooks", "runbooks.html"),
)

#: Titles of pages for requests that are refused before anything is read.
REFUSALS = {
    HTTPStatus.UNAUTHORIZED: "Sign in to gpu-advisor",
    HTTPStatus.FORBIDDEN: "Refused",
    HTTPStatus.MISDIRECTED_REQUEST: "Unknown host name",
    HTTPStatus.TOO_MANY_REQUESTS: "Too many wrong passwords",
}

#: Data sources as people call them.
SOURCE_NAMES = {"embedded": "embedded history", "prometheus": "Prometheus"}

#: Jobs on one page; the rest have fewer GPUs and no advice.
MAX_JOBS = 500


@dataclass(frozen=True)
class PageContext:
    """Dependencies of the pages."""

    view: Callable[[], View]
    alertmanagers: Callable[[], tuple[AlertmanagerStatus, ...]]
    settings: Settings
    query_range: RangeQuery | None
    what_if_lock: threading.Lock


ProblemPage = Callable[[str, ProblemError], Response]


def register(app: Flask, page_context: PageContext) -> ProblemPage:
    """Add the pages. Returns what shows a problem, under a title, as a page."""
    extend_templates(app.jinja_env)
    pages = _Pages(page_context, app.jinja_env)
    for rule, name, handler in (
        ("/", "page", pages.overview),
        ("/page/gpus", "page_gpus", pages.gpus),
        ("/page/gpu", "page_gpu", pages.gpu),
        ("/page/jobs", "page_jobs", pages.jobs),
        ("/page/serving", "page_serving", pages.serving),
        ("/page/what-if", "page_what_if", pages.what_if),
        ("/page/check", "page_check", pages.check),
        ("/page/<id_>", "page_recommendation", pages.recommendation),
        ("/runbooks/", "runbooks", pages.runbooks),
        ("/runbooks/<name>", "runbook", pages.runbook),
    ):
        app.add_url_rule(rule, name, handler)
    app.after_request(pages.show_problem)
    return pages.problem


class _Pages:
    def __init__(self, page_context: PageContext, environment: Environment) -> None:
        self._context = page_context
        self._environment = environment
        self._evidence_history = EvidenceHistory(page_context.query_range)
        self._models = LatestModel(page_context.settings)
        self._overviews = ResponseCache()
        self._frame: tuple[FleetModel, bytes, bytes] | None = None

    def overview(self) -> Response:
        """Rendered once per view: the page is large, and everybody reads the same."""
        alertmanagers = self._context.alertmanagers()

        def render(view: View) -> RenderedResponse:
            html = self._render("page.html", self._models.of(view), "./", **self._overview(view, alertmanagers))
            return render_response(html.encode(), _HTML)

        found = self._overviews.get(self._context.view(), repr(alertmanagers), render)
        return _response(found.body)

    def _overview(self, view: View, alertmanagers: tuple[AlertmanagerStatus, ...]) -> Mapping[str, object]:
        model = self._models.of(view)
        abstentions = serialize.all_abstentions(view)
        gpus = model.gpus.page(gpu_list.GpuQuery(per_page=OVERVIEW_GPUS))
        return {
            "headline": model.headline,
            "total": model.total,
            "items": model.checklist,
            "advice": advice_list(model.groups, MAX_CARDS, MAX_RECOMMENDATIONS),
            "max_open": MAX_CARDS,
            "advice_count": len(model.open),
            "gpu_names": model.gpus.by_uuid,
            "snoozed": model.snoozed[:MAX_RECOMMENDATIONS],
            "pools": serialize.pools(view)[: checklist.MAX_ROWS],
            "lost_gpus": lost_gpus(view),
            "pool_count": len(view.evaluation.pools) if view.evaluation else 0,
            "nodes": checklist.worst_rows(model.nodes),
            "node_count": len(model.nodes),
            **_gpu_table(gpus, render_rows(model.gpus, gpus, "./")),
            "outcomes": _with_verdicts(view, list(reversed(view.outcomes.recent))[:MAX_OUTCOMES]),
            "missing": insufficient.group_by_reason(abstentions),
            "explained": {each.message for each in abstentions},
            "max_details": checklist.MAX_ROWS,
            "abstention_count": len(abstentions),
            "alertmanagers": alertmanagers,
        }

    def gpus(self) -> Response:
        view = self._context.view()
        model = self._models.of(view)
        if not model.gpus.rows:
            return self._page("gpus.html", view)
        found = model.gpus.page(gpu_list.parse(request.args))
        table = self._render("gpu_table.html", model, "../", paged=True, **_gpu_table(found, _ROWS_HERE))
        above, _, below = table.partition(_ROWS_HERE)
        head, tail = self._gpus_frame(model)
        return _response(b"".join((head, above.encode(), *model.gpu_rows.of(found), below.encode(), tail)))

    def _gpus_frame(self, model: FleetModel) -> tuple[bytes, bytes]:
        """What stands around the list, rendered once per view."""
        known = self._frame
        if known is None or known[0] is not model:
            head, _, tail = self._render("gpus.html", model, "../", table=_ROWS_HERE).partition(_ROWS_HERE)
            known = self._frame = model, head.encode(), tail.encode()
        return known[1:]

    def gpu(self) -> Response:
        view = self._context.view()
        model = self._models.of(view)
        row = model.gpus.by_uuid.get(request.args.get("uuid", ""))
        if row is None or view.evaluation is None:
            return self._not_found("no such GPU: see the page /page/gpus", view, "No such GPU", _no_such_gpu(view))
        facts = view.evaluation.facts
        return self._page(
            "gpu.html", view, row=row, owners=facts.owners.get(row.gpu.uuid, ()),
            charts=gpu_day.read_day(self._evidence_history, facts, row.gpu, self._context.settings, view.source.up),
        )  # fmt: skip

    def jobs(self) -> Response:
        view = self._context.view()
        jobs = self._models.of(view).jobs
        return self._page("jobs.html", view, jobs=jobs[:MAX_JOBS], job_count=len(jobs))

    def serving(self) -> Response:
        view = self._context.view()
        rows = serving_rows(view.evaluation, view.issued) if view.evaluation else []
        unread = tuple(unread_servers(view.evaluation.facts)) if view.evaluation else ()
        return self._page("serving.html", view, models=rows[:MAX_JOBS], model_count=len(rows), unread=unread)

    def recommendation(self, id_: str) -> Response:
        view = self._context.view()
        model = self._models.of(view)
        issued = next((each for each in model.ranked if each.id == id_), None)
        if issued is None:
            recent = [outcome for outcome in view.outcomes.recent if outcome.closed.tracked.id == id_]
            ended = _with_verdicts(view, recent)
            title = "This recommendation has been resolved" if ended else "No such recommendation"
            return self._not_found(
                f"no active recommendation {id_!r}: see the page /",
                view,
                title,
                "A recommendation resolves when its cause no longer applies.",
                ended,
            )
        group, names = next(group for group in model.groups if id_ in group.ids), model.gpus.by_uuid
        return self._page(
            "recommendation.html", view, issued=issued, advice=issued.recommendation, group=group,
            alone=AdviceGroup((issued,)), gpu_names=names,
            names={uuid: names[uuid].name for uuid in issued.recommendation.gpus if uuid in names},
            runbooks=runbook_names(), shown=self._evidence_with_charts(issued.recommendation.evidence, view),
        )  # fmt: skip

    def check(self) -> Response:
        view = self._context.view()
        check_key = (request.args.get("item"), request.args.get("kind"), request.args.get("of"))
        for check in view.evaluation.checks if view.evaluation else ():
            if (check.item, check.scope.kind, check.scope.name) == check_key:
                related = [each for each in view.issued if is_related(check, each.recommendation)]
                return self._page(
                    "check.html",
                    view,
                    check=check,
                    related=related,
                    shown=self._evidence_with_charts(check.evidence, view),
                )
        return self._not_found(
            "no such check: see the page /",
            view,
            "No such check",
            "A check ends when its GPU, node or pool is removed.",
        )

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
        return self._page(
            "what_if.html", view, form=form, problems=problems, comparison=comparison,
            difference=what_if_form.difference(comparison, _snoozed_ids(view)) if comparison else None,
            money=what_if_money.monthly_money(comparison, _snoozed_ids(view)) if comparison else (),
            budget=what_if_money.budget_text(comparison.changed, settings.cost.currency) if comparison else "",
            answer=serialize.what_if(view, comparison) if comparison else None,
        )  # fmt: skip

    def runbooks(self) -> Response:
        return self._page("runbooks.html", self._context.view(), names=runbook_names())

    def runbook(self, name: str) -> Response:
        view = self._context.view()
        html = runbook_html(name.removesuffix(".md"))
        if html is None:
            return self._not_found(
                f"no runbook {name!r}: see /runbooks/",
                view,
                "No such runbook",
                "Each alert has a runbook under the alert's name.",
            )
        return self._page("runbook.html", view, name=name.removesuffix(".md"), content=Markup(html))

    def show_problem(self, response: Response) -> Response:
        """A problem document as a page, where a browser asked. Whoever is refused is shown nothing of the view."""
        if response.mimetype != PROBLEM_JSON or request.method not in ("GET", "HEAD") or not accepts_html():
            return response
        status, detail = HTTPStatus(response.status_code), str(response.get_json()["detail"])
        if status in REFUSALS:  # anywhere; other problems of the API's operations stay documents
            page = self._environment.get_template("refused.html").render(title=REFUSALS[status], detail=detail)
        elif request.url_rule is None:
            page = self._unknown_address(status, detail)
        else:
            return response
        response.set_data(page.encode())
        response.content_type = _HTML
        response.headers.update(_SECURITY_HEADERS)
        return response

    def problem(self, title: str, problem: ProblemError) -> Response:
        """For browsers; other clients get a problem document."""
        return _response(self._problem_html(title, problem.detail).encode(), problem.status)

    def _unknown_address(self, status: HTTPStatus, detail: str) -> str:
        if status is HTTPStatus.NOT_FOUND:
            return self._problem_html("Page not found", "There is no page at this address.", is_fault=False)
        return self._problem_html(status.phrase, detail)

    def _problem_html(self, title: str, detail: str, is_fault: bool = True) -> str:
        model = self._models.of(self._context.view())
        return self._render("problem.html", model, _root(), title=title, detail=detail, is_fault=is_fault)

    def _evidence_with_charts(self, evidence: Sequence[Evidence], view: View) -> list[tuple[Evidence, str]]:
        """Each piece of evidence with its chart."""
        curves = self._evidence_history.of(evidence, view.source.up)
        return [(each, _evidence_chart(each, curve)) for each, curve in zip(evidence, curves, strict=True)]

    def _page(self, template: str, view: View, status: HTTPStatus = HTTPStatus.OK, **values: object) -> Response:
        values = {"host_url": request.host_url, **values}
        return _response(self._render(template, self._models.of(view), _root(), **values).encode(), status)

    def _render(self, template: str, model: FleetModel, root: str, **values: object) -> str:
        """Without a request: the overview is also rendered in advance."""
        return self._environment.get_template(template).render(
            root=root,
            navigation=NAVIGATION,
            template=template,
            view=model.view,
            rtl_names=model.rtl_names,
            currency=model.settings.cost.currency,
            has_budget=model.settings.cost.budget_per_hour is not None,
            source_name=SOURCE_NAMES.get(model.view.source.name, model.view.source.name),
            **values,
        )

    def _not_found(self, what: str, view: View, title: str, explanation: str, ended: Sequence[object] = ()) -> Response:
        """A page for browsers; a problem document for other clients."""
        if not accepts_html():
            raise ProblemError(HTTPStatus.NOT_FOUND, what)
        return self._page(
            "resolved.html", view, HTTPStatus.NOT_FOUND, title=title, explanation=explanation, ended=ended
        )


def _root() -> str:
    """Relative links work behind a proxy that serves the page below a path prefix."""
    return "../" * (request.path.count("/") - 1) or "./"


def accepts_html() -> bool:
    """Whether the request is a browser's."""
    return "text/html" in request.headers.get("Accept", "")


def _gpu_table(found: gpu_list.GpuPage, rows: Markup) -> Mapping[str, object]:
    return {"gpus": found, "gpu_rows": rows, "column_headings": column_headings, "options": options}


def _evidence_chart(evidence: Evidence, curve: EvidenceSeries | None) -> str:
    return evidence_charts.evidence_chart(curve, evidence.threshold, evidence.unit, evidence.about) if curve else ""


def _response(body: bytes, status: HTTPStatus = HTTPStatus.OK) -> Response:
    return Response(body, status, _SECURITY_HEADERS, content_type=_HTML)


def _no_such_gpu(view: View) -> str:
    if view.evaluation is None:
        return "No evaluation has succeeded yet: the GPUs are not known."
    return "No exporter reports a GPU with this UUID now. It may have been removed."


def lost_gpus(view: View) -> Mapping[str, int]:
    """By pool; lost GPUs are not in its capacity."""
    pools = view.evaluation.pools if view.evaluation else ()
    return {state.pool.settings.name: len(state.pool.gpus) - state.usage.capacity for state in pools}


def _snoozed_ids(view: View) -> set[str]:
    return {each.id for each in view.issued if each.snoozed}


def _with_verdicts(view: View, found: Iterable[Outcome]) -> list[tuple[Outcome, Feedback | None]]:
    return [(each, latest_verdict(each, view.feedback)) for each in found]
