"""The page's pure parts, and its answers without a browser; what is seen in one is in tests/browser."""

from __future__ import annotations

import dataclasses
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from html import unescape
from typing import Any

import pytest
from flask.testing import FlaskClient
from gpu_advisor.documents.savings import Savings
from gpu_advisor.evaluation.money import GpuPrice
from gpu_advisor.evaluation.policies import KINDS
from gpu_advisor.evaluation.prices import Prices
from gpu_advisor.evaluation.recommendation import Check, Evidence, Recommendation
from gpu_advisor.promql.expressions import Affine, Expression, Labels, Selector, TimeSeries, Union
from gpu_advisor.settings import Settings
from gpu_advisor.sources.base import SourceError, SourceErrorKind
from gpu_advisor.state.active import Snooze
from gpu_advisor.state.view import SourceStatus, View
from gpu_advisor.web.api.app import ApiContext, create_app
from gpu_advisor.web.page import checklist, evidence_charts, template_filters, what_if_form
from gpu_advisor.web.page import evidence_history as curves
from gpu_advisor.web.page.bidi import isolate, right_to_left_names
from gpu_advisor.web.page.evidence_history import EvidenceHistory, EvidenceSeries
from gpu_advisor.web.page.insufficient import group_by_reason
from gpu_advisor.web.page.related import belongs_to
from gpu_advisor.web.page.routes import NAVIGATION
from gpu_advisor.web.page.template_filters import first_clause, unbroken
from gpu_advisor.web.page.worth import worth
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.advisor.builders import AT, ExporterTarget
from tests.unit.advisor.test_api import HOSTILE, no_snooze, renamed, serving, view_of, whole

Ask = Mapping[Labels, TimeSeries]


def client_of(view: View, settings: Settings | None = None, ask: curves.RangeQuery | None = None) -> FlaskClient:
    return create_app(
        ApiContext(lambda: view, lambda: (), no_snooze, settings or Settings(), query_range=ask)
    ).test_client()


def text_of(client: FlaskClient, path: str, status: int = 200) -> str:
    answer = client.get(path, headers={"Accept": "text/html"})
    assert (answer.status_code, answer.mimetype) == (status, "text/html")
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert not re.search(r"\s(?:style|on\w+)=", re.sub(r'"[^"]*"', '""', answer.text))  # which the policy forbids
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", answer.text)).split())


def range_constant(expression: Expression, start: float, end: float, step: float) -> Ask:
    points = range(round((end - start) / step) + 1)
    return {(): tuple((start + index * step, 0.001 * index) for index in points if index not in (3, 4))}


def range_failing(expression: Expression, start: float, end: float, step: float) -> Ask:
    raise SourceError(SourceErrorKind.TIMEOUT, "no answer: see what keeps it busy")


def range_empty(expression: Expression, start: float, end: float, step: float) -> Ask:
    return {}


# What is shown of a recommendation and a check


def test_a_recommendation_shows_its_evidence_with_curves_and_queries() -> None:
    view = whole()
    for issued in view.issued:
        text = text_of(client_of(view, ask=range_constant), f"/page/{issued.id}")
        for each in issued.recommendation.evidence:
            assert template_filters.value_text(each.value, each.unit) in text
            assert " ".join((each.promql or "").split()) in text
        assert all(" ".join(line.split()) in text for line in issued.recommendation.apply)
        drawn = re.findall(
            r"<svg class=\"chart\".*?</svg>", client_of(view, ask=range_constant).get(f"/page/{issued.id}").text
        )
        assert drawn
        for svg in drawn:
            assert "no data for 2 of 49 points" in ElementTree.fromstring(svg).attrib["aria-label"]
            assert svg.count("<polyline") == 2  # a gap in the data is a gap in the line


@pytest.mark.parametrize(
    ("message", "clause", "more"),
    [
        ("no budget", "no budget", ""),
        ("no budget; set one; then wait", "no budget", "set one; then wait"),
        ("65 USD (47; estimate (list)); set one", "65 USD (47; estimate (list))", "set one"),
        ("odd) text; set one", "odd) text", "set one"),
        ("never (closed; set one", "never (closed; set one", ""),
    ],
)  # fmt: skip
def test_a_clause_ends_outside_of_parentheses(message: str, clause: str, more: str) -> None:
    assert first_clause(message) == (clause, more)


