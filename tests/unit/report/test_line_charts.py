"""Drawings by their coordinates: ticks, positions on the axes, gaps and target bands."""

from __future__ import annotations

import re
from itertools import pairwise
from math import log10

import pytest
from gpu_advisor.report.line_charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    SMALL_WIDTH,
    TOP,
    WIDTH,
    ChartLine,
    TimeAxis,
    count_chart,
    ratio_chart,
    time_ticks,
)
from gpu_advisor.report.schema import Band
from hypothesis import given
from hypothesis import strategies as st

DAY = 86400.0
AXIS = TimeAxis(10 * DAY, 17 * DAY, 4)
NUMBER = r"(-?[0-9.]+)"


def elements(drawing: str, name: str, kind: str = "") -> list[dict[str, str]]:
    found = [dict(re.findall(r'([a-z0-9-]+)="([^"]*)"', tag)) for tag in re.findall(rf"<{name}([ >][^>]*)>?", drawing)]
    return [each for each in found if not kind or each.get("class") == kind]


def texts(drawing: str, kind: str) -> list[str]:
    return re.findall(rf'<text class="{kind}"[^>]*>([^<]*)</text>', drawing)


def tick_values(highest: float) -> list[float]:
    drawing = count_chart(AXIS, "GPUs", [ChartLine("all", [0.0, highest, None, 0.0])])
    return [float(text.replace(",", "")) for text in texts(drawing, "end")]


@given(st.floats(0, 2_000_000))
def test_ticks_of_counts_are_few_whole_round_and_cover_the_highest(highest: float) -> None:
    ticks = tick_values(highest)
    step = ticks[1] - ticks[0]
    assert ticks == [step * i for i in range(len(ticks))]
    assert ticks[-1] >= highest * (1 - 1e-9)
    assert ticks[-2] < highest or len(ticks) == 2  # none more than needed
    assert len(ticks) <= 6  # with zero
    assert step >= 1
    factor = step / 10 ** int(log10(step) + 1e-9)
    assert round(factor, 6) in {1, 2, 5, 10}


@pytest.mark.parametrize(
    ("highest", "step"),
    [(0, 1), (1, 1), (5, 1), (5.1, 2), (10, 2), (10.1, 5), (25, 5), (26, 10), (50, 10), (51, 20), (100, 20), (101, 50)],
)
def test_the_step_is_the_smallest_for_five_ticks(highest: float, step: float) -> None:
    assert tick_values(highest)[1] == step


# Positions

INNER = WIDTH - LEFT - RIGHT


def test_times_and_values_have_their_place() -> None:
    assert (AXIS.x(10 * DAY), AXIS.x(17 * DAY)) == (LEFT, WIDTH - RIGHT)
    assert AXIS.x(11 * DAY) == pytest.approx(LEFT + INNER / 7)
    assert AXIS.middle(0) == pytest.approx(LEFT + INNER / 8)
    assert AXIS.middle(3) == pytest.approx(LEFT + INNER * 7 / 8)


def band(low: float | None, high: float | None) -> Band:
    return {"low": low, "high": high}


def y(ratio: float) -> float:
    return HEIGHT - BOTTOM - ratio * (HEIGHT - BOTTOM - TOP)


def test_a_ratio_is_drawn_from_0_to_100_percent_with_gaps() -> None:
    drawing = str(ratio_chart(AXIS, "GPU utilization", [0.0, 0.5, None, 1.0], band(None, None), None))
    assert texts(drawing, "end") == ["0 %", "25 %", "50 %", "75 %", "100 %"]
    (line,) = elements(drawing, "polyline", "line")
    points = [tuple(map(float, pair.split(","))) for pair in line["points"].split()]
    assert points == [pytest.approx((AXIS.middle(i), y(value)), abs=0.06) for i, value in ((0, 0.0), (1, 0.5))]
    (dot,) = elements(drawing, "circle", "line")  # a value alone
    assert float(dot["cx"]) == pytest.approx(AXIS.middle(3), abs=0.06)
    assert float(dot["cy"]) == pytest.approx(TOP, abs=0.06)
    (gap,) = elements(drawing, "rect", "gap")
    assert float(gap["x"]) == pytest.approx(LEFT + INNER / 2, abs=0.06)
    assert float(gap["width"]) == pytest.approx(INNER / 4, abs=0.06)


def test_labels_of_ticks_stand_beside_their_lines() -> None:
    drawing = str(ratio_chart(AXIS, "t", [0.5] * 4, band(None, None), None))
    lines = [float(each["y1"]) for each in elements(drawing, "line", "grid") if each["y1"] == each["y2"]]
    heights = [float(each["y"]) for each in elements(drawing, "text", "end")]
    assert lines == pytest.approx([y(tick / 4) for tick in range(5)], abs=0.06)
    assert [height - line for height, line in zip(heights, lines, strict=True)] == pytest.approx([4] * 5, abs=0.06)
    assert all(float(each["x"]) < LEFT for each in elements(drawing, "text", "end"))


