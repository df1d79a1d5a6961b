"""The page as people meet it: in a real Chromium, on a real advisor with a simulated fleet of every trouble."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser.conftest import KINDS, SETTINGS, Open
from tests.own_processes import Program, advisor, up
from tests.polling import wait_until
from tests.servers import free_port

SaveScreenshot = Callable[[Page, str], None]

PHONE = 390


def first_of(demo: Program, kind: str) -> Mapping[str, Any]:
    found = [each for each in demo.get("/recommendations")["recommendations"] if each["kind"] == kind]
    assert found, kind
    one: Mapping[str, Any] = found[0]
    return one


def addresses(demo: Program) -> list[str]:
    """One page of each sort."""
    ids = [first_of(demo, kind)["id"] for kind in ("idle_reclaim", "cooling")]
    checks = ("item=gpu_utilization&kind=fleet&of=fleet", "item=cost&kind=fleet&of=fleet")
    return [
        demo.url + "/",
        *(f"{demo.url}/page/{id_}" for id_ in ids),
        *(f"{demo.url}/page/check?{check}" for check in checks),
        f"{demo.url}/page/what-if",
        f"{demo.url}/page/what-if?gpu.min=0&price0=x&gpu.scale_down_threshold=95",
        f"{demo.url}/page/gpus?q=t4&group=node&sort=power",
        f"{demo.url}/page/gpu?uuid={first_of(demo, 'cooling')['gpus'][0]}",
        f"{demo.url}/page/jobs",
        f"{demo.url}/runbooks/",
        f"{demo.url}/runbooks/GpuDown",
    ]


def violations(page: Page) -> list[str]:
    """What axe-core finds that bars somebody from the page."""
    found = Axe().run(page).response["violations"]
    return [
        f"{each['impact']} {each['id']}: {[node['html'][:200] for node in each['nodes'][:3]]}"
        for each in found
        if each["impact"] in ("serious", "critical")
    ]


def reload_until(page: Page, text: str) -> None:
    """Renews the page, as it does by itself every 15 seconds, until it has this text."""
    wait_until(lambda: page.evaluate("refresh()") or text in page.inner_text("main"), text)


def assert_no_horizontal_scroll(page: Page) -> bool:
    """Nothing has to be scrolled sideways, but tables within their own frame."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))


def test_all_troubles_are_shown_what_is_broken_first(
    demo: Program, open_page: Open, screenshots: SaveScreenshot
) -> None:
    page = open_page(demo.url + "/")
    reported = demo.get("/recommendations")["recommendations"]
    assert {each["kind"] for each in reported} >= KINDS
    expect(page.get_by_role("heading", level=1)).to_contain_text(
        re.compile(
            rf"^1 GPU down; {len(reported)} recommendations, saving (about |at most |[0-9,]+ to )?[0-9,]+ USD a month$"
        )
    )
    for each in reported:
        expect(page.locator(f"#a-{each['id']}")).to_be_visible()
    articles = page.locator("article.advice")
    assert "critical" in str(articles.first.get_attribute("class"))
    expect(page.locator(".tile.missed", has_text="GPU utilization")).to_contain_text("too low")
    expect(articles.first).to_contain_text("is lost")  # no GPU without work
    assert page.locator("h3 .rank").all_inner_texts() == [f"{number}." for number in range(1, len(reported) + 1)]
    screenshots(page, "page")


def test_from_the_list_to_the_evidence(demo: Program, open_page: Open, screenshots: SaveScreenshot) -> None:
    page = open_page(demo.url + "/")
    reported = first_of(demo, "cooling")
    page.locator(f"#a-{reported['id']} a").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("thermally throttled")
    charts = page.locator("svg.chart")
    expect(charts.first).to_be_visible()
    assert page.locator("svg.chart polyline").count() >= 3
    assert "over 2 h" in str(charts.first.get_attribute("aria-label"))
    page.locator("summary", has_text="Query").first.click()
    expect(page.locator("#query-1 pre")).to_contain_text(re.compile(r"gpu_busy_seconds_total.*@ \d+"))
    expect(page.locator("#apply pre")).to_contain_text("nvidia-smi")
    page.locator("#query-1 summary").click()
    page.evaluate("scrollTo(0, 0)")
    screenshots(page, "page-evidence")


