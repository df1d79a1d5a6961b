"""SVG pieces that the page and the report share."""

from __future__ import annotations

from itertools import pairwise

from gpu_advisor.rendering import svg
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup


def test_what_is_not_markup_is_escaped() -> None:
    drawn = svg.drawing(10, 20.04, '"<b>', [svg.label(1, 2, "<i>", "end")])
    assert drawn == (
        '<svg class="plot" viewBox="0 0 10 20" role="img" aria-label="&#34;&lt;b&gt;">'
        '<text class="end" x="1" y="2">&lt;i&gt;</text></svg>'
    )
    assert svg.element("rect", fill='"') == Markup('<rect fill="&#34;"/>')


@given(st.lists(st.floats(0, 100), max_size=6))
def test_labels_stand_apart_and_in_order(heights: list[float]) -> None:
    spread = svg.spread_labels(heights, 13, 0, 100)
    placed = sorted(zip(spread, heights, strict=True))
    assert all(later[0] - former[0] >= 13 - 1e-9 for former, later in pairwise(placed))
    assert [height for _, height in placed] == sorted(heights)
    assert all(-1e-9 <= at <= 100 + 1e-9 for at in spread)


def test_labels_move_only_if_they_must_and_then_evenly() -> None:
    assert svg.spread_labels([10, 80], 13, 0, 100) == [10, 80]
    assert svg.spread_labels([52, 50], 13, 0, 100) == [57.5, 44.5]
    assert svg.spread_labels([99, 98], 13, 0, 100) == [100, 87]
