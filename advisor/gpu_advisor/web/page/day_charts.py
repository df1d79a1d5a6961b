"""A GPU's last day as charts: curves over time, and its owners as a band. Drawn from ranges; reads nothing itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from markupsafe import Markup

from gpu_advisor.rendering import svg
from gpu_advisor.rendering.durations import duration
from gpu_advisor.web.page.evidence_history import Points
from gpu_advisor.web.page.template_filters import time_of_day, value_text

WIDTH, HEIGHT = 820.0, 132.0
AREA = svg.PlotArea(left=64.0, right=WIDTH - 190.0, top=8.0, bottom=HEIGHT - 20.0)
LANE_HEIGHT = 22.0

#: Owners in the band; a GPU that a job queue shares has hundreds a day.
MAX_OWNERS = 8

_TICK_SECONDS = (900, 3600, 3 * 3600, 6 * 3600)
_MAX_TICKS = 8


@dataclass(frozen=True, slots=True)
class Curve:
    """A named line of a chart, with values at equal steps."""

    name: str
    points: Points


def day_chart(
    curves: Sequence[Curve], start: float, end: float, unit: str, title: str, limit: float | None = None
) -> Markup:
    """Curves on one scale from zero, up to `limit` at least. A gap in the data is a gap in the line."""
    known = [value for curve in curves for value in curve.points if value is not None]
    if not known:
        return Markup("")
    low, high = _scale(known if limit is None else [*known, limit], unit)

    def y(value: float) -> float:
        return AREA.y((value - low) / (high - low))

    elements = [*_time_axis(start, end, HEIGHT), *_value_axis(low, high, unit)]
    for number, curve in enumerate(curves):
        last = max(1, len(curve.points) - 1)
        for part in svg.segments(curve.points):
            elements.append(
                svg.curve([(AREA.x(at / last), y(value)) for at, value in part], f"line line-{number}", 1.5)
            )
    ends = [(last_known(curve.points), curve.name, number) for number, curve in enumerate(curves)]
    labels = [(value, name, number) for value, name, number in ends if value is not None]
    heights = svg.spread_labels([y(value) + 4 for value, _, _ in labels], 13, AREA.top + 4, AREA.bottom + 4)
    for at, (value, name, number) in zip(heights, labels, strict=True):
        text = value_text(value, unit) if len(curves) == 1 else f"{name} {value_text(value, unit)}"
        elements.append(svg.label(AREA.right + 6, at, text, f"now now-{number}"))
    return svg.drawing(WIDTH, HEIGHT, _describe(curves, start, end, unit, title), elements, "chart day")


def owner_band(owners: Sequence[tuple[str, Sequence[bool]]], start: float, end: float) -> Markup:
    """A lane for each owner: when it used the GPU, at equal steps."""
    if not owners:
        return Markup("")
    height = LANE_HEIGHT * len(owners) + 28
    elements = list(_time_axis(start, end, height))
    for lane, (name, present) in enumerate(owners):
        top = 6 + lane * LANE_HEIGHT
        for left, right in _stretches(present):
            width = max(2.0, AREA.x(right) - AREA.x(left))
            elements.append(svg.rect(AREA.x(left), top, width, LANE_HEIGHT - 6, f"owner owner-{lane % 4}"))
        elements.append(svg.label(AREA.left + 4, top + 12, name if len(name) <= 80 else f"{name[:79]}…", "owner-name"))
    shares = (f"{name} {sum(present)} of {len(present)} samples" for name, present in owners)
    description = f"Owners over {duration(end - start)}: {'; '.join(shares)}"
    return svg.drawing(WIDTH, height, description, elements, "chart day")


def last_known(points: Points) -> float | None:
    return next((value for value in reversed(points) if value is not None), None)


def _describe(curves: Sequence[Curve], start: float, end: float, unit: str, title: str) -> str:
    """The text alternative."""
    extents = (
        f"{curve.name} {svg.describe_range(curve.points, lambda value: value_text(value, unit))}" for curve in curves
    )
    return f"{title} over {duration(end - start)}: {'; '.join(extents)}"


def _stretches(present: Sequence[bool]) -> Iterator[tuple[float, float]]:
    """Shares of the width from the first to the last step of each stretch."""
    last = max(1, len(present) - 1)
    for there, part in groupby(enumerate(present), lambda each: each[1]):
        if there:
            steps = [index for index, _ in part]
            yield steps[0] / last, steps[-1] / last


def _scale(known: Sequence[float], unit: str) -> tuple[float, float]:
    low, high = min(0.0, *known), max(0.0, *known)
    if unit == "ratio" and high <= 1:
        return low, 1.0
    return (low, low + 1.0) if high == low else (low, high)


def _value_axis(low: float, high: float, unit: str) -> Iterator[Markup]:
    for value, at in ((high, AREA.top), ((low + high) / 2, AREA.y(0.5)), (low, AREA.bottom)):
        yield AREA.across(at, "axis")
        yield svg.label(AREA.left - 6, at + 4, value_text(value, unit), "end")


def _time_axis(start: float, end: float, height: float) -> Iterator[Markup]:
    """Ticks at whole hours, in UTC."""
    step = next((each for each in _TICK_SECONDS if (end - start) / each <= _MAX_TICKS), _TICK_SECONDS[-1])
    at = -(-start // step) * step
    while at <= end:
        x = AREA.x((at - start) / (end - start))
        yield svg.element("line", "axis", x1=x, x2=x, y1=4, y2=height - 18)
        yield svg.label(x, height - 4, time_of_day(at), "middle")
        at += step
