"""Several lost GPUs of a node in a real browser: one card, whole names on a phone, one snooze for all."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Route, expect

from tests.browser.conftest import Open
from tests.browser.view_server import serve_view
from tests.unit.advisor.test_advice_groups import lost_groups, view_with_lost


@pytest.mark.parametrize("width", [390, 1280])
def test_a_group_is_one_card_and_its_names_are_whole(open_page: Open, width: int) -> None:
    view = view_with_lost({"node-a": 3})
    with serve_view(view) as url:
        page = open_page(url, width=width)
        card = page.locator("article.advice").first
        expect(card.get_by_role("heading")).to_have_text(
            "1–3. 3 of 8 GPUs of node-a are lost: drain node-a and power-cycle it"
        )
        expect(card.locator("tbody tr")).to_have_count(3)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for name in card.locator("tbody td:nth-child(2) bdi, tbody td:nth-child(3) bdi").all():
            box = name.bounding_box()
            assert box
            assert box["height"] < 36, name.text_content()  # one line


def test_all_gpus_of_a_node_are_snoozed_at_once_or_one_alone(open_page: Open) -> None:
    view = view_with_lost({"node-a": 3})
    [group] = lost_groups(view)
    asked: list[str] = []

    def answer(route: Route) -> None:
        asked.append(re.findall(r"recommendations/(\w+)/snooze", route.request.url)[0])
        route.fulfill(status=204)

    with serve_view(view) as url:
        page = open_page(f"{url}/page/{group.ids[1]}")
        page.route("**/snooze", answer)
        for expected in ([*group.ids], [group.ids[1]]):
            asked.clear()
            form = page.locator("form[data-snooze]")
            form.get_by_label("reason").fill("spare parts arrive on Friday")
            if len(expected) == 1:
                form.get_by_label("all 3 of this node").uncheck()
            with page.expect_navigation():
                form.get_by_role("button", name="Snooze").click()
            assert asked == expected
