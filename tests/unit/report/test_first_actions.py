"""The three recommendations that save most money, linked to their evidence."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from gpu_advisor.evaluation.engine import decide
from gpu_advisor.evaluation.money import Interval
from gpu_advisor.report.build import build_report
from gpu_advisor.report.html import render_html
from gpu_advisor.report.markdown import render_markdown
from gpu_advisor.report.schema import Report
from gpu_advisor.settings import Settings
from gpu_advisor.state.active import Snooze
from gpu_advisor.state.view import PublishedRecommendation, SourceStatus, View

from tests.unit.advisor.builders import GpuSpec, facts, lost
from tests.unit.report.builders import END, history_of, report_of, steady_gpu

NAMES = {"A10": "NVIDIA A10", "L4": "NVIDIA L4", "T4": "Tesla T4", "H100": "NVIDIA H100 80GB HBM3"}
PRICES = {"A10": 1, "L4": 3, "T4": 2, "H100": 4}


def report(
    external_url: str = "", snoozed: str = "", stale: str = "", prices: bool = True, saves: Mapping[str, float] = {}
) -> Report:
    """A lost GPU of each model; the most expensive one has the lowest severity. `saves`: GPUs, where not 1."""
    settings = Settings.model_validate(
        {
            "cost": {"gpu_price_per_hour": PRICES if prices else {}, "list_prices": False},
            "web": {"external_url": external_url},
        }
    )
    cards = [
        GpuSpec(f"GPU-{short}", None, None, memory=None, up=False, name=name, node=f"node-{short}")
        for short, name in NAMES.items()
    ]
    uuids = [card.uuid for card in cards]
    known = lost(facts(cards, settings, down_reasons=dict.fromkeys(uuids, "lost")), uuids)
    evaluation = decide(known, settings)
    advice = [
        replace(each, severity="info") if each.gpus == ("GPU-H100",) else each for each in evaluation.recommendations
    ]
    for number, each in enumerate(advice):
        gpus = saves.get(each.gpus[0].removeprefix("GPU-"))
        if gpus is not None and each.savings is not None:
            advice[number] = replace(each, savings=replace(each.savings, gpus=Interval.exactly(gpus)))
    issued = tuple(
        PublishedRecommendation(
            each.id("c"),
            END,
            each,
            stale=each.gpus == (f"GPU-{stale}",),
            snoozed=Snooze("later", END, END + 60) if each.gpus == (f"GPU-{snoozed}",) else None,
        )
        for each in advice
    )
    view = View("c", SourceStatus("prometheus", "http://p", True, last_success=END), evaluation, issued)
    return build_report(history_of([steady_gpu("GPU-A10", name="NVIDIA A10")]), view, settings)


def first(document: Report) -> list[tuple[str, float | None]]:
    """Models and money, in their order."""
    return [
        (each["summary"].split()[0].removeprefix("node-"), each["savings_per_month"])
        for each in document["first_actions"]
    ]


def test_the_three_with_most_money_come_first_whatever_their_urgency() -> None:
    found = report()
    assert first(found) == [("H100", 4 * 730.0), ("L4", 3 * 730.0), ("T4", 2 * 730.0)]
    assert found["recommendations"][-1]["id"] == found["first_actions"][0]["id"]  # it is the least urgent


@pytest.mark.parametrize("left_out", [{"snoozed": "H100"}, {"stale": "H100"}])
def test_neither_snoozed_nor_stale_ones_are_to_do(left_out: dict[str, Any]) -> None:
    assert [name for name, _ in first(report(**left_out))] == ["L4", "T4", "A10"]


def test_without_prices_the_urgent_come_first_and_save_an_unknown_amount() -> None:
    found = report(prices=False)
    assert [each["id"] for each in found["first_actions"]] == [each["id"] for each in found["recommendations"][:3]]
    assert {money for _, money in first(found)} == {None}


def test_without_prices_those_that_save_most_gpus_come_first() -> None:
    found = first(report(prices=False, saves={"A10": 0.5, "L4": 3.0, "T4": 2.0, "H100": 0.2}))
    assert [name for name, _ in found] == ["L4", "T4", "A10"]


def test_a_column_without_a_word_is_left_out() -> None:
    """Nobody uses a lost GPU, and its money is exact."""
    assert "| recommendation | saves USD per month |" in render_markdown(report())


def test_each_leads_to_its_row_in_the_same_file() -> None:
    found = report()
    html = render_html(found)
    ids = [each["id"] for each in found["first_actions"]]
    assert re.findall(r'<a href="#recommendation-(\w+)">', html) == ids
    assert all(html.count(f'id="recommendation-{id_}"') == 1 for id_ in ids)
    assert html.index("Top recommendations by savings") < html.index("recommendation-")
    assert "](" not in render_markdown(found)


def test_each_leads_to_the_page_of_an_advisor_with_a_known_address() -> None:
    found = report("https://gpus.example.org/")
    urls = [f"https://gpus.example.org/recommendations/{each['id']}" for each in found["first_actions"]]
    assert [each["url"] for each in found["first_actions"]] == urls
    assert re.findall(r'<a href="([^"]*)">', render_html(found)) == urls
    assert re.findall(r"\]\(([^)]*)\)", render_markdown(found)) == urls


def test_without_recommendations_there_is_nothing_to_list() -> None:
    found = report_of([steady_gpu("GPU-0")])
    assert found["first_actions"] == []
    assert "Top recommendations by savings" not in render_html(found)
