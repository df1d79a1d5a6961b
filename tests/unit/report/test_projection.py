"""A period scaled to a month of 730 hours: numbers worked out by hand, and none where there is too little data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from gpu_advisor.report.build import build_report
from gpu_advisor.report.html import render_html
from gpu_advisor.report.markdown import render_markdown
from gpu_advisor.report.period import ReportPeriod
from gpu_advisor.report.schema import Report
from gpu_advisor.report.sections import sections

from tests.unit.report.builders import END, PRICE_SETTINGS, GpuHistorySpec, history_of, view_of

#: Four days in half hours.
FOUR_DAYS = ReportPeriod(END, 1800, 192)


def report(cards: list[GpuHistorySpec]) -> Report:
    return build_report(replace(history_of(cards), period=FOUR_DAYS), view_of(), PRICE_SETTINGS)


def gpu(uuid: str, steps: Iterable[int], utilization: float = 0.5, coverage: float = 1.0, **of: Any) -> GpuHistorySpec:
    known = list(steps)
    return GpuHistorySpec(
        uuid,
        utilization=dict.fromkeys(known, utilization),
        coverage=dict.fromkeys(known, coverage),
        named=frozenset(known),
        **of,
    )


@pytest.mark.parametrize(
    ("steps", "data_hours"),
    [(range(192), 96.0), (range(96, 192), 48.0), (range(48), 24.0)],
)
def test_two_gpus_half_busy_for_a_month(steps: range, data_hours: float) -> None:
    """However much of the period has data: 2 GPUs for 730 hours at 2.50 USD."""
    found = report([gpu("GPU-0", steps, node="a"), gpu("GPU-1", steps, node="b")])["projection"]
    assert (found["data_hours"], found["data_ratio"]) == (data_hours, data_hours / 96)
    assert found["groups"][0] == {
        "kind": "fleet", "name": "fleet", "present": 1460.0, "busy": 730.0, "unused": 730.0,
        "unobserved": 0.0, "cost": 3650.0, "cost_unused": 1825.0, "cost_unobserved": 0.0,
    }  # fmt: skip
    assert [each["name"] for each in found["groups"]] == ["fleet", "chat", "NVIDIA H100"]


def test_a_gap_changes_no_rate() -> None:
    """A day of four without data: the GPU was present, and is projected to be as busy as while it was observed."""
    [fleet, *_] = report([gpu("GPU-0", [*range(48), *range(96, 192)])])["projection"]["groups"]
    assert (fleet["present"], fleet["busy"], fleet["unused"]) == pytest.approx((730, 365, 365))
    [fleet, *_] = report([gpu("GPU-0", range(192), coverage=0.25)])["projection"]["groups"]
    assert (fleet["present"], fleet["busy"], fleet["unused"]) == pytest.approx((730, 365, 365))


def test_what_one_gpu_of_two_lacks_is_unobserved() -> None:
    """GPU-1 has no data in the middle two days of four: a quarter of the GPU-hours is neither busy nor unused."""
    cards = [gpu("GPU-0", range(192), node="a"), gpu("GPU-1", [*range(48), *range(144, 192)], node="b")]
    document = report(cards)
    [fleet, *_] = document["projection"]["groups"]
    assert (fleet["present"], fleet["busy"], fleet["unused"], fleet["unobserved"]) == (1460, 547.5, 547.5, 365)
    assert (fleet["cost"], fleet["cost_unused"], fleet["cost_unobserved"]) == (3650, 1368.75, 912.5)
    assert document["groups"][0]["gpu_hours"]["unobserved"] == 48
    assert document["models"][0]["cost"]["unobserved"] == 120
    titles = ("By GPU model", "GPU-hours and cost per month")
    heads = {table.title: table.head for section in sections(document) for table in section.tables}
    assert all("of it unobserved" in heads[title] for title in titles)
    assert "unobserved" in heads["GPU-hours"]


def test_the_time_with_data_is_that_of_the_gpu_observed_longest() -> None:
    cards = [gpu("GPU-0", range(192), coverage=0.5), gpu("GPU-1", range(192), coverage=0.25)]
    for order in (cards, cards[::-1]):
        assert report(order)["projection"]["data_hours"] == 48.0


def test_a_gpu_of_one_day_counts_for_a_quarter_of_the_month() -> None:
    """Groups are scaled by the times of the fleet: the pools add up to it."""
    found = report([gpu("GPU-0", range(192), node="a"), gpu("GPU-1", range(48), node="b")])
    fleet, *pools = (dict[str, Any](each) for each in found["projection"]["groups"])
    assert [each["present"] for each in pools] == [730.0, 182.5]
    for name in ("present", "busy", "unused", "cost", "cost_unused"):
        assert sum(each[name] for each in pools) == pytest.approx(fleet[name])


def test_less_than_a_day_of_data_is_not_projected() -> None:
    document = report([gpu("GPU-0", range(47))])
    assert document["projection"]["groups"] == []
    for text in (render_html(document), render_markdown(document)):
        assert "No projection: 23.5 hours of this period have data, 24.5 % of the 4 days; it takes 24 hours." in text
    assert report([])["projection"]["groups"] == []


def test_an_unknown_price_is_an_unknown_cost() -> None:
    fleet = report([gpu("GPU-0", range(192), name="Odd GPU")])["projection"]["groups"][0]
    assert (fleet["present"], fleet["cost"], fleet["cost_unused"]) == (730.0, None, None)
