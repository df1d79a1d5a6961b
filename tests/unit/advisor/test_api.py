from __future__ import annotations

import csv
import dataclasses
import html
import io
import re
import sqlite3
import subprocess
from collections import Counter
from typing import Any

import pytest
from flask.testing import FlaskClient
from gpu_advisor.evaluation.recommendation import Scope
from gpu_advisor.notify import metrics
from gpu_advisor.notify.alertmanager import AlertmanagerStatus
from gpu_advisor.observation.evaluate import evaluate
from gpu_advisor.settings import Settings
from gpu_advisor.state.active import Snooze
from gpu_advisor.state.feedback import Feedback
from gpu_advisor.state.outcomes import NO_OUTCOMES, ClosedRecommendation, Outcome, OutcomeResult, TrackedRecommendation
from gpu_advisor.state.view import PublishedRecommendation, SourceStatus, View
from gpu_advisor.web.api.app import ApiContext, create_app
from prometheus_client.parser import text_string_to_metric_families

from tests.servers import require_binary
from tests.unit.advisor.builders import AT, ExporterTarget, FakeSource, GpuSpec

SENDERS = (AlertmanagerStatus("http://a:9093", True, 3), AlertmanagerStatus("http://b:9093"))
HOSTILE = {
    "html": "<script>alert(1)</script>",
    "attribute": '"\' onmouseover=alert(1) x="',
    "template": "{{ view.__class__ }}{% raise %}",
    "newlines": "a\nb\r\nc\td",
    "emoji and right to left": "🔥\u202eGPU\u0000مرحبا",
    "long": "x" * 10_000,
    "formula": '=HYPERLINK("http://evil")',
    "carriage return": "\r=1+1",
}


def view_of(targets: list[ExporterTarget], settings: Settings | None = None) -> View:
    chosen = settings or Settings()
    evaluation = evaluate(FakeSource(targets, chosen), chosen, AT)
    issued = tuple(PublishedRecommendation(advice.id("c"), AT - 60, advice) for advice in evaluation.recommendations)
    source = SourceStatus("fake", "memory", True, last_success=AT)
    return View("c", source, evaluation, issued, 0.1, 1, (("timeout", 2),), interval_seconds=15)


def serving(count: int) -> Settings:
    pools = [{"name": f"s{i}", "kind": "serving", "match": {"node": f"s{i}"}} for i in range(count)]
    return Settings.model_validate({"pools": pools, "cost": {"gpu_price_per_hour": {"NVIDIA H100": 2}}})


def whole() -> View:
    """Advice of three kinds: one pool with idle GPUs, two that should grow, one that should shrink."""
    cards = [GpuSpec("GPU-0", 0.0), GpuSpec("GPU-1", 0.0, index="1"), GpuSpec("GPU-lost", None, up=False)]
    for i, value in enumerate((0.95, 1.0, 0.1)):
        points = tuple((AT - 60 * step, value) for step in reversed(range(16)))
        cards += [GpuSpec(f"GPU-s{i}-{n}", value, node=f"s{i}", trail=points) for n in (0, 1)]
    return view_of([ExporterTarget("a:1", cards)], serving(3))


@pytest.fixture(scope="module")
def view() -> View:
    return whole()


@pytest.fixture(scope="module")
def client(view: View) -> FlaskClient:
    return client_of(view)


def client_of(view: View) -> FlaskClient:
    return create_app(ApiContext(lambda: view, lambda: SENDERS, no_snooze)).test_client()


def no_snooze(id_: str, snooze: object) -> None:
    raise AssertionError("nobody is to snooze here")


def got(client: FlaskClient, path: str) -> dict[str, Any]:
    answer = client.get(path)
    assert (answer.status_code, answer.content_type) == (200, "application/json")
    found: dict[str, Any] = answer.get_json()
    return found


