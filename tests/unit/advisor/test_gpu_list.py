"""The list of GPUs: every filter, order and page against a plain model of it, and what is unknown."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

import pytest
from gpu_advisor.evaluation import signals
from gpu_advisor.evaluation.owners import NO_OWNER, GpuOwner
from gpu_advisor.evaluation.recommendation import CheckStatus
from gpu_advisor.state.view import View
from gpu_advisor.web.page import gpu_list
from gpu_advisor.web.page.gpu_list import GpuList, GpuQuery, GpuRow, PartialMean, parse
from gpu_advisor.web.page.gpu_rows import mean_text
from gpu_advisor.web.page.job_list import job_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.advisor.builders import ExporterTarget, GpuSpec
from tests.unit.advisor.test_api import view_of, whole
from tests.unit.advisor.test_page import client_of, text_of


def fleet(count: int = 12) -> View:
    """Nodes n1, n2, n10 with GPUs of which some are idle, some owned, one is hot and one is down."""
    cards = [
        GpuSpec(f"GPU-{number}", None if number % 5 == 3 else 0.1 * (number % 7), node=f"n{(1, 2, 10)[number % 3]}",
                index=str(number // 3), up=number != 7)
        for number in range(count)
    ]  # fmt: skip
    view = view_of([ExporterTarget("a:1", cards)])
    assert view.evaluation
    facts = view.evaluation.facts
    values = {name: dict(found) for name, found in facts.values.items()}
    values[signals.TEMPERATURE.name] = {"GPU-2": 84.0, "GPU-5": 60.0}
    values[signals.THROTTLE_SW_THERMAL.name] = {"GPU-2": 0.25, "GPU-4": 0.001}
    owners = {
        "GPU-1": (GpuOwner(namespace="ml", pod="train-0", kind="kubernetes"),),
        "GPU-4": (GpuOwner(user="alice"), GpuOwner(user="bob")),
        "GPU-10": (GpuOwner(namespace="ml", pod="train-0", kind="kubernetes"),),
    }
    facts = dataclasses.replace(facts, values=values, owners=owners, down_reasons={"GPU-7": "lost"})
    return dataclasses.replace(view, evaluation=dataclasses.replace(view.evaluation, facts=facts))


VIEW = fleet()
LIST = GpuList(VIEW)


def names(query: GpuQuery, gpus: GpuList = LIST) -> list[str]:
    return [gpus.rows[number].gpu.uuid for number in gpus.page(query).rows]


@pytest.mark.parametrize(
    ("query", "first", "found"),
    [
        ({"sort": "gpu"}, ["GPU-0", "GPU-3", "GPU-6", "GPU-9", "GPU-1"], 12),  # n1, n1, n1, n1, n2: not n10
        ({"sort": "gpu", "reverse": "1"}, ["GPU-11"], 12),
        ({"sort": "temperature"}, ["GPU-2", "GPU-5"], 12),
        ({"sort": "temperature", "reverse": "1"}, ["GPU-5", "GPU-2"], 12),
        ({}, ["GPU-7"], 12),  # what is down comes first
        ({"show": "down"}, ["GPU-7"], 1),
        ({"show": "throttled"}, ["GPU-2"], 1),
        ({"q": "ML/train-0"}, ["GPU-1", "GPU-10"], 2),
        ({"q": "train n2"}, ["GPU-1", "GPU-10"], 2),
        ({"q": "train n10"}, [], 0),
        ({"q": "bob"}, ["GPU-4"], 1),
        ({"sort": "owner"}, ["GPU-1", "GPU-10", "GPU-4"], 12),
        ({"sort": "nonsense", "group": "?", "show": "x", "page": "-1", "per_page": "x"}, ["GPU-7"], 12),
        ({"page": "99", "per_page": "5", "sort": "gpu"}, ["GPU-8", "GPU-11"], 12),  # the last page instead of none
    ],
)
def test_filters_and_orders(query: dict[str, str], first: Sequence[str], found: int) -> None:
    page = LIST.page(parse(query))
    assert names(parse(query))[: len(first)] == list(first)
    assert (page.found, page.total) == (found, 12)


@settings(max_examples=60)
@given(
    sort=st.sampled_from(sorted(gpu_list.COLUMNS)), group=st.sampled_from(sorted(gpu_list.GROUPS)),
    show=st.sampled_from(sorted(gpu_list.SHOWN)), reverse=st.booleans(), per_page=st.integers(1, 13),
    search=st.sampled_from(["", "n1", "gpu", "a e", "zzz"]),
)  # fmt: skip
def test_the_pages_of_a_query_are_its_gpus_once(
    sort: str, group: str, show: str, reverse: bool, per_page: int, search: str
) -> None:
    query = GpuQuery(search, show, sort, reverse, group, 1, per_page)
    expected = [row for row in LIST.rows if gpu_list.SHOWN[show][1](row)
                and all(word in row.search_text for word in search.split())]  # fmt: skip
    pages = [LIST.page(dataclasses.replace(query, page=number + 1)) for number in range(LIST.page(query).pages)]
    seen = [LIST.rows[number] for page in pages for number in page.rows]
    assert sorted(row.gpu.uuid for row in seen) == sorted(row.gpu.uuid for row in expected)
    key = gpu_list.COLUMNS[sort].key
    for members in groups_of(seen, group):
        values = [key(row) for row in members]
        known = [value for value in values if value is not None]
        assert values[: len(known)] == known  # what is not known comes last
        assert known == sorted(known, reverse=gpu_list.COLUMNS[sort].highest_first != reverse)
    headings = [heading for page in pages for heading in page.groups.values()]
    assert len([each for each in headings if not each.continued]) == (
        0 if group == "none" else len({gpu_list.GROUPS[group][1](row) for row in seen})
    )


def groups_of(rows: Sequence[GpuRow], group: str) -> list[list[GpuRow]]:
    found: dict[str, list[GpuRow]] = {}
    for row in rows:
        found.setdefault(gpu_list.GROUPS[group][1](row), []).append(row)
    return list(found.values())


@given(st.dictionaries(st.sampled_from(["q", "show", "sort", "reverse", "group", "page", "per_page"]), st.text()))
def test_any_query_string_is_a_query_and_its_link_gives_it_back(arguments: dict[str, str]) -> None:
    query = parse(arguments)
    found = dict(re.findall(r"(\w+)=([^&]*)", query.link()))
    from urllib.parse import unquote_plus

    assert parse({name: unquote_plus(value) for name, value in found.items()}) == query


def test_a_heading_has_the_mean_of_what_its_rows_show() -> None:
    page = LIST.page(parse({"group": "node", "sort": "gpu"}))
    for group in page.groups.values():
        checks = [row.checks["gpu_utilization"] for row in LIST.rows if row.gpu.node == group.name]
        shown = [check.value for check in checks if check.status is not CheckStatus.UNKNOWN]
        assert (group.utilization.known, group.utilization.total) == (len(shown), len(checks))
        assert (group.utilization.value is None) == (not shown)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([0.5, 0.7], "60 %"),
        ([0.0, None, None], "0 % (1 of 3)"),  # not a mean of 3
        ([None, None], "–"),
        ([], "–"),
    ],
)
def test_a_mean_has_its_number_of_gpus(values: Sequence[float | None], text: str) -> None:
    assert mean_text(PartialMean.of(values)) == text


def test_the_page_of_the_list_and_its_rows() -> None:
    client = client_of(VIEW)
    text = text_of(client, "/page/gpus?q=train-0&sort=gpu")
    assert "2 of 12 GPUs match" in text
    assert "pod ml/train-0" in text
    assert "GPU-2" not in text
    answer = client.get("/page/gpus?sort=gpu&per_page=2&page=2").text
    assert answer.count('<th scope="row">') == 2
    assert 'href="../page/gpus?sort=gpu&amp;page=3&amp;per_page=2" rel="next"' in answer
    assert "84 °C" in text_of(client, "/page/gpus?show=throttled")
    assert "No GPU matches" in text_of(client, "/page/gpus?q=zzz")
    assert "down: lost" in text_of(client, "/page/gpus?show=down")


def test_rows_are_those_of_the_view_that_is_shown() -> None:
    views = [fleet(3), fleet(6)]
    client = client_of(views[0])
    from gpu_advisor.web.api.app import ApiContext, create_app

    current = [views[0]]
    client = create_app(ApiContext(lambda: current[0], lambda: (), lambda _id, _snooze: None)).test_client()
    assert client.get("/page/gpus").text.count('<th scope="row"') == 3
    current[0] = views[1]
    assert client.get("/page/gpus").text.count('<th scope="row"') == 6


def test_jobs_are_sums_of_their_gpus() -> None:
    rows = {row.name: row for row in job_rows(LIST)}
    assert [each.gpu.uuid for each in rows["pod ml/train-0"].gpus] == ["GPU-1", "GPU-10"]
    assert rows["pod ml/train-0"].utilization.value == pytest.approx((0.1 + 0.3) / 2)
    assert rows["user alice, user bob"].gpus[0].gpu.uuid == "GPU-4"
    assert sum(len(row.gpus) for row in rows.values()) == 12
    without = rows[NO_OWNER].utilization
    assert without.known < without.total == len(rows[NO_OWNER].gpus)  # of some of them nothing is known
    text = text_of(client_of(VIEW), "/page/jobs")
    assert "pod ml/train-0" in text
    assert "user alice, user bob" in text


def test_every_gpu_has_its_page() -> None:
    view = whole()
    assert view.evaluation
    client = client_of(view)
    for gpu in view.evaluation.facts.gpus:
        assert str(gpu.scope) in text_of(client, f"/page/gpu?uuid={gpu.uuid}")
    assert "This GPU is down" in text_of(client, "/page/gpu?uuid=GPU-lost")
    text_of(client, "/page/gpu?uuid=none", 404)