def test_a_check_leads_to_its_numbers_and_to_what_to_do(demo: Program, open_page: Open) -> None:
    page = open_page(demo.url + "/")
    page.locator(".tile a", has_text="GPU utilization").click()
    expect(page.locator("svg.chart")).to_be_visible()
    page.goto(demo.url + "/")
    page.locator("#gpus tbody td a.value").first.click()
    expect(page.locator("svg.chart")).to_be_visible()


def test_what_if_changes_the_answer_as_a_slider_moves(
    demo: Program, open_page: Open, screenshots: SaveScreenshot
) -> None:
    page = open_page(demo.url + "/page/what-if")
    answer = page.locator("#answer")
    expect(answer).to_contain_text("Change a value")
    slider = page.get_by_label("minimum GPUs per pool, slider").first
    slider.press("ArrowLeft")
    expect(answer).to_contain_text("Release 4 of 4 GPUs of Tesla T4")
    expect(answer).to_contain_text("0 GPUs instead of 1")
    assert "gpu.min=0" in page.url  # to hand on
    screenshots(page, "page-what-if")
    number = page.locator("input[name='gpu.scale_down_threshold']")
    number.fill("95")
    expect(answer).to_contain_text("must be below")
    number.fill("60")
    page.get_by_label("budget", exact=True).fill("-1")
    expect(page.locator(".problem")).to_contain_text("greater than 0")
    page.reload()
    expect(slider).to_have_value("0")


def test_a_filter_shows_its_gpus_while_somebody_types_and_can_be_handed_on(demo: Program, open_page: Open) -> None:
    page = open_page(demo.url + "/page/gpus")
    rows = page.locator("#gpu-results tbody tr")
    expect(rows).to_have_count(14)
    page.get_by_label("Search").fill("tesla t4")
    expect(rows).to_have_count(4)
    assert "q=tesla+t4" in page.url
    page.get_by_label("Group").select_option("model")
    expect(page.locator("tr.group")).to_contain_text("4 GPUs")
    page.locator("thead a", has_text="power").click()
    expect(page.locator("[aria-sort]")).to_have_text("power")
    expect(rows.filter(has_text="Tesla T4")).to_have_count(5)  # with the group's heading
    page.evaluate("refresh()")
    expect(page.get_by_label("Search")).to_have_value("tesla t4")


def test_a_filter_on_the_overview_needs_no_scripts(demo: Program, open_page: Open) -> None:
    page = open_page(demo.url + "/", java_script_enabled=False)
    page.get_by_label("Search").fill("h200")
    page.get_by_role("button", name="Apply").click()
    expect(page.locator("#gpu-results tbody tr")).to_have_count(2)
    page.get_by_label("Show").select_option("down")
    page.get_by_role("button", name="Apply").click()
    expect(page.locator("#gpu-results")).to_contain_text("No GPU matches")
    page.get_by_role("link", name="Show all").click()
    expect(page.locator("#gpu-results tbody tr")).to_have_count(14)