@pytest.mark.parametrize(
    ("ask", "up", "said"),
    [
        (range_failing, True, "no answer: see what keeps it busy"),
        (range_empty, True, "No chart: no samples in this period."),
        (range_constant, False, "No chart: the data source is down."),
    ],
)
def test_a_source_that_gives_no_past_is_reported_and_the_rest_is_there(
    ask: curves.RangeQuery, up: bool, said: str
) -> None:
    source = SourceStatus("prometheus", "http://p:9090", up, last_success=AT, browser_url="https://p.example")
    view = dataclasses.replace(whole(), source=source)
    issued = view.issued[0]
    text = text_of(client_of(view, ask=ask), f"/page/{issued.id}")
    assert said in text
    assert issued.recommendation.summary in text
    assert "Open in Prometheus" in text
    assert 'href="https://p.example/graph?' in client_of(view, ask=ask).get(f"/page/{issued.id}").text
    inside = dataclasses.replace(view, source=dataclasses.replace(source, browser_url=""))
    assert "Open in Prometheus" not in text_of(client_of(inside, ask=ask), f"/page/{issued.id}"), "a dead link"


def test_a_slow_source_does_not_hold_up_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    done = threading.Event()

    def slow(expression: Expression, start: float, end: float, step: float) -> Ask:
        done.wait(20)
        return {}

    monkeypatch.setattr(curves, "CHART_TIMEOUT_SECONDS", 0.05)
    view = whole()
    assert "took longer than" in text_of(client_of(view, ask=slow), f"/page/{view.issued[0].id}")
    done.set()


def test_a_curve_is_asked_for_once_an_evaluation() -> None:
    asked: list[Expression] = []

    def counting(expression: Expression, start: float, end: float, step: float) -> Ask:
        asked.append(expression)
        assert end == AT
        return range_constant(expression, start, end, step)

    view = whole()
    kept = EvidenceHistory(counting)
    evidence = view.issued[0].recommendation.evidence
    first = kept.of(evidence, True)
    assert kept.of(evidence, True) == first
    assert len(asked) == len(set(asked))
    assert kept.of(evidence, False) == first  # what was read is known, whether the source answers now or not


def test_each_check_has_its_page_and_what_is_unknown_says_why() -> None:
    view = whole()
    client = client_of(view, ask=range_constant)
    assert view.evaluation
    for check in view.evaluation.checks:
        text = text_of(client, "/" + str(wording_link(check)))
        assert check.title in text
        if check.value is None:
            assert check.message in text
            assert " 0 %" not in text.partition("Evidence")[0]
    text_of(client, "/page/check?item=nothing", 404)


def wording_link(check: Check) -> str:
    from gpu_advisor.web.page.template_environment import check_link

    return check_link(check)


def test_resolved_recommendations_lead_on() -> None:
    client = client_of(whole())
    assert "No such recommendation" in text_of(client, "/page/0123456789abcdef", 404)
    assert client.get("/page/0123456789abcdef").mimetype == "application/problem+json"


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_hostile_labels_on_every_page(name: str) -> None:
    view = renamed(name)
    client = client_of(view, ask=range_constant)
    assert view.evaluation
    links = ["/page/what-if?gpu.min=0", *("/" + wording_link(check) for check in view.evaluation.checks)]
    for path in links:
        answer = client.get(path)
        assert answer.status_code == 200
        assert not re.search(r"<script(?! src=\"(\./|\.\./)static/page\.js\" defer>)", answer.text)
        assert not re.search(r"<[^<>]*\sonmouseover=", re.sub(r'"[^"]*"', '""', answer.text))


def test_snoozed_advice_stands_apart() -> None:
    view = whole()
    first, *rest = view.issued
    marked = dataclasses.replace(first, snoozed=Snooze("new <b>fans</b> come", AT, AT + 3600))
    text = text_of(client_of(dataclasses.replace(view, issued=(marked, *rest))), "/")
    assert f"{len(rest)} recommendations" in text
    assert "Snoozed" in text
    assert "new <b>fans</b> come" in text


def test_silent_exporters_are_reported() -> None:
    view = view_of([ExporterTarget("a:1", []), ExporterTarget("b:2", [], up=False)])
    text = text_of(client_of(view), "/")
    assert "1 exporter down: b:2 " in text
    assert "not counted as idle" in text


