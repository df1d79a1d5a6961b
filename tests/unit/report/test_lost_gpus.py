"""Lost GPUs in a report: hours and money, whether the period has seen them at work or not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from gpu_advisor.evaluation.engine import decide
from gpu_advisor.report.build import build_report
from gpu_advisor.report.markdown import render_markdown
from gpu_advisor.report.schema import Report
from gpu_advisor.report.usage_sections import summary_section
from gpu_advisor.settings import Settings
from gpu_advisor.state.view import PublishedRecommendation, SourceStatus, View

from tests.unit.advisor.builders import GpuSpec, facts, lost
from tests.unit.report.builders import END, PERIOD, GpuHistorySpec, history_of, steady_gpu

H100 = "NVIDIA H100 80GB HBM3"
#: 8 steps of half an hour.
HOURS = PERIOD.points * PERIOD.step_seconds / 3600


def report(
    history: list[GpuHistorySpec], since: float | None, name: str = H100, reason: str = "lost", **of_history: Any
) -> Report:
    """GPU-0 works, GPU-1 is lost; an H100 costs 3 USD an hour. `since`: when the loss was first reported; None: it is
    too early to recommend anything.
    """
    settings = Settings.model_validate({
        "cost": {"gpu_price_per_hour": {"H100": 3}, "list_prices": False},
        "pools": [{"name": "p", "kind": "training", "match": {"uuid": "GPU-0"}}, {"name": "q", "kind": "training"}],
    })  # fmt: skip
    cards = [GpuSpec("GPU-0", 0.9, name=H100), GpuSpec("GPU-1", None, None, memory=None, up=False, name=name)]
    known = lost(facts(cards, settings, down_reasons={"GPU-1": reason}), ["GPU-1"], 0.3 if since is None else 1.0)
    known = replace(known, at=END)
    evaluation = decide(known, settings)
    assert any(each.kind == "lost_gpu" for each in evaluation.recommendations) == (since is not None)
    issued = [PublishedRecommendation(each.id("c"), since or END, each) for each in evaluation.recommendations]
    source = SourceStatus("prometheus", "http://prometheus:9090", True, last_success=END)
    return build_report(history_of(history, **of_history), View("c", source, evaluation, tuple(issued)), settings)


def first_half(uuid: str) -> GpuHistorySpec:
    """Utilization is read in the first four of eight steps, two hours; the name all the time."""
    half = dict.fromkeys(range(PERIOD.points // 2), 0.5)
    return GpuHistorySpec(uuid, H100, utilization=half, coverage=dict.fromkeys(half, 1.0))


@pytest.mark.parametrize(
    ("history", "since", "hours"),
    [
        ([first_half("GPU-1")], END, HOURS / 2),  # a one-shot report knows no earlier time
        ([first_half("GPU-1")], END - 600, HOURS / 2),
        ([steady_gpu("GPU-1", name=H100)], END - 3600, 1.0),
        ([], END, HOURS),  # not read in the whole period
        ([], END - 1e6, HOURS),
        ([], None, HOURS),
        ([first_half("GPU-1")], None, HOURS / 2),
        ([GpuHistorySpec("GPU-1", H100)], None, HOURS),  # down all the time: no utilization at all
        ([GpuHistorySpec("GPU-1", H100, named=frozenset({6, 7}))], None, HOURS / 4),  # from its first sample
    ],
)
def test_lost_hours_and_their_money(history: list[GpuHistorySpec], since: float | None, hours: float) -> None:
    found = report([steady_gpu("GPU-0", name=H100), *history], since)
    fleet, *pools = found["groups"]
    assert fleet["lost"] == {"gpus": 1, "gpu_hours": hours, "cost": hours * 3, "unpriced_gpus": 0, "unknown_gpus": 0}
    assert {each["name"]: each["lost"]["gpus"] for each in pools} == {"p": 0, "q": 1}
    assert sum(each["lost"]["cost"] or 0.0 for each in pools) == fleet["lost"]["cost"]
    text = " ".join(summary_section(found).words)
    assert "1 GPU is lost" in text


@pytest.mark.parametrize("since", [END, None])
def test_a_gpu_read_in_the_last_step_is_lost_for_an_unknown_time(since: float | None) -> None:
    found = report([steady_gpu("GPU-0", name=H100), steady_gpu("GPU-1", name=H100)], since)
    lost = found["groups"][0]["lost"]
    assert lost == {"gpus": 1, "gpu_hours": None, "cost": None, "unpriced_gpus": 0, "unknown_gpus": 1}
    assert "1 GPU is lost: it is unknown for how long." in summary_section(found).words
    assert "| GPU-hours of lost GPUs | – |" in render_markdown(found)


def test_without_the_utilization_of_any_gpu_lost_hours_are_unknown() -> None:
    """Its query failed: that no GPU was read says nothing about this one."""
    found = report([GpuHistorySpec("GPU-1", H100)], END, values={}, unavailable=("GPU utilization: timeout",))
    assert found["groups"][0]["lost"]["gpu_hours"] is None


@pytest.mark.parametrize(("reason", "gpus"), [("lost", 1), ("hung", 1), ("no_permission", 0), ("", 0)])
def test_only_hardware_reasons_count(reason: str, gpus: int) -> None:
    lost = report([steady_gpu("GPU-0", name=H100)], None, reason=reason)["groups"][0]["lost"]
    assert (lost["gpus"], lost["gpu_hours"]) == (gpus, gpus * HOURS)


def test_no_hours_are_lost_before_the_first_data() -> None:
    """Of a history that begins with the period's sixth step, three of eight are known."""
    late = dict.fromkeys(range(5, PERIOD.points), 0.5)
    working = GpuHistorySpec("GPU-0", H100, utilization=late, coverage=dict.fromkeys(late, 1.0), named=frozenset(late))
    found = report([working], END)
    assert found["groups"][0]["lost"]["gpu_hours"] == pytest.approx(HOURS * 3 / 8)


def test_a_lost_gpu_without_a_price_costs_an_unknown_amount() -> None:
    found = report([steady_gpu("GPU-0", name=H100)], END, name="Odd GPU")
    lost = found["groups"][0]["lost"]
    assert (lost["cost"], lost["unpriced_gpus"]) == (None, 1)
    assert "which cost" not in next(line for line in summary_section(found).words if "lost" in line)


def test_a_fleet_of_which_all_is_lost_has_a_report() -> None:
    found = report([], END)
    assert found["groups"][0]["lost"]["gpus"] == 1
    assert found["groups"][0]["gpus"] == 0