@pytest.mark.parametrize(
    ("low", "high", "edges", "filled"),
    [
        (None, None, [], False),
        (0.0, 0.9, [], False),  # a target from zero on is none
        (0.9, None, [0.9], False),
        (0.9, 1.0, [0.9], False),  # up to all is open above
        (0.6, 0.85, [0.6, 0.85], True),
        (None, 0.9, [], False),
    ],
)
def test_the_target(low: float | None, high: float | None, edges: list[float], filled: bool) -> None:
    drawing = str(ratio_chart(AXIS, "t", [0.5] * 4, band(low, high), 0.5))
    lines = [float(each["y1"]) for each in elements(drawing, "line", "aim")]
    assert lines == pytest.approx([y(edge) for edge in edges], abs=0.06)
    rects = elements(drawing, "rect", "aim")
    assert bool(rects) is filled
    assert len(texts(drawing, "aim")) == bool(edges)
    if filled:
        box = [float(rects[0][name]) for name in ("x", "y", "width", "height")]
        assert box == pytest.approx([LEFT, y(0.85), INNER, y(0.6) - y(0.85)], abs=0.12)


def test_labels_at_the_ends_of_lines_do_not_overlap() -> None:
    lines = [ChartLine(f"pool {i}", [3.0, None, 4.0 + i / 100, None], f"line kind-{i}") for i in range(4)]
    drawing = str(count_chart(AXIS, "GPUs", lines))
    found = re.findall(rf'<text class="name line kind-(\d)" x="{NUMBER}" y="{NUMBER}">pool', drawing)
    heights = sorted(float(height) for _, _, height in found)
    assert len(heights) == 4
    assert min(b - a for a, b in pairwise(heights)) >= 14.9
    assert all(float(x) > WIDTH - RIGHT for _, x, _ in found)
    assert all(TOP <= height <= HEIGHT - BOTTOM + 4.1 for height in heights)


def test_an_area_reaches_down_to_zero_and_only_under_lines() -> None:
    drawing = str(count_chart(AXIS, "GPUs", [ChartLine("all", [1.0, 2.0, None, 2.0], filled=True)]))
    (area,) = elements(drawing, "polygon", "area")
    corners = [tuple(map(float, pair.split(","))) for pair in area["points"].split()]
    bottom = HEIGHT - BOTTOM
    assert corners[0] == pytest.approx((AXIS.middle(0), bottom), abs=0.06)
    assert corners[-1] == pytest.approx((AXIS.middle(1), bottom), abs=0.06)
    assert len(corners) == 4
    assert not elements(str(count_chart(AXIS, "GPUs", [ChartLine("all", [1.0, 2.0, 1.0, 2.0])])), "polygon")


# Ticks of time


@given(st.integers(0, 20_000), st.integers(300, 400 * 86400), st.integers(2, 12))
def test_ticks_of_time_are_whole_and_within_the_period(first: int, length: int, max_ticks: int) -> None:
    start = first * 86400 + 1234.0
    ticks = time_ticks(start, start + length, max_ticks)
    assert all(start <= at <= start + length for at in ticks)
    if len(ticks) > 1:
        step = ticks[1] - ticks[0]
        assert all(at % step == 0 for at in ticks)
        assert length / step <= max(max_ticks, length / (56 * 86400))
        assert ticks == [ticks[0] + step * i for i in range(len(ticks))]
        assert ticks[0] - step < start
        assert ticks[-1] + step > start + length


def test_the_smallest_distance_that_leaves_room_is_taken() -> None:
    assert time_ticks(0, 86400, 24) == [3600.0 * i for i in range(25)]
    assert time_ticks(0, 86400, 23) == [10800.0 * i for i in range(9)]
    assert time_ticks(0, 86400 * 7, 7) == [86400.0 * i for i in range(8)]


@pytest.mark.parametrize("width", [WIDTH, SMALL_WIDTH])
def test_days_are_named_at_midnight_and_hours_in_between(width: float) -> None:
    week = str(ratio_chart(TimeAxis(10 * DAY, 17 * DAY, 4, width), "t", [0.5] * 4, band(None, None), None))
    hours = str(ratio_chart(TimeAxis(10 * DAY, 10.5 * DAY, 4, width), "t", [0.5] * 4, band(None, None), None))
    assert all(re.fullmatch(r"(\w{3} )?\d\d \w{3}", text) for text in texts(week, "middle"))
    assert all((len(text) > 6) is (width == WIDTH) for text in texts(week, "middle"))
    first, *rest = texts(hours, "middle")
    assert "Jan" in first
    assert all(re.fullmatch(r"\d\d:\d\d", text) for text in rest)
    places = [float(each["x"]) for each in elements(week, "text", "middle")]
    marks = [float(each["x1"]) for each in elements(week, "line", "grid") if each["x1"] == each["x2"]]
    assert places == marks
    assert len(places) >= 3
