"""A GPU's page: charts of its last day from few, bounded queries, and its owners as a band."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from html import unescape

import pytest
from gpu_advisor.evaluation import signals
from gpu_advisor.promql.expressions import Expression, Labels, Selector, TimeSeries
from gpu_advisor.web.page.day_charts import Curve, day_chart, owner_band
from gpu_advisor.web.page.evidence_history import MAX_CHARTS_PER_PAGE, RangeQuery, RangeRequest, RangeResult
from gpu_advisor.web.page.gpu_day import DAY_SECONDS, MIN_SHOWN_STEPS, POINTS, owner_lanes, steps_before_data
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.advisor.builders import AT
from tests.unit.advisor.test_api import whole
from tests.unit.advisor.test_page import client_of, range_empty, range_failing, text_of

ADDRESS = "/page/gpu?uuid=GPU-0"
OWNER = (("owner_kind", "kubernetes"), ("owner_namespace", "ml"), ("owner_pod", "train-0"), ("uuid", "GPU-0"))


class Recording:
    """A source with one sample per step, of which the first half has an owner."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, float, float, float]] = []

    def __call__(self, expression: Expression, start: float, end: float, step: float) -> Mapping[Labels, TimeSeries]:
        self.asked.append((str(expression), start, end, step))
        times = [start + index * step for index in range(POINTS + 1)]
        if "gpu_owner_info" in str(expression):
            return {OWNER: tuple((at, 1.0) for at in times[: POINTS // 2])}
        return {(("uuid", "GPU-0"),): tuple((at, 0.25) for at in times)}


def test_one_bounded_query_per_signal_and_none_the_second_time() -> None:
    source = Recording()
    client = client_of(whole(), ask=source)
    text = text_of(client, ADDRESS)
    assert 2 <= len(source.asked) <= MAX_CHARTS_PER_PAGE
    for expression, start, end, step in source.asked:
        assert "GPU-0" in expression
        assert (end, end - start) == (AT, DAY_SECONDS)
        assert (end - start) / step <= 300  # points of a response
    assert len({expression for expression, *_ in source.asked}) == len(source.asked)
    for title in ("Utilization", "Memory used", "Power draw", "SM clock", "Owners"):
        assert title in text
    before = len(source.asked)
    text_of(client, ADDRESS)
    assert len(source.asked) == before  # the past does not change


def test_the_owner_is_a_band_of_half_the_day() -> None:
    page = client_of(whole(), ask=Recording()).get(ADDRESS).text
    label = next(part for part in page.split('aria-label="') if part.startswith("Owners over"))
    assert unescape(label).startswith(f"Owners over 1 d: pod ml/train-0 {POINTS // 2} of {POINTS + 1} samples")


@pytest.mark.parametrize(
    ("ask", "shown"), [(range_failing, "see what keeps it busy"), (range_empty, "no samples in this period")]
)
def test_without_history_the_reason_is_shown_once(ask: RangeQuery, shown: str) -> None:
    text = text_of(client_of(whole(), ask=ask), ADDRESS)
    assert text.count(shown) == 1
    assert "Memory used" in text
    assert " 0 %" not in text.partition("Last day")[2].partition("Checks")[0]


@pytest.mark.parametrize(
    ("firsts", "unknown"),
    [([0, 7], 0), ([200, 250], 200), ([None, 200], 200), ([None], POINTS - MIN_SHOWN_STEPS),
     ([POINTS - 1], POINTS - MIN_SHOWN_STEPS), ([], 0)],
)  # fmt: skip
def test_charts_begin_with_the_data(firsts: list[int | None], unknown: int) -> None:
    request = RangeRequest(Selector("up"), 0.0, DAY_SECONDS, POINTS)
    results = [
        RangeResult(request, {(): tuple(None if first is None or step < first else 1.0 for step in range(POINTS + 1))})
        for first in firsts
    ]
    assert steps_before_data(results) == unknown


def test_the_scale_of_power_reaches_its_limit() -> None:
    def top(limit: float | None) -> str:
        return day_chart([Curve("power", (70.0, 70.0))], 0.0, 7200.0, "watts", "Power", limit)

    assert ">700 W<" in top(700.0)
    assert ">70 W<" in top(None)
    assert ">70 W<" in top(60.0)  # a limit that was lowered since does not cut the curve


def test_without_a_source_of_ranges_the_page_is_there() -> None:
    assert "no history for this GPU" in text_of(client_of(whole()), ADDRESS)


def test_series_of_one_owner_are_one_lane() -> None:
    """A restart of the exporter, or another process of the same pod, begins another series."""
    series: dict[Labels, tuple[float | None, ...]] = {
        (*OWNER, ("instance", "a")): (1.0, None, None, None),
        (*OWNER, ("instance", "b")): (None, None, 1.0, 1.0),
        (("owner_user", "bob"), ("uuid", "GPU-0")): (None, 1.0, None, None),
    }
    assert owner_lanes(series) == [
        ("pod ml/train-0", [True, False, True, True]),
        ("user bob", [False, True, False, False]),
    ]


points = st.lists(st.none() | st.floats(-1e12, 1e12), min_size=1, max_size=40).map(tuple)


@given(
    st.lists(points, min_size=1, max_size=4), st.sampled_from(sorted({signal.unit for signal in signals.SIGNALS})),
    st.sampled_from([3600.0, 86400.0, 7 * 86400.0]),
)  # fmt: skip
def test_a_chart_is_well_formed_and_within_its_frame(
    lines: Sequence[tuple[float | None, ...]], unit: str, span: float
) -> None:
    drawn = day_chart([Curve(f"<{n}>", line) for n, line in enumerate(lines)], AT - span, AT, unit, "a & b")
    known = [value for line in lines for value in line if value is not None]
    assert bool(drawn) == bool(known)
    if not known:
        return
    root = ElementTree.fromstring(drawn)
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    for line in root.iter("polyline"):
        for pair in line.attrib["points"].split():
            x, y = map(float, pair.split(","))
            assert 0 <= x <= width
            assert -1 <= y <= height + 1


names = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FFF, exclude_categories=["Cc", "Cs"]), max_size=90)
presence = st.lists(st.booleans(), min_size=30, max_size=30)


@given(st.lists(st.tuples(names, presence), max_size=5))
def test_the_band_has_a_block_for_each_stretch_of_an_owner(owners: Sequence[tuple[str, Sequence[bool]]]) -> None:
    drawn = owner_band(owners, AT - 3600, AT)
    stretches = sum(
        now and not before for _, present in owners for before, now in zip([False, *present], present, strict=False)
    )
    found = list(ElementTree.fromstring(drawn).iter("rect")) if owners else []
    assert len(found) == stretches