@pytest.mark.parametrize(
    ("query", "kinds"),
    [
        ("", ["idle_reclaim", "scale_up", "scale_up", "scale_down"]),
        ("kind=scale_up", ["scale_up", "scale_up"]),
        ("severity=info", ["scale_down"]),
        ("pool=s0", ["scale_up"]),
        ("node=node-a", ["idle_reclaim"]),
        ("node=s1&kind=scale_up", ["scale_up"]),
        ("node=s1&kind=scale_down", []),
        ("per_page=3", ["idle_reclaim", "scale_up", "scale_up"]),
        ("per_page=3&page=2", ["scale_down"]),
        ("page=99", []),
    ],
)
def test_filters_and_pages(client: FlaskClient, query: str, kinds: list[str]) -> None:
    answer = got(client, f"/recommendations?{query}")
    assert sorted(each["kind"] for each in answer["recommendations"]) == sorted(kinds)
    if "page" in query:
        assert answer["total"] == 4
    else:
        assert answer["total"] == len(kinds)


def test_document(client: FlaskClient, view: View) -> None:
    answer = got(client, "/recommendations")
    assert (answer["at"], answer["stale"], answer["source"]["up"]) == ("2027-01-15T08:00:00.000Z", False, True)
    assert answer["checks"]["counts"]["unknown"] >= 1
    assert {word["reason"] for word in answer["abstentions"]} == {"no_data", "saturated"}
    pools = {pool["name"]: pool for pool in answer["pools"]}
    assert (pools["s0"]["replicas"], pools["s0"]["desired_replicas"]) == (2, 3)
    assert (pools["s0"]["capacity_gpus"], pools["s0"]["busy_gpus"]) == (2, 1.9)
    assert pools["NVIDIA H100"]["busy_gpus"] is None  # of one of its GPUs nothing is known, which is not nothing
    for each in answer["recommendations"]:
        assert got(client, f"/recommendations/{each['id']}")["recommendation"] == each
        assert each["evidence"]
        assert all(f"@ {AT:.3f}" in evidence["promql"] for evidence in each["evidence"])
        assert each["since"] == "2027-01-15T07:59:00.000Z"


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("status=unknown&item=gpu_utilization&scope_kind=gpu", 1),
        ("scope=GPU-lost", 2),
        ("scope_kind=gpu&per_page=5&page=2", 5),
        ("item=cost", 1),
    ],
)
def test_checks(client: FlaskClient, query: str, count: int) -> None:
    assert len(got(client, f"/checks?{query}")["checks"]) == count


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/recommendations?knd=x", 400, ("knd", "kind, severity, node, pool, job, format, page, per_page")),
        ("/recommendations?severity=loud", 400, ("severity", "'info', 'warning' or 'critical'")),
        ("/recommendations?format=xml", 400, ("format", "'json' or 'csv'")),
        ("/recommendations?page=0", 400, ("page", "greater than or equal to 1")),
        ("/recommendations?page=²", 400, ("page", "integer")),
        ("/recommendations?page=" + "9" * 5000, 400, ("page", "integer")),
        ("/recommendations?per_page=1001", 400, ("per_page", "less than or equal to 1000")),
        ("/recommendations?pool=a&pool=b", 400, ("pool", "once")),
        ("/recommendations?pool=GPU-0", 400, ("no such pool",)),
        ("/checks?item=nothing", 400, ("no such item",)),
        ("/checks?status=bad", 400, ("status", "'met', 'missed' or 'unknown'")),
        ("/checks?scope_kind=rack", 400, ("scope_kind", "'fleet', 'pool', 'node', 'gpu'")),
        ("/checks?page=x", 400, ("page", "integer")),
        ("/recommendations/0123456789abcdef", 404, ("0123456789abcdef", "see GET /recommendations")),
        ("/recommendations/0?x=1", 400, ("x", "there is none")),
        ("/page/0123456789abcdef", 404, ("0123456789abcdef", "see the page /")),
        ("/nothing", 404, ("not found",)),
    ],
)
def test_problems_name_the_parameter_and_fix(
    client: FlaskClient, path: str, status: int, words: tuple[str, ...]
) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.content_type) == (status, "application/problem+json")
    document = answer.get_json()
    assert document["status"] == status
    assert all(word in document["detail"] for word in words)


def test_a_wrong_method_and_a_defect_are_problems_too(view: View) -> None:
    refused = client_of(view).post("/recommendations")
    assert (refused.status_code, refused.content_type) == (405, "application/problem+json")
    assert "GET" in refused.headers["Allow"]

    def broken() -> View:
        raise ZeroDivisionError

    answer = create_app(ApiContext(broken, lambda: SENDERS, no_snooze)).test_client().get("/recommendations")
    assert (answer.status_code, answer.content_type) == (500, "application/problem+json")
    assert "ZeroDivision" not in answer.text


