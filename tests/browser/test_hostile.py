"""Names that somebody chose badly, or on purpose, and a source that fell silent: what a browser makes of the page."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from gpu_advisor.promql.expressions import Expression, Labels, TimeSeries
from gpu_advisor.state.view import SourceStatus
from gpu_advisor.web.page.bidi import right_to_left_names
from playwright.sync_api import expect

from tests.browser.conftest import Open
from tests.browser.test_page import PHONE, assert_no_horizontal_scroll, violations
from tests.browser.view_server import serve_view
from tests.unit.advisor.builders import AT, ExporterTarget, GpuSpec
from tests.unit.advisor.test_api import HOSTILE, view_of, whole


def level(expression: Expression, start: float, end: float, step: float) -> Mapping[Labels, TimeSeries]:
    return {(): tuple((start + index * step, 0.5) for index in range(round((end - start) / step) + 1))}


def test_hostile_labels_are_text(open_page: Open) -> None:
    cards = [
        GpuSpec(uuid, 0.0, node=name, name=name, index=name)
        for number, name in enumerate(HOSTILE.values())
        for uuid in (name, f"b{number}")
    ]
    view = view_of([ExporterTarget("a:1", cards)])
    assert len(view.issued) == len(HOSTILE)
    with serve_view(view, query_range=level) as url:
        for path in ("/", *(f"/page/{each.id}" for each in view.issued), "/page/what-if?gpu.min=0"):
            page = open_page(url + path, width=PHONE)
            assert assert_no_horizontal_scroll(page), path
            assert page.locator("script").count() == 1
            text = re.sub(r"\s+", " ", page.locator("body").text_content() or "")
            names = [each.recommendation.scope.name for each in view.issued if path.endswith((each.id, "/", "min=0"))]
            for name in names:
                # HTML has no NUL: a browser leaves it out of text.
                assert re.sub(r"\s+", " ", name.replace("\0", "")).strip() in text, path
        # The text after a right-to-left name still reads from left to right.
        page = open_page(url + "/")
        for name in right_to_left_names(HOSTILE.values()):
            bdi = page.locator("article.advice h3 bdi", has_text=name.replace("\0", "")).first
            order = bdi.evaluate("""each => {
                const at = (node) => { const range = document.createRange(); range.selectNodeContents(node);
                                       return range.getClientRects()[0].left; };
                return [each.previousSibling, each, each.nextSibling].map(at);
            }""")
            assert order == sorted(order)
        for path in ("/", "/page/what-if?gpu.min=0"):
            assert violations(open_page(url + path)) == [], path


def test_a_source_that_fell_silent(open_page: Open) -> None:
    view = whole()
    silent = SourceStatus("prometheus", "http://p:9090", False, "partial", "half an answer: see its log", AT - 90)
    with serve_view(dataclasses.replace(view, source=silent), query_range=level) as url:
        page = open_page(url + "/")
        expect(page.get_by_role("heading", level=1)).to_contain_text("The data source is down")
        expect(page.locator("#sources")).to_contain_text("partial")
        expect(page.locator("#state")).to_contain_text("half an answer: see its log")
        expect(page.locator("article.advice")).to_have_count(len(view.issued))
        page.goto(f"{url}/page/{view.issued[0].id}")
        expect(page.locator("#evidence")).to_contain_text("No chart: the data source is down")
        assert violations(page) == []
