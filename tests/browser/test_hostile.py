"""Names that somebody chose badly, or on purpose, and a source that fell silent: what a browser makes of the page."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

import pytest
from gpu_advisor.evaluation.owners import GpuOwner
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
            bdi = page.locator("#todo a bdi", has_text=name.replace("\0", "")).first
            order = bdi.evaluate("""each => {
                const at = (node) => { const range = document.createRange(); range.selectNodeContents(node);
                                       return range.getClientRects()[0].left; };
                return [each.previousSibling, each, each.nextSibling].map(at);
            }""")
            assert order == sorted(order)
        for path in ("/", "/page/what-if?gpu.min=0"):
            assert violations(open_page(url + path)) == [], path


POD, NODE = "notebook-" + "a1b2c3d4" * 6 + "-x9y8z", "gpu-node-17.rack-4.cluster-b.europe-west4.example.org"


@pytest.mark.parametrize("width", [PHONE, 640])  # 640: a window of 1280 at 200 % zoom
def test_long_names_in_any_script_break_no_page(open_page: Open, width: int) -> None:
    cards = [
        GpuSpec(f"GPU-{number}-{turn}", 0.0, node=node, index=str(turn))
        for number, node in enumerate((NODE, "计算节点-一号机架-深度学习训练集群", "عقدة-التدريب-الأولى"))
        for turn in (0, 1)
    ]
    view = view_of([ExporterTarget("a:1", cards)])
    assert view.evaluation
    names = (POD, "笔记本-用户-深度学习-实验-二〇二六", "مختبر/دفتر-الملاحظات-الطويل-جدا")
    owners = {card.uuid: (GpuOwner(namespace="team", pod=names[n % 3]),) for n, card in enumerate(cards)}
    facts = dataclasses.replace(view.evaluation.facts, owners=owners)
    view = dataclasses.replace(view, evaluation=dataclasses.replace(view.evaluation, facts=facts))
    paths = ["/", "/page/gpus?group=owner", "/page/jobs", f"/page/gpu?uuid={cards[0].uuid}", "/page/what-if?gpu.min=0"]
    with serve_view(view, query_range=level) as url:
        for path in (*paths, *(f"/page/{each.id}" for each in view.issued)):
            page = open_page(url + path, width=width)
            assert assert_no_horizontal_scroll(page), path
        page = open_page(f"{url}/page/jobs", width=width)
        for name in names:
            assert name in page.inner_text("main")


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