@pytest.mark.parametrize("path", ["/recommendations", "/recommendations?format=csv", "/checks"])
def test_etag(view: View, path: str) -> None:
    first = client_of(view).get(path)
    again = client_of(view).get(path, headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    assert first.headers["Cache-Control"] == "no-cache"
    changed = dataclasses.replace(view, cluster="other", issued=view.issued[:1])
    assert client_of(changed).get(path, headers={"If-None-Match": first.headers["ETag"]}).status_code == 200


def renamed(name: str) -> View:
    cards = [GpuSpec(name, 0.0, node=name, name=name, index=name), GpuSpec("b", 0.0, node=name, name=name)]
    return view_of([ExporterTarget("a:1", cards)])


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_csv(name: str) -> None:
    answer = client_of(renamed(name)).get("/recommendations?format=csv")
    assert answer.content_type == "text/csv; charset=utf-8"
    header, row = csv.reader(io.StringIO(answer.data.decode(), newline=""))
    found = dict(zip(header, row, strict=True))
    assert found["scope"].removeprefix("'") == name.replace("\0", "\ufffd")
    assert (found["kind"], found["current"], found["recommended"], found["held"]) == ("idle_reclaim", "2", "1", "false")
    assert found["cost_change_per_hour"] == ""  # no price is not a price of nothing
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in row)


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_hostile_labels_are_text_everywhere(name: str) -> None:
    client = client_of(renamed(name))
    (advice,) = got(client, "/recommendations")["recommendations"]
    assert advice["scope"]["name"] == name
    assert set(advice["gpus"]) == {name, "b"}
    for path in ("/", f"/page/{advice['id']}"):
        answer = client.get(path)
        assert (answer.status_code, answer.mimetype) == (200, "text/html")
        assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
        text = answer.data.decode()
        assert not re.search(r"<script(?! src=\"(\./|\.\./)static/page\.js\" defer>)", text)
        assert "<" not in name or name not in text
        assert not re.search(r"<[^<>]*\sonmouseover=", re.sub(r'"[^"]*"', '""', text))
        assert " ".join(name.split()) in " ".join(html.unescape(text.replace("&#34;", '"')).split())
    samples = [
        sample
        for family in text_string_to_metric_families(client.get("/metrics").data.decode())
        for sample in family.samples
    ]
    assert name in {sample.labels.get("pool") for sample in samples}


def test_metrics(client: FlaskClient) -> None:
    answer = client.get("/metrics")
    assert answer.content_type.startswith("text/plain; version=0.0.4")
    text = answer.data.decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    catalogue = {name.removesuffix("_total"): labels for name, (_, _, labels) in metrics.METRIC_FAMILIES.items()}
    # Nothing that is not in the catalogue, and this view has all of it but the metrics of snoozes and outcomes.
    rest = {
        name for name in catalogue if re.search("snoozed|outcomes|projection|damaged|lease_|feedback|serving_", name)
    }
    assert set(families) == set(catalogue) - rest
    seen = set()
    for name, family in families.items():
        for sample in family.samples:
            assert set(sample.labels) == set(catalogue[name])
            key = (sample.name, *sample.labels.items())
            assert key not in seen
            seen.add(key)
    values = {(s.name, *s.labels.values()): s.value for f in families.values() for s in f.samples}
    assert values["gpu_advisor_desired_replicas", "s0"] == 3
    assert values["gpu_advisor_desired_replicas", "s2"] == 1
    assert values["gpu_advisor_pool_gpus", "s0", "busy"] == 1.9
    assert ("gpu_advisor_pool_gpus", "NVIDIA H100", "busy") not in values
    assert values["gpu_advisor_alerts_sent_total", "http://a:9093"] == 3
    assert ("gpu_advisor_alertmanager_up", "http://b:9093") not in values  # nothing was sent there yet
    assert values["gpu_advisor_gpu_price_per_hour", "USD", "false", "NVIDIA H100"] == 2
    about = Counter(key[1] for key in values if key[0] == "gpu_advisor_recommendation_gpu_info")
    assert about == {key[1]: value for key, value in values.items() if key[0] == "gpu_advisor_recommendation_gpus"}
    alerts = {key[1] for key in values if key[0] == "gpu_advisor_recommendation_info"}
    assert alerts == {"GpuAdvisorIdleReclaim", "GpuAdvisorScaleUp", "GpuAdvisorScaleDown"}