# What-if


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("", "Change a value to see the difference."),
        ("gpu.min=1&gpu.max=", "Change a value"),  # the current settings
        ("gpu.min=0", "No change: 4 recommendations as now"),
        ("gpu.min=2", "Removed Scale s2 from 2 to 1 replicas"),
        ("gpu.min=2", "Changed Release 1 of 3 GPUs"),
        ("gpu.min=2", "keeps 2 GPUs instead of 1"),
        ("budget=0.01", "USD per hour: over budget"),
        ("pool0.max=2", "2 of 1 GPU 3 2"),  # replicas of s0: there, now, then
        (
            "gpu.min=99&gpu.max=8",
            'Targets and limits: "minimum GPUs per pool" (99) is above "maximum GPUs per pool" (8)',
        ),
        ("gpu.min=99&gpu.max=8&gpu.scale_down_threshold=90", '"scale down below" (90) must be below "scale up above"'),
        ("gpu.min=many", "'many' is not a number"),
        ("gpu.min=nan", "'nan' is not a number"),
        ("gpu.target_utilization=101", "less than or equal to 100"),
        ("price0=0", "greater than 0"),
        ("unknown=1", "Change a value"),
    ],
)
def test_what_if_without_scripts(query: str, said: str) -> None:
    text = text_of(client_of(whole(), serving(3)), f"/page/what-if?{query}")
    assert said in text


def test_what_if_shows_the_list_price_where_none_is_set() -> None:
    view = whole()
    assert view.evaluation is not None
    listed = GpuPrice(2.49, "USD", True, "2025-06-01", "2026-09-20")
    prices = Prices({gpu.uuid: listed for gpu in view.evaluation.facts.gpus}, "USD")
    found = dataclasses.replace(view.evaluation, prices=prices)
    estimated = dataclasses.replace(view, evaluation=found)
    words = "list price 2.49 USD of 2026-09-20, an estimate"
    assert words in text_of(client_of(estimated, serving(3)), "/page/what-if")
    assert words not in text_of(client_of(view, serving(3)), "/page/what-if")


INHERITING = Settings.model_validate({"pools": [{"name": "a"}, {"name": "b", "gpu": {"target_utilization": 88}}]})


@pytest.mark.parametrize(
    ("entered", "overrides", "inherited"),
    [
        ({}, {}, 90),
        ({"gpu.target_utilization": "90"}, {}, 90),  # as set
        ({"gpu.target_utilization": "86"}, {"resources": {"gpu": {"target_utilization": 86}}}, 86),
        ({"pool0.target_utilization": "90"}, {"pools": {"a": {"gpu": {"target_utilization": 90}}}}, 90),
        ({"pool0.min": "2"}, {"pools": {"a": {"gpu": {"min": 2}}}}, 90),
        ({"pool1.target_utilization": "88"}, {}, 90),
    ],
)
def test_a_pool_inherits_and_what_is_entered_is_sent(
    entered: Mapping[str, str], overrides: Mapping[str, Any], inherited: float
) -> None:
    form = what_if_form.fill_form(what_if_form.form_fields(INHERITING, {}), entered)
    fields = {field.name: field for group in form for field in group.fields}
    assert what_if_form.setting_overrides(form) == overrides
    assert fields["pool0.target_utilization"].inherited == inherited
    assert fields["pool0.target_utilization"].display_value == entered.get("pool0.target_utilization", "")
    assert (fields["pool1.target_utilization"].inherited, fields["pool1.target_utilization"].current) == (None, 88)


def test_what_if_before_the_first_answer() -> None:
    view = View("c", SourceStatus("fake", "memory", False, "not_yet", "wait a moment"))
    assert "No evaluation has succeeded yet" in text_of(client_of(view), "/page/what-if?gpu.min=0")


# Charts, formats, savings


