"""What a report says of its own limits: time without data, unknown checks, no budget, no GPUs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from gpu_advisor.evaluation.engine import decide
from gpu_advisor.report.advice_sections import checklist_section, missing_data_section
from gpu_advisor.report.build import build_report
from gpu_advisor.report.html import render_html
from gpu_advisor.report.period import ReportPeriod
from gpu_advisor.report.schema import Report
from gpu_advisor.report.usage_sections import headline, no_gpus_advice, summary_section
from gpu_advisor.settings import Settings
from gpu_advisor.state.view import PublishedRecommendation

from tests.unit.advisor.builders import GpuSpec, facts
from tests.unit.report.builders import END, GpuHistorySpec, history_of, report_of, steady_gpu, view_of


def evaluated(specs: list[GpuSpec], budget: float | None = None, price: float | None = 2, **more: Any) -> Report:
    """A report of these GPUs, each observed all the time."""
    prices = {} if price is None else {"NVIDIA H100": price}
    settings = Settings.model_validate(
        {"cost": {"gpu_price_per_hour": prices, "budget_per_hour": budget, "list_prices": False}}
    )
    evaluation = decide(facts(specs, settings, **more), settings)
    issued = tuple(PublishedRecommendation(each.id("c"), END, each) for each in evaluation.recommendations)
    past = history_of([steady_gpu(each.uuid) for each in specs])
    return build_report(past, replace(view_of(), evaluation=evaluation, issued=issued), settings)


@pytest.mark.parametrize(
    ("step", "points", "known", "coverage", "words"),
    [
        (1800, 336, 336, 1.0, ""),
        (1800, 336, 335, 1.0, "167.5 of 168 hours have data"),
        (1800, 336, 3, 0.8, "1.2 of 168 hours have data"),
        (1800, 336, 1, 0.01, "less than 0.1 of 168 hours have data"),
        (1800, 336, 336, 0.9999, ""),  # a missed scrape
        (300, 12, 6, 1.0, "30.0 of 60 minutes have data"),
        (300, 12, 12, 1.0, ""),
    ],
)
def test_the_headline_says_how_much_of_the_period_has_data(
    step: int, points: int, known: int, coverage: float, words: str
) -> None:
    steps = range(points - known, points)
    gpu = GpuHistorySpec(
        "GPU-0", utilization=dict.fromkeys(steps, 0.5), coverage=dict.fromkeys(steps, coverage), named=frozenset(steps)
    )
    past = replace(history_of([gpu]), period=ReportPeriod(END, step, points))
    text = headline(build_report(past, view_of(), Settings()))
    assert text.startswith("50.0 % of the observed GPU time was used" + (f" ({words}); " if words else "; "))


def test_a_gpu_that_was_never_read_is_present() -> None:
    document = report_of([steady_gpu("GPU-0"), GpuHistorySpec("GPU-1")])
    assert document["groups"][0]["gpus"] == 2
    [table, *_] = summary_section(document).tables
    rows = {row[0].text: row[1].text for row in table.rows}
    assert rows["GPUs present"] == "2"
    assert rows["data coverage since the first sample"] == "50.0 %"
    html = render_html(document)
    assert "GPUs observed" not in html
    assert "GPUs present and busy" in html


def test_nothing_is_called_complete_while_checks_are_unknown() -> None:
    document = evaluated([GpuSpec("GPU-0", None, None, memory=None)])
    words = missing_data_section(document).words
    unknown = [each for each in document["checks"]["items"] if each["status"] == "unknown" and each["item"] != "cost"]
    assert unknown
    for each in unknown:
        assert any(f"“{each['title']}”" in line and each["message"] in line for line in words)
    assert not any("No data is missing" in line for line in words)


def test_complete_data_is_said_to_be_complete_of_recommendations_only() -> None:
    document = evaluated([GpuSpec("GPU-0", 0.95)], budget=100)
    document["abstentions"], document["checks"] = [], {"counts": {}, "items": []}
    assert missing_data_section(document).words == ("No recommendation lacks data.",)
    document["groups"][0]["coverage_ratio"] = 0.337
    assert "33.7 %" in missing_data_section(document).words[0]
    document["at"] = None
    assert "no evaluation has succeeded" in missing_data_section(document).words[-1]


@pytest.mark.parametrize(
    ("budget", "price", "status"),
    [(None, 2, "no budget"), (None, None, "no budget"), (5, None, "unknown"), (5, 2, "met"), (1, 2, "missed")],
)
def test_the_status_of_the_cost(budget: float | None, price: float | None, status: str) -> None:
    document = evaluated([GpuSpec("GPU-0", 0.95)], budget, price)
    [table] = checklist_section(document).tables
    assert {row[2].text for row in table.rows if row[0].text == "cost"} == {status}
    assert any("“cost”" in line for line in missing_data_section(document).words) == (status == "unknown")


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({}, "The reason: no exporter metrics found: is an exporter scraped?"),
        ({"down_targets": ("node-a:9816",)}, "target node-a:9816 is down: check that the exporter runs there."),
        ({"nodes": {"node-a": {}}, "drivers": {"nvidia": frozenset({"absent"})}}, "driver absent: nvidia"),
    ],
)  # fmt: skip
def test_without_gpus_the_doctor_is_next(more: dict[str, Any], reason: str) -> None:
    document = evaluated([], **more)
    words = summary_section(document).words
    assert any(line.startswith("Run gpu-advisor doctor.") and reason in line for line in words)
    assert "--since" not in " ".join(words)
    [table] = checklist_section(document).tables
    assert {row[2].text for row in table.rows} == {"unknown"}  # not "no budget": there is nothing to pay for


def test_gpus_of_now_that_the_period_lacks_need_a_longer_period() -> None:
    document = evaluated([GpuSpec("GPU-0", 0.95)])
    document["groups"] = []
    assert "--since" in no_gpus_advice(document)


def test_money_has_its_currency() -> None:
    document = evaluated([GpuSpec(f"GPU-{number}", 0.0) for number in range(4)])
    html = render_html(document)
    assert "USD per month" in html
    assert html.count("per month") == html.count("USD per month") + html.count("GPU-hours and cost per month")


def test_a_file_has_no_link_back() -> None:
    document = report_of([steady_gpu("GPU-0")])
    assert "<nav" not in render_html(document)
    assert '<a href="./">' in render_html(document, home="./")