#: Families of a stale view: health, what people did, and recommendations, whose alerts go on as well.
KEPT_WHILE_STALE = {
    "gpu_advisor_build_info",
    "gpu_advisor_source_up",
    "gpu_advisor_stale",
    "gpu_advisor_damaged_state_file_info",
    "gpu_advisor_simulated",
    "gpu_advisor_evaluation_last_success_timestamp_seconds",
    "gpu_advisor_evaluation_duration_seconds",
    "gpu_advisor_evaluation_interval_seconds",
    "gpu_advisor_evaluation_queries",
    "gpu_advisor_evaluations_total",
    "gpu_advisor_evaluation_failures_total",
    "gpu_advisor_alertmanager_up",
    "gpu_advisor_alerts_sent_total",
    "gpu_advisor_recommendation_info",
    "gpu_advisor_recommendation_gpu_info",
    "gpu_advisor_recommendation_gpus",
    "gpu_advisor_recommendation_cost_change_per_hour",
    "gpu_advisor_recommendation_since_timestamp_seconds",
    "gpu_advisor_recommendation_snoozed",
    "gpu_advisor_recommendation_savings_per_hour",
    "gpu_advisor_savings_per_hour",
    "gpu_advisor_abstention_info",
    "gpu_advisor_outcomes_total",
    "gpu_advisor_feedback",
    "gpu_advisor_projection_error_ratio",
    "gpu_advisor_gpu_price_per_hour",
    "gpu_advisor_leases",
    "gpu_advisor_lease_gpus",
    "gpu_advisor_lease_made_timestamp_seconds",
    "gpu_advisor_lease_expires_timestamp_seconds",
}


def test_it_is_decided_of_each_family_whether_a_stale_view_has_it() -> None:
    assert metrics.WITHHELD_WHILE_STALE.isdisjoint(KEPT_WHILE_STALE)
    assert metrics.METRIC_FAMILIES.keys() == metrics.WITHHELD_WHILE_STALE | KEPT_WHILE_STALE


@pytest.mark.parametrize("how", ["source", "overdue"])
def test_a_stale_view_has_no_measurement(view: View, how: str) -> None:
    def names(view: View) -> set[str]:
        text = metrics.MetricsExposition().render(view, SENDERS).decode()
        return set(re.findall("^# TYPE (.+) .+$", text, re.M))

    away = dataclasses.replace(view.source, up=False)
    stale = dataclasses.replace(view, source=away) if how == "source" else dataclasses.replace(view, overdue=True)
    withheld = names(view) - names(stale)
    assert withheld == names(view) & metrics.WITHHELD_WHILE_STALE
    assert {"gpu_advisor_replicas", "gpu_advisor_hpa_replicas", "gpu_advisor_check_status"} <= withheld