def test_a_gpu_has_its_last_day_and_its_runbook_is_here(demo: Program, open_page: Open) -> None:
    page = open_page(demo.url + "/")
    page.locator("#gpus tbody th a", has_text="GPU 0").first.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("GPU 0")
    expect(page.locator("#summary")).to_contain_text("thermal")
    for title in ("Utilization", "Memory used", "Power draw", "SM clock", "Throttled: share of time"):
        expect(page.locator("figure", has_text=title).locator("polyline").first).to_be_attached()
    page.locator("#advice a").click()
    page.get_by_role("link", name="Runbook", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("GpuAdvisorCooling")


def test_exports_are_in_a_menu(demo: Program, open_page: Open) -> None:
    page = open_page(demo.url + "/page/jobs")
    links = page.locator("#export a")
    expect(links.first).to_be_hidden()
    page.locator("#export summary").click()
    expect(links.first).to_be_visible()
    for link in links.all():
        assert page.request.get(str(link.evaluate("each => each.href"))).ok


def test_without_scripts_all_is_there(demo: Program, open_page: Open) -> None:
    page = open_page(demo.url + "/", java_script_enabled=False)
    reported = demo.get("/recommendations")["recommendations"]
    assert page.locator("article.advice").count() == len(reported)
    summary = page.locator("article.advice summary").first
    summary.click()
    expect(page.locator("article.advice pre").first).to_be_visible()
    page.get_by_role("link", name="What if", exact=True).click()
    expect(page.locator("input[type=range]")).to_have_count(0)  # a slider alone would show no number
    page.locator("input[name='gpu.min']").fill("0")
    page.get_by_role("button", name="Evaluate").click()
    expect(page.locator("#answer")).to_contain_text("Release 4 of 4 GPUs of Tesla T4")
    expect(page.locator("input[name='gpu.min']")).to_have_value("0")
    page.goto(f"{demo.url}/page/{first_of(demo, 'cooling')['id']}")
    assert page.locator("svg.chart").count() >= 3
    expect(page.locator("form.snooze")).to_be_hidden()
    expect(page.locator("summary", has_text="With curl")).to_be_visible()


def test_at_phone_width_nothing_is_cut_off(demo: Program, open_page: Open, screenshots: SaveScreenshot) -> None:
    for url in addresses(demo):
        page = open_page(url, width=PHONE, color_scheme="dark")
        assert assert_no_horizontal_scroll(page), url
        if url == demo.url + "/":
            screenshots(page, "page-phone")


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", PHONE)])
def test_axe_finds_nothing_serious(demo: Program, open_page: Open, scheme: str, width: int) -> None:
    for url in addresses(demo):
        page = open_page(url, width=width, color_scheme=scheme)
        page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        assert violations(page) == [], url


def test_with_the_keyboard_alone(demo: Program, open_page: Open) -> None:
    page = open_page(demo.url + "/")
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    summary = page.locator("article.advice summary").first
    summary.focus()
    page.keyboard.press("Enter")
    expect(page.locator("article.advice pre").first).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.locator("article.advice pre").first).to_be_focused()  # so that a long one can be scrolled


def test_what_is_open_stays_open_when_the_page_is_renewed(demo: Program, open_page: Open) -> None:
    page = open_page(demo.url + "/")
    page.locator("article.advice summary").first.click()
    page.evaluate("document.activeElement.blur()")
    page.evaluate(
        "document.querySelector('#todo').dataset.was = 'old'; document.querySelector('#todo p').textContent = ''"
    )
    page.evaluate("refresh()")
    expect(page.locator("#todo > article p").nth(1)).not_to_be_empty()
    expect(page.locator("article.advice pre").first).to_be_visible()


def test_a_snooze_from_the_page(open_page: Open, tmp_path: Path) -> None:
    there = (f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}", "2xH100-80GB:idle", SETTINGS)
    with up(tmp_path, *there) as program:
        page = open_page(program.url + "/", errors_expected=True)  # the browser logs errors for an unreachable advisor
        reload_until(page, "1 recommendation")
        page.locator("article.advice h3 a").click()
        page.get_by_label("reason").fill("<i>new</i> fans come")
        page.get_by_role("button", name="Snooze", exact=True).click()
        expect(page.locator("#summary .notice")).to_contain_text("<i>new</i> fans come")
        page.goto(program.url + "/")
        expect(page.locator("#snoozed")).to_contain_text("<i>new</i> fans come")
        expect(page.get_by_role("heading", level=1)).to_contain_text("1 recommendation snoozed")
        page.locator("#snoozed a").click()
        page.get_by_role("button", name="End snooze").click()
        expect(page.get_by_role("button", name="Snooze", exact=True)).to_be_visible()
        # Without an advisor, the page says so and keeps its content.
        program.stop()
        page.evaluate("refresh()")
        expect(page.locator("#away")).to_be_visible()
        expect(page.get_by_role("heading", level=1)).to_contain_text("Release")


def test_a_source_that_is_dead_is_reported_and_nothing_is_zero(open_page: Open, tmp_path: Path) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    config = {"source": {"prometheus": {"url": dead, "timeout_seconds": 1, "retries": 0}}}
    with advisor(tmp_path, f"127.0.0.1:{free_port()}", config) as program:
        page = open_page(program.url + "/")
        reload_until(page, "Check that it is running")
        expect(page.get_by_role("heading", level=1)).to_contain_text("No data from the source yet")
        expect(page.locator("#badges")).to_contain_text("down")
        assert page.locator("svg.meter, .tile, .value").count() == 0
        assert not re.search(r"\b0(\.0)? ?(%|GPUs|per hour)", page.locator("main").inner_text())
        assert violations(page) == []
