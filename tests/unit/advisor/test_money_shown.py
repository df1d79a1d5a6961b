"""Money in the API, in CSV and in the terminal: the same figures, in the same order."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from typing import Any

import pytest
from flask.testing import FlaskClient
from gpu_advisor.commands.money import MAX_GROUPS, format_savings, lost_by_group
from gpu_advisor.documents import schema
from gpu_advisor.documents.savings import Savings, savings_fields
from gpu_advisor.evaluation.money import Bound, Interval, Money
from gpu_advisor.evaluation.recommendation import Savings as Worth
from gpu_advisor.state.active import Snooze
from gpu_advisor.state.serialization import deserialize, serialize
from gpu_advisor.state.view import View

from tests.unit.advisor.builders import AT
from tests.unit.advisor.test_api import client_of, got, whole


@pytest.fixture(scope="module")
def view() -> View:
    """Four recommendations on pools of H100s at 2 USD, in the order in which a service publishes them."""
    found = whole()
    assert found.evaluation
    order = [each.id("c") for each in found.evaluation.recommendations]
    return replace(found, issued=tuple(sorted(found.issued, key=lambda each: order.index(each.id))))


@pytest.fixture(scope="module")
def client(view: View) -> FlaskClient:
    return client_of(view)


def test_json_and_csv_have_the_same_order_and_figures(client: FlaskClient) -> None:
    listed: list[dict[str, Any]] = got(client, "/recommendations")["recommendations"]
    rows = list(csv.DictReader(io.StringIO(client.get("/recommendations?format=csv").text)))
    for name in ("id", "savings_per_hour", "savings_per_month", "savings_bound", "currency", "estimated"):
        expected = ["" if each[name] is None else str(each[name]) for each in listed]
        assert [row[name] for row in rows] == [text.lower() if name == "estimated" else text for text in expected]
    assert any(each["savings_per_hour"] for each in listed)
    pages = [got(client, f"/recommendations?per_page=2&page={page}")["recommendations"] for page in (1, 2)]
    assert [each["id"] for each in listed] == [each["id"] for page in pages for each in page]


@pytest.mark.parametrize(
    ("per_hour", "shown", "per_month"), [(1.1 * 1.62, 1.782, 1300.86), (4.02 / 3, 1.34, 978.2), (2e-6, 2e-6, 0.0)]
)
def test_amounts_have_no_digits_of_binary_fractions(per_hour: float, shown: float, per_month: float) -> None:
    found = savings_fields(Worth(Interval.exactly(1.0), Money(Interval.exactly(per_hour), "USD")))
    assert (found["savings_per_hour"], found["savings_per_month"]) == (shown, per_month)


def test_the_summary_is_of_what_was_asked_for(client: FlaskClient) -> None:
    """The pool s2 releases one of two GPUs at 2 USD; its summary has nothing of the others."""
    one = got(client, "/recommendations?pool=s2")["summary"]
    assert (one["savings_per_hour"], one["savings_per_month"], one["savings_bound"]) == (2.0, 1460.0, "exact")
    assert [each["name"] for each in one["waste_by"]["pool"]] == ["s2"]
    both = got(client, "/recommendations")["summary"]
    assert both["savings_per_hour"] > one["savings_per_hour"]
    growing = got(client, "/recommendations?pool=s0")["summary"]
    assert (growing["savings_per_hour"], growing["currency"]) == (0.0, "USD")


def test_what_is_snoozed_is_in_no_sum(view: View) -> None:
    snoozed = replace(view, issued=tuple(replace(each, snoozed=Snooze("s", AT, AT + 60)) for each in view.issued))
    found = got(client_of(snoozed), "/recommendations")["summary"]
    assert (found["savings_per_hour"] or 0.0, found["waste_by"]["pool"]) == (0.0, [])


@pytest.mark.parametrize(
    ("amount", "estimated", "text", "short"),
    [
        (Interval.exactly(2.0), False, "2.00 USD per hour (1,460 USD per month)", "1,460 USD"),
        (Interval.at_most(2.0), False, "at most 2.00 USD per hour (1,460 USD per month)", "at most 1,460 USD"),
        (Interval(2.0), True, "at least 2.00 USD per hour (1,460 USD per month; estimate, list prices of 2026-09-20)",
         "at least 1,460 USD (estimate)"),
        (Interval(), False, "-", "-"),
    ],
)  # fmt: skip
def test_in_a_terminal(amount: Interval, estimated: bool, text: str, short: str) -> None:
    dates = ("2026-09-20", "2026-09-20") if estimated else ("", "")
    fields = savings_fields(Worth(Interval.exactly(1), Money(amount, "USD", estimated, *dates)))
    assert (format_savings(fields), format_savings(fields, short=True)) == (text, short)


def group(name: str, per_month: float | None, estimated: bool = False) -> schema.WasteGroupDocument:
    bound: Bound | None = None if per_month is None else "exact"
    return {"name": name, "gpus": 1.0, "per_hour": None, "per_month": per_month, "bound": bound, "estimated": estimated}


def test_who_loses_most_by_team_where_there_are_teams(client: FlaskClient) -> None:
    found: schema.MoneySummaryDocument = got(client, "/recommendations")["summary"]
    owners = [group(f"pod ml/p{n}", 1000.0 - n) for n in range(MAX_GROUPS + 2)]
    found["waste_by"] = {"owner": owners, "team": [group("no team", 9.0)], "namespace": [], "user": [],
                         "pool": [], "node": []}  # fmt: skip
    line = lost_by_group(found)
    assert line.startswith("Lost a month by owner: pod ml/p0: 1,000 USD; pod ml/p1: 999 USD")
    assert line.endswith("; 2 more")
    found["waste_by"]["team"] = [group("speech", 1460.0, estimated=True), group("vision", None)]
    assert lost_by_group(found) == "Lost a month by team: speech: 1,460 USD (estimate); vision: unknown"
    found["waste_by"]["owner"] = found["waste_by"]["team"] = []
    assert lost_by_group(found) == ""


def test_savings_survive_the_ledger(view: View) -> None:
    """A restart shows the same money until the first evaluation."""
    for each in view.issued:
        read = deserialize(type(each.recommendation), serialize(each.recommendation))
        assert read is not None
        assert (read.savings, read.waste, read.saves) == (
            each.recommendation.savings, each.recommendation.waste, each.recommendation.saves
        )  # fmt: skip
        assert Savings.of(read.savings) == Savings.of(each.recommendation.savings)
