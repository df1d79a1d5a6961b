"""What the templates may use beside Jinja's own: filters, links and charts."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from urllib.parse import quote, urlencode

from jinja2 import Environment, pass_context
from jinja2.runtime import Context
from markupsafe import Markup

from gpu_advisor.documents import serialize
from gpu_advisor.evaluation.recommendation import Check
from gpu_advisor.state.view import View
from gpu_advisor.web.page import evidence_charts, template_filters, worth
from gpu_advisor.web.page.bidi import isolate
from gpu_advisor.web.page.gpu_rows import mean_text


@pass_context
def _isolate(context: Context, text: str) -> Markup:
    return isolate(text, context["rtl_names"])


@pass_context
def _prose(context: Context, text: str) -> Markup:
    """Sentences: not for code, in which spaces are part of it."""
    return Markup(template_filters.unbroken(str(_isolate(context, text))))


def check_link(check: Check) -> str:
    """The page of a check, relative to the root."""
    return "page/check?" + urlencode({"item": check.item, "kind": check.scope.kind, "of": check.scope.name})


def prometheus_link(promql: str | None, view: View) -> str:
    """The query in Prometheus' web interface; empty for other sources, and if it is unknown where browsers reach it."""
    if not promql or not view.source.browser_url:
        return ""
    return f"{view.source.browser_url}/graph?g0.tab=1&g0.expr={quote(promql, safe='')}"


_FILTERS: Mapping[str, Callable[..., object]] = {
    **{each.__name__: each for each in template_filters.FILTERS},
    "timestamp": serialize.format_optional_rfc3339,
    "isolate": _isolate,
    "prose": _prose,
    "shell_quote": shlex.quote,
    "check_link": check_link,
    "prometheus_link": prometheus_link,
    "mean_text": mean_text,
    "worth": worth.worth,
    "group_savings": worth.group_savings,
    "per_month": worth.per_month,
    "distinct_titles": evidence_charts.distinct_titles,
    "statistic": evidence_charts.statistic,
}


def extend_templates(environment: Environment) -> None:
    """Add filters and globals. Tags leave no blank lines."""
    environment.filters.update(_FILTERS)
    environment.globals["meter"] = evidence_charts.meter
    environment.trim_blocks = environment.lstrip_blocks = True
