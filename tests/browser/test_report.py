"""The report as people meet it: a file in a real Chromium, on a screen, in the dark, on a telephone and on paper."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from gpu_advisor.evaluation.facts import Gpu
from gpu_advisor.evaluation.owners import GpuOwner
from gpu_advisor.report import series
from gpu_advisor.report.build import build_report
from gpu_advisor.report.fleet_history import FleetHistory
from gpu_advisor.report.html import render_html as rendered
from gpu_advisor.report.period import ReportPeriod
from gpu_advisor.report.schema import Report
from gpu_advisor.settings import Settings
from gpu_advisor.state.view import PublishedRecommendation
from playwright.sync_api import Page, expect

from benchmarks.week_generator import DAY, NODE_PROFILES, PRICES, is_exporter_down, is_node_removed, utilization
from tests.browser.conftest import Open
from tests.browser.test_page import PHONE, assert_no_horizontal_scroll, violations
from tests.own_processes import Program
from tests.unit.advisor.builders import AT, GpuSpec, concluded
from tests.unit.report.builders import END, outcome, view_of

SaveScreenshot = Callable[[Page, str], None]

NODES, GPUS_A_NODE = 5, 8
OWNERS = (GpuOwner("vision", "train", user="ann"), GpuOwner("speech", "asr", user="bob"))
WEEK = ReportPeriod(END // DAY * DAY, 1800, 336)
SETTINGS = Settings.model_validate(
    {
        "cluster": "example",
        "cost": {"gpu_price_per_hour": PRICES},
        "pools": [
            {"name": "chat", "kind": "serving", "match": {"name": ".* L4"}},
            {"name": "notebooks", "match": {"name": ".* T4"}},
            {"name": "training", "kind": "training"},
        ],
    }
)


def week(load: float = 1.0) -> FleetHistory:
    """The benchmarks' week, as it would be read; `load` times as busy."""
    gpus, named = [], {}
    mean: dict[str, dict[int, float]] = {}
    memory: dict[str, dict[int, float]] = {}
    for number in range(NODES * GPUS_A_NODE):
        node, uuid = number // GPUS_A_NODE, f"GPU-{number}"
        work = NODE_PROFILES[node % len(NODE_PROFILES)]
        gpus.append(Gpu(uuid, str(number % GPUS_A_NODE), work.model, "nvidia", f"node-{node}", True))
        middles = {index: (index + 0.5) * WEEK.step_seconds for index in range(WEEK.points)}
        seen = {
            i: at
            for i, at in middles.items()
            if not is_exporter_down(node, at) and not is_node_removed(node, NODES, at)
        }
        mean[uuid] = {i: load * utilization(work, at, number) for i, at in seen.items()}
        memory[uuid] = dict.fromkeys(seen, work.held)
        named[uuid] = frozenset(seen)
    values = {
        series.UTILIZATION: mean,
        series.COVERAGE: {uuid: dict.fromkeys(steps, 1.0) for uuid, steps in mean.items()},
        series.MEMORY: memory,
    }
    cpu = {f"node-{node}": {i: 0.2 + 0.5 * m for i, m in mean[f"GPU-{node * 8}"].items()} for node in range(NODES)}
    sightings = {uuid: (min(steps), max(steps)) for uuid, steps in named.items()}
    owners = {
        uuid: dict.fromkeys(steps, frozenset({OWNERS[number % len(OWNERS)]}))
        for number, (uuid, steps) in enumerate(mean.items())
    }
    known = dict.fromkeys(owners, frozenset(range(WEEK.points)))
    return FleetHistory(WEEK, tuple(gpus), sightings, named, values, cpu, owners, known)


@pytest.fixture(scope="module")
def document() -> Report:
    trail = tuple((AT - 60 * step, 0.95) for step in reversed(range(16)))
    cards = [GpuSpec(f"GPU-s{n}", 0.95, name="NVIDIA L4", trail=trail) for n in range(4)]
    cards += [GpuSpec(f"GPU-t{n}", 0.0, name="Tesla T4", node="node-4") for n in range(3)]
    evaluation = replace(concluded(cards, SETTINGS), at=END)
    issued = tuple(
        PublishedRecommendation(each.id("example"), END - 3 * DAY, each) for each in evaluation.recommendations
    )
    view = replace(view_of(outcome(0.42, 0.84, 0.81)), cluster="example", evaluation=evaluation, issued=issued)
    before = replace(week(load=0.85), period=WEEK.before())
    return build_report(week(), view, SETTINGS, before=before)


@pytest.fixture(scope="module")
def file(document: Report, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(rendered(document), encoding="utf-8")
    return path.as_uri()


def test_a_week_opens_from_a_file_and_says_how_it_was(file: str, open_page: Open, screenshots: SaveScreenshot) -> None:
    page = open_page(file)
    expect(page.get_by_role("heading", level=1)).to_have_text("GPU report of cluster example")
    expect(page.locator("#summary .lead")).to_contain_text("of the observed GPU time was used")
    plots = page.locator("svg.plot")
    assert plots.count() == 4 + 3 + 1 + 1
    for number in range(plots.count()):
        expect(plots.nth(number)).to_be_visible()
        assert len(str(plots.nth(number).get_attribute("aria-label"))) > 30
    notebooks = page.locator("svg.plot[aria-label^='GPU utilization of notebooks']")
    assert "no data for" in str(notebooks.get_attribute("aria-label"))
    expect(page.get_by_role("region", name="By namespace")).to_contain_text("better")
    expect(page.locator("#outcomes")).to_contain_text("42.0 %")
    expect(page.locator("#advice")).to_contain_text("chat")
    page.set_viewport_size({"width": 1100, "height": 1480})
    screenshots(page, "report")


@pytest.mark.parametrize("options", [{}, {"color_scheme": "dark"}, {"width": PHONE}])
def test_nobody_is_barred_from_it(file: str, open_page: Open, options: dict[str, object]) -> None:
    page = open_page(file, **options)
    assert violations(page) == []
    assert assert_no_horizontal_scroll(page)


def test_on_paper_it_needs_no_colour_and_no_dark_ground(file: str, open_page: Open, tmp_path: Path) -> None:
    page = open_page(file, color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    line = page.locator("svg.plot polyline.line").first
    assert line.evaluate("e => getComputedStyle(e).stroke") == "rgb(0, 0, 0)"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    seen = page.locator("svg.plot polyline.present").first
    assert seen.evaluate("e => getComputedStyle(e).strokeDasharray") != "none"
    expect(page.locator("dl.code")).to_be_hidden()
    page.set_viewport_size({"width": 690, "height": 1000})  # what A4 has between its margins
    assert page.evaluate("[...document.querySelectorAll('table')].every(t => t.getBoundingClientRect().right < 691)")
    assert page.pdf(path=tmp_path / "report.pdf", prefer_css_page_size=True).startswith(b"%PDF")


def test_a_running_advisor_links_its_own(demo: Program, open_page: Open) -> None:
    page = open_page(demo.url + "/")
    page.get_by_role("link", name="Report", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("GPU report of cluster")
    expect(page.locator("#summary")).to_contain_text("These GPUs are simulated")
    assert page.locator("svg.plot polyline").count() >= 4
    page.get_by_role("link", name="Overview", exact=True).click()
    expect(page).to_have_url(demo.url + "/")
    page.go_back()
    reported = demo.get("/report?since_seconds=10800")
    assert {each["kind"] for each in reported["recommendations"]}
    assert reported["groups"][0]["gpu_hours"]["observed"] > 0
    assert violations(page) == []