@given(
    points=st.lists(st.none() | st.floats(-1e12, 1e12), min_size=1, max_size=60),
    threshold=st.none() | st.floats(-1e12, 1e12),
    unit=st.sampled_from(["ratio", "bytes", "watts", "hertz", "count"]),
    name=st.text(max_size=30),
)
def test_any_curve_is_drawn_within_its_frame(
    points: Sequence[float | None], threshold: float | None, unit: str, name: str
) -> None:
    drawn = str(evidence_charts.evidence_chart(EvidenceSeries(0.0, 3600.0, tuple(points)), threshold, unit, name))
    if all(value is None for value in points):
        assert "<svg" not in drawn
        return
    printable = "".join(each if each.isprintable() else " " for each in drawn)
    svg = ElementTree.fromstring(printable)
    found = [pair.split(",") for line in svg.iter("polyline") for pair in line.attrib["points"].split()]
    found += [[dot.attrib["cx"], dot.attrib["cy"]] for dot in svg.iter("circle")]
    assert len(found) == sum(1 for value in points if value is not None)
    for x, y in found:
        assert 0 <= float(x) <= evidence_charts.WIDTH
        assert 0 <= float(y) <= evidence_charts.HEIGHT


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (None, "ratio", "–"), (0.0, "ratio", "0 %"), (0.0123, "ratio", "1.2 %"), (0.98, "ratio", "98 %"),
        (85899345920.0, "bytes", "80 GiB"), (1.98e9, "hertz", "1.98 GHz"), (2e8, "bytes_per_second", "200 MB/s"),
        (71.0, "celsius", "71 °C"), (350.0, "watts", "350 W"), (12.0, "count", "12"), (0.5, "seconds", "500 ms"),
        (0.09602, "seconds", "96 ms"),
        (0.9999, "seconds", "1000 ms"),
        (0.0, "seconds", "0 s"),
        (154.8, "seconds", "154.8 s"),
    ],
)  # fmt: skip
def test_values_in_words(value: float | None, unit: str, text: str) -> None:
    assert template_filters.value_text(value, unit) == text


def advice(**changes: Any) -> Recommendation:
    return dataclasses.replace(whole().issued[0].recommendation, **changes)


def test_glance_takes_the_worst_of_the_nodes() -> None:
    view = whole()
    assert view.evaluation
    [first, *_] = [each for each in view.evaluation.checks if each.scope.kind == "node" and each.value is not None]
    off = [first._replace(missed_by=by, value=0.9 + by) for by in (-0.1, -0.5, -0.2)]
    assert checklist.worst_check(off).missed_by == -0.5
    rows = [checklist.ChecksRow(str(number), {"gpu_utilization": each}) for number, each in enumerate(off)]
    assert checklist.worst_rows(rows) == rows
    many = rows * checklist.MAX_ROWS
    assert [row.name for row in checklist.worst_rows(many)][:2] == ["1", "1"]
    assert len(checklist.worst_rows(many)) == checklist.MAX_ROWS


def test_evidence_spans() -> None:
    evidence: Evidence = whole().issued[0].recommendation.evidence[0]
    for window, length in ((None, 3600), (300, 3600), (1800, 7200), (10**6, 86400)):
        start, end, step = curves.time_range(dataclasses.replace(evidence, window_seconds=window))
        assert (end - start, step * curves.POINTS, end) == (length, length, AT)
        assert step * 1000 == round(step * 1000)  # a Prometheus is asked in whole milliseconds


@given(
    parts=st.lists(st.text(max_size=8), max_size=5),
    names=st.lists(st.text(alphabet="ab<&\u202e\u05d0\u0645 ", min_size=1, max_size=6), max_size=3),
)
def test_names_that_turn_the_direction_are_held_within_themselves(parts: Sequence[str], names: Sequence[str]) -> None:
    text = "".join(part + name for part, name in zip(parts, [*names, *[""] * 5], strict=False))
    shown = isolate(text, right_to_left_names(names))
    assert unescape(re.sub(r"</?bdi>", "", shown)) == text.replace("\r", "\r")  # nothing is lost or added
    outside = unescape(re.sub(r"<bdi>.*?</bdi>", "\0", shown, flags=re.DOTALL))
    assert not any(name in outside for name in right_to_left_names(names))


def test_which_names_turn_the_direction() -> None:
    assert right_to_left_names(["node-a", "Grüße", "🔥", "a\u202eb", "שלום", "مرحبا 2"]) == (
        "مرحبا 2",
        "שלום",
        "a\u202eb",
    )


@pytest.mark.parametrize(
    ("number", "text"), [(1, "1 GPU"), (1.0, "1 GPU"), (0.25, "0.2 GPUs"), (2.94, "2.9 GPUs"), (123.4, "123 GPUs")]
)
def test_gpus_are_counted_in_plain_numbers(number: float, text: str) -> None:
    assert template_filters.gpu_count(number) == text


