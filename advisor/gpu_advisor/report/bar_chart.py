"""GPU-hours by use, one bar per pool. Segments differ by hatching, so that they need no colour."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from markupsafe import Markup

from gpu_advisor.rendering import svg
from gpu_advisor.report import formatting
from gpu_advisor.report.line_charts import WIDTH
from gpu_advisor.report.schema import GpuHours

#: The segments of a bar, from left to right: class in the style, name.
BAR_SEGMENTS = (("busy", "busy"), ("unused", "unused"), ("waste", "idle, memory allocated"), ("unseen", "unobserved"))
_BAR, _BAR_GAP, _BAR_LEFT, _BAR_RIGHT = 18.0, 12.0, 190.0, 70.0

_STRIPES = svg.element("rect", "waste", width=6, height=6) + svg.element("line", "hatch", x1=0, y1=0, x2=0, y2=6)
_HATCH = svg.element("pattern", "", _STRIPES, id="hatch", width=6, height=6, patternUnits="userSpaceOnUse",
                     patternTransform="rotate(45)")  # fmt: skip


def bar_chart(title: str, groups: Sequence[tuple[str, GpuHours]]) -> Markup:
    """GPU-hours of each group as one bar of busy, unused, idle and unobserved time."""
    longest = max((hours["present"] for _, hours in groups), default=0.0) or 1.0
    height = len(groups) * (_BAR + _BAR_GAP) + 26
    elements, descriptions = [svg.element("defs", "", _HATCH)], []
    for number, (name, hours) in enumerate(groups):
        top, left = number * (_BAR + _BAR_GAP) + 4, _BAR_LEFT
        elements.append(svg.label(_BAR_LEFT - 8, top + 13, formatting.truncate(name, 27), "end"))
        for (kind, _), value in zip(BAR_SEGMENTS, _segment_hours(hours), strict=True):
            width = (WIDTH - _BAR_LEFT - _BAR_RIGHT) * value / longest
            elements.append(_segment(kind, left, top, width, _BAR))
            left += width
        elements.append(svg.label(left + 6, top + 13, f"{hours['present']:,.0f} h"))
        parts = zip(BAR_SEGMENTS, _segment_hours(hours), strict=True)
        descriptions.append(f"{name}: " + ", ".join(f"{text} {formatting.hours(value)}" for (_, text), value in parts))
    elements += _legend(height - 16)
    return svg.drawing(WIDTH, height, f"{title}. {'; '.join(descriptions)}", elements)


def _segment(kind: str, x: float, y: float, width: float, height: float) -> Markup:
    if kind == "waste":
        return svg.rect(x, y, width, height, "bar", fill="url(#hatch)")
    return svg.rect(x, y, width, height, f"bar {kind}")


def _segment_hours(hours: GpuHours) -> tuple[float, float, float, float]:
    idle = min(hours["idle_allocated"] or 0.0, hours["unused"])
    return hours["busy"], hours["unused"] - idle, idle, hours["unobserved"]


def _legend(top: float) -> Iterator[Markup]:
    left = _BAR_LEFT
    for kind, text in BAR_SEGMENTS:
        yield _segment(kind, left, top, 12, 12)
        yield svg.label(left + 18, top + 11, text)
        left += 34 + 7.2 * len(text)