def test_promtool_has_nothing_to_say(client: FlaskClient) -> None:
    command = [require_binary("promtool"), "check", "metrics"]
    checked = subprocess.run(command, input=client.get("/metrics").data, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")


def test_with_the_source_away(view: View) -> None:
    state = SourceStatus("prometheus", "http://p", False, "timeout", "no answer: see what keeps it busy", AT - 90)
    client = client_of(dataclasses.replace(view, source=state))
    for path in ("/-/healthy", "/-/ready"):
        assert (client.get(path).status_code, client.get(path).data) == (200, b"ok\n")
    answer = got(client, "/recommendations")
    assert (answer["stale"], answer["source"]["error"], answer["total"]) == (True, "timeout", 4)
    assert answer["abstentions"][0]["reason"] == "stale"
    assert {pool["desired_replicas"] for pool in answer["pools"]} == {None}
    text = client.get("/metrics").data.decode()
    assert "gpu_advisor_stale 1.0" in text
    assert 'gpu_advisor_source_up{source="prometheus"} 0.0' in text
    assert "gpu_advisor_recommendation_info" in text
    assert "gpu_advisor_desired_replicas{" not in text  # nothing scales by an old answer
    page = client.get("/").data.decode()
    assert "no answer: see what keeps it busy" in page
    assert "stale" in page


def test_before_the_first_answer() -> None:
    client = client_of(View("c", SourceStatus("fake", "memory", False, "not_yet", "wait a moment")))
    answer = got(client, "/recommendations")
    assert (answer["at"], answer["stale"], answer["recommendations"], answer["simulated"]) == (None, False, [], None)
    assert [word["reason"] for word in answer["abstentions"]] == ["no_data"]
    assert client.get("/-/ready").status_code == client.get("/").status_code == client.get("/checks").status_code == 200
    assert "gpu_advisor_evaluation_queries" not in client.get("/metrics").data.decode()


# Pages, snoozes and outcomes


@pytest.mark.parametrize("path", ["/recommendations?per_page=1", "/checks?per_page=5&scope_kind=gpu"])
def test_following_the_links_sees_everything_once(client: FlaskClient, path: str) -> None:
    (what,) = {"recommendations", "checks"} & {path.split("?")[0].strip("/")}
    seen: list[Any] = []
    page = client.get(path)
    while True:
        seen += page.get_json()[what]
        links = {rel: url for url, rel in re.findall(r'<([^>]+)>; rel="(\w+)"', page.headers["Link"])}
        assert {"first", "last"} <= set(links)
        if "next" not in links:
            break
        page = client.get(links["next"])
    whole = got(client, re.sub(r"per_page=\d+&?", "", path))[what]
    assert seen == whole
    assert len(seen) > 1


def test_checks_as_csv(client: FlaskClient) -> None:
    header, *rows = csv.reader(
        io.StringIO(client.get("/checks?format=csv&scope=GPU-lost&status=unknown").text, newline="")
    )
    assert [dict(zip(header, row, strict=True))["status"] for row in rows] == ["unknown"]
    assert {dict(zip(header, row, strict=True))["value"] for row in rows} == {""}  # not known is not zero


@pytest.mark.parametrize("pool", ["s0", "NVIDIA H100"])
def test_the_pool_filter_finds_what_concerns_its_gpus(view: View, pool: str) -> None:
    """Also advice on a node or a GPU of the pool, which does not name it."""
    about = {"s0": "GPU-s0-0", "NVIDIA H100": "GPU-0"}[pool]
    advice = dataclasses.replace(view.issued[0].recommendation, scope=Scope("gpu", about), gpus=(about,))
    more = dataclasses.replace(view, issued=(*view.issued, PublishedRecommendation("1", AT, advice)))
    found = got(client_of(more), f"/recommendations?pool={pool}")["recommendations"]
    assert "1" in {each["id"] for each in found}
    assert "1" not in {each["id"] for each in got(client_of(more), "/recommendations?pool=s1")["recommendations"]}


class SnoozeRecorder:
    """What the service does with snoozes, on a view of a test's."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.fails = False
        doors = ApiContext(lambda: self.view, lambda: SENDERS, self.snooze, clock=lambda: AT)
        self.client = create_app(doors).test_client()

    def snooze(self, id_: str, snooze: Snooze | None) -> None:
        if self.fails:
            raise sqlite3.OperationalError("disk is full")
        marked = [dataclasses.replace(each, snoozed=snooze) if each.id == id_ else each for each in self.view.issued]
        self.view = dataclasses.replace(self.view, issued=tuple(marked))


def test_snooze(view: View) -> None:
    advisor = SnoozeRecorder(view)
    id_ = view.issued[0].id
    path = f"/recommendations/{id_}/snooze"
    body = {"reason": "maintenance", "until": "2027-01-15T11:00:00+02:00"}
    made = advisor.client.post(path, json=body)
    assert made.status_code == 200
    assert made.get_json() == {
        "reason": "maintenance",
        "made": "2027-01-15T08:00:00.000Z",
        "until": "2027-01-15T09:00:00.000Z",
    }
    [marked] = [each for each in got(advisor.client, "/recommendations")["recommendations"] if each["snoozed"]]
    assert (marked["id"], marked["snoozed"]) == (id_, made.get_json())
    assert "maintenance" in advisor.client.get("/").text
    assert advisor.client.delete(path).status_code == 204
    assert advisor.client.delete(path).status_code == 404
    advisor.fails = True
    refused = advisor.client.post(path, json=body)
    assert (refused.status_code, "disk" in refused.get_json()["detail"]) == (503, True)


@pytest.mark.parametrize(
    ("body", "content_type", "status", "words"),
    [
        ('{"reason":"x","until":"2027-01-15T08:00:00Z"}', "application/json", 422, "in the future"),
        ('{"reason":"x","until":"2029-01-15T08:00:00Z"}', "application/json", 422, "a year from now"),
        ('{"reason":"x","until":"2027-01-15T09:00:00"}', "application/json", 422, "timezone"),
        ('{"reason":"","until":"2027-01-15T09:00:00Z"}', "application/json", 422, "/reason"),
        ('{"until":"2027-01-15T09:00:00Z"}', "application/json", 422, "/reason"),
        ('{"reason":"x","until":"2027-01-15T09:00:00Z","x":1}', "application/json", 422, "/x"),
        ("[]", "application/json", 422, ""),
        ("{", "application/json", 400, "JSON"),
        ("[" * 100_000, "application/json", 400, "JSON"),
        (b"\xff", "application/json", 400, "JSON"),
        ("reason=x", "application/x-www-form-urlencoded", 415, "application/json"),
        ('{"reason":"x","until":"2027-01-15T09:00:00Z"}', "text/plain", 415, "application/json"),
        ('"' + "x" * (1 << 20) + '"', "application/json", 413, ""),
    ],
)
def test_a_snooze_that_cannot_be(view: View, body: str | bytes, content_type: str, status: int, words: str) -> None:
    advisor = SnoozeRecorder(view)
    path = f"/recommendations/{view.issued[0].id}/snooze"
    answer = advisor.client.post(path, data=body, content_type=content_type)
    assert (answer.status_code, answer.content_type) == (status, "application/problem+json")
    assert words in answer.get_json()["detail"]
    assert advisor.view is view


def test_outcomes(view: View) -> None:
    reported = TrackedRecommendation("1", "scale_up", "up", Scope("pool", "s0"), "replicas", AT - 900, 2, 3, 0.95, 0.63)
    others = [dataclasses.replace(reported, id=str(n), scope=Scope("pool", "s1")) for n in (2, 3)]
    judged = [
        Outcome(ClosedRecommendation(each, AT - 600, 3.0), AT, OutcomeResult.APPLIED, 0.65, True, 0.02)
        for each in (reported, *others)
    ]
    verdict = Feedback("1", "scale_up", "dismissed", "a test of the load", "ada", AT - 700)
    client = client_of(dataclasses.replace(view, outcomes=NO_OUTCOMES.with_added(judged), feedback=(verdict,)))
    answer = got(client, "/outcomes?pool=s1&per_page=1")
    assert (answer["total"], [each["id"] for each in answer["outcomes"]]) == (2, ["3"])  # the newest first
    [one] = got(client, "/outcomes?pool=s0")["outcomes"]
    assert (one["result"], one["improved"], one["utilization_before_ratio"]) == ("applied", True, 0.95)
    assert one["given"] == "2027-01-15T07:45:00.000Z"
    text = client.get("/metrics").text
    assert 'gpu_advisor_outcomes_total{kind="scale_up",outcome="applied"} 3.0' in text
    assert "# TYPE gpu_advisor_projection_error_ratio summary" in text
    assert 'gpu_advisor_projection_error_ratio_count{kind="scale_up"} 3.0' in text
    assert 'gpu_advisor_projection_error_ratio_sum{kind="scale_up"} 0.06' in text
    assert one["feedback"]["reason"] == "a test of the load"
    page = client.get("/").text
    assert "Outcomes" in page
    assert (page.count("applied, improved"), page.count("applied, improved, dismissed")) == (3, 1)
    assert "applied, improved, dismissed" in client.get("/page/1", headers={"Accept": "text/html"}).text


def test_numbers_beyond_all_numbers_are_not_known(view: View) -> None:
    """JSON has no infinity, and a client's parser may refuse a word that looks like one."""
    projection = dataclasses.replace(view.issued[0].recommendation.projection, cost_change_per_hour=float("inf"))
    advice = dataclasses.replace(view.issued[0].recommendation, projection=projection)
    client = client_of(dataclasses.replace(view, issued=(PublishedRecommendation("1", AT, advice),)))
    [found] = got(client, "/recommendations")["recommendations"]
    assert found["projection"]["cost_change_per_hour"] is None