@pytest.mark.parametrize("path", ["/page/gpus", "/page/jobs", "/page/serving"])
def test_before_the_first_evaluation_a_list_says_why_it_is_empty(path: str) -> None:
    view = View("c", SourceStatus("prometheus", "http://p:9090", False, "unreachable", "no connection: check the url"))
    text = text_of(client_of(view), path)
    assert "No data yet. no connection: check the url" in text
    assert "No GPUs" not in text
    waiting = View("c", SourceStatus("prometheus", "http://p:9090", True))
    assert "the first evaluation has not finished" in text_of(client_of(waiting), path)


def test_a_report_that_cannot_be_made_is_a_page_for_browsers_only() -> None:
    view = View("c", SourceStatus("prometheus", "http://p:9090", False, "unreachable", "no connection: check the url"))
    client = client_of(view)
    assert "No report" in (text := text_of(client, "/report?format=html", 503))
    assert "no connection: check the url" in text
    for path, accept in (("/report?format=html", "*/*"), ("/report", "text/html"), ("/report?format=md", "text/html")):
        answer = client.get(path, headers={"Accept": accept})
        assert (answer.status_code, answer.mimetype) == (503, "application/problem+json")


def test_an_unknown_address_is_a_page_for_browsers_and_a_document_for_others() -> None:
    client = client_of(whole())
    assert "Page not found There is no page at this address." in text_of(client, "/no-such-page", 404)
    assert "Overview" in text_of(client, "/page/deeper/than/any", 404)
    assert client.get("/no-such-page").mimetype == "application/problem+json"
    operation = client.get("/recommendations?page=x", headers={"Accept": "text/html"})
    assert (operation.status_code, operation.mimetype) == (400, "application/problem+json")


def test_money_has_its_currency_and_no_budget_is_no_unknown_cost() -> None:
    settings = serving(3)
    client = client_of(whole(), settings)
    overview = text_of(client, "/")
    assert "no budget" in overview
    assert not re.search(r"\d per hour", overview)
    budget = settings.model_copy(update={"cost": settings.cost.model_copy(update={"budget_per_hour": 5.0})})
    view = view_of([], budget)
    assert "no budget" not in text_of(client_of(view, budget), "/")


@pytest.mark.parametrize(
    ("savings", "text"),
    [
        (Savings(2.0, 5.0, "exact", "USD", lowest_per_hour=5.0), "about 3,650 USD a month"),
        (Savings(2.0, 2.4, "at_most", "USD", lowest_per_hour=1.08), "788 to 1,752 USD a month"),
        (Savings(2.0, 2.4, "at_most", "USD"), "at most 1,752 USD a month"),
        (Savings(2.0, 1.08, "at_least", "USD", lowest_per_hour=1.08), "at least 788 USD a month"),
        (Savings(2.9), "about 2.9 GPUs"),
        (Savings(), ""),
    ],
)
def test_savings_in_words(savings: Savings, text: str) -> None:
    assert worth(savings) == text


@pytest.mark.parametrize("high", [0.086, 0.83, 1.0])
def test_ratios_are_drawn_on_one_scale(high: float) -> None:
    drawn = evidence_charts.evidence_chart(EvidenceSeries(0.0, 3600.0, (0.0, high)), None, "ratio", "tensor activity")
    (points,) = [each.attrib["points"] for each in ElementTree.fromstring(str(drawn)).iter("polyline")]
    left, right = (float(pair.split(",")[1]) for pair in points.split())
    height = evidence_charts.AREA.bottom - evidence_charts.AREA.top
    assert (left - right) / height == pytest.approx(high, abs=0.01)
    assert "100 %" in drawn


@pytest.mark.parametrize(
    ("text", "shown"),
    [("80%", "80\N{NO-BREAK SPACE}%"), ("70 % to 90 %.", "70\N{NO-BREAK SPACE}% to 90\N{NO-BREAK SPACE}%."),
     ("http://a/b2%20c", "http://a/b2%20c"), ("% of 3", "% of 3")],
)  # fmt: skip
def test_percentages_do_not_break(text: str, shown: str) -> None:
    assert unbroken(text) == shown


@pytest.mark.parametrize(
    ("statistic", "expression", "text"),
    [
        ("quantile", Selector("m", "quantile", 300, 0.95), "p95"),
        (
            "quantile",
            Union((Selector("m", "quantile", 300, 0.99), Affine(Selector("n", "quantile", 300, 0.99)))),
            "p99",
        ),
        ("quantile", None, "quantile"),  # of stored evidence
        ("mean", Selector("m", "mean", 300), "mean"),
    ],
)
def test_a_quantile_is_named_by_its_percentile(statistic: str, expression: Expression | None, text: str) -> None:
    evidence = Evidence("utilization", "utilization", "ratio", statistic, 300, 0.5, AT, expression)
    assert evidence_charts.statistic(evidence) == text


@pytest.mark.parametrize(
    ("message", "text"),
    [("wait", "Wait."), ("Wait.", "Wait."), ("is an exporter scraped?", "Is an exporter scraped?"),
     ("http://a:9090 does not respond", "http://a:9090 does not respond.")],
)  # fmt: skip
def test_a_message_is_a_sentence(message: str, text: str) -> None:
    assert template_filters.sentence(message) == text


def test_drivers_by_state() -> None:
    states = {"nvidia": {"absent"}, "amd": {"absent", "ok"}, "intel": {"ok"}, "other": {"failed"}}
    assert template_filters.drivers_by_state(states) == [("absent", ["AMD", "NVIDIA"]), ("failed", ["other"])]


def test_a_snoozed_recommendation_counts_once_in_what_if() -> None:
    view = whole()
    last = dataclasses.replace(view.issued[-1], snoozed=Snooze("planned", AT, AT + 60))
    snoozed = dataclasses.replace(view, issued=(*view.issued[:-1], last))
    assert "No change: 3 recommendations as now, 1 snoozed" in text_of(
        client_of(snoozed, serving(3).model_copy(update={"cluster": snoozed.cluster})), "/page/what-if?gpu.min=0"
    )


@pytest.mark.parametrize("item", ["gpu_utilization", "gpu_memory", "cost"])
def test_a_fleet_check_leads_to_the_recommendations_of_its_item(item: str) -> None:
    view = whole()
    text = text_of(client_of(view), f"/page/check?item={item}&kind=fleet&of=fleet")
    for each in view.issued:
        summary = " ".join(unbroken(each.recommendation.summary).split())
        assert (summary in text) == belongs_to(item, each.recommendation)
    assert belongs_to("gpu_utilization", view.issued[0].recommendation)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_belongs_to_what_it_changes(kind: str) -> None:
    """A lost GPU has no duplicate series, and a cooler one is as busy as before."""
    advice = dataclasses.replace(whole().issued[0].recommendation, kind=kind, unit="affected GPUs", savings=None)
    busier = {"batch_size", "communication", "data_loading", "hung_job", "idle_lease", "idle_reclaim", "smaller_gpu",
              "straggler"}  # fmt: skip
    assert belongs_to("gpu_utilization", advice) == (kind in busier)
    fuller = {"batch_size", "idle_reclaim", "memory_saving", "smaller_gpu"}
    assert belongs_to("gpu_memory", advice) == (kind in fuller)
    assert not belongs_to("exporters", advice)
    resized = dataclasses.replace(advice, unit="replicas")
    assert belongs_to("gpu_utilization", resized)
    assert belongs_to("cost", resized)
    assert not belongs_to("cost", advice)


@pytest.mark.parametrize(
    ("replicas", "replicas_are", "gpus_per_replica", "text"),
    [
        (3, "gpus", 1, "of 1 GPU"),
        (3, "gpus", 2, "of 2 GPUs each"),
        (1, "servers", 2, "server"),
        (2, "servers", 1, "servers"),
    ],
)
def test_replicas_have_their_unit(replicas: int, replicas_are: str, gpus_per_replica: int, text: str) -> None:
    pool = {"replicas": replicas, "replicas_are": replicas_are, "gpus_per_replica": gpus_per_replica}
    assert template_filters.replica_unit(pool) == text


@pytest.mark.parametrize("path", [f"/{address}" for address, _, template in NAVIGATION if template])
def test_the_navigation_marks_the_page_it_is_on(path: str) -> None:
    html = client_of(whole(), serving(3)).get(path, headers={"Accept": "text/html"}).text
    current = re.findall(r'href="([^"]*)" aria-current="page"', html)
    assert [unescape(each).replace("../", "/").replace("./", "/") for each in current] == [path.replace("//", "/")]


def test_what_concerns_all_is_explained_once() -> None:
    view = view_of([ExporterTarget("a:1", [])])
    text = text_of(client_of(view), "/")
    assert view.evaluation is not None
    [group] = group_by_reason(view.evaluation.abstentions)
    assert group.details == ()
    assert text.count(group.sentence[1:].rstrip(".")) == 1
    assert "1 detail" not in text
