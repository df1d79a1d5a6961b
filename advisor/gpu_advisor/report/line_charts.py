"""Values over time as SVG, for screens, for print, and without colour: lines differ by dashes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import ceil, floor, log10

from markupsafe import Markup

from gpu_advisor.rendering import svg
from gpu_advisor.report import formatting
from gpu_advisor.report.schema import Band

#: Sizes in the drawing's own units; the page scales it. Two drawings of SMALL_WIDTH stand beside each other.
WIDTH, SMALL_WIDTH, HEIGHT = 760.0, 400.0, 190.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 118.0, 12.0, 26.0

#: Tick distances on the time axis, in seconds.
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_TICK_INTERVALS = (
    5 * _MINUTE, 15 * _MINUTE, 30 * _MINUTE, _HOUR, 3 * _HOUR, 6 * _HOUR, 12 * _HOUR, _DAY, 2 * _DAY, 3 * _DAY,
    7 * _DAY, 14 * _DAY, 28 * _DAY, 56 * _DAY,
)  # fmt: skip

#: Width of a tick's text and its margin, with the day of the week and without.
_TICK_WIDTH, _SHORT_TICK_WIDTH = 76.0, 56.0


@dataclass(frozen=True, slots=True)
class TimeAxis:
    """The period of a chart: `start` and `end` in Unix time, divided into `points` steps."""

    start: float
    end: float
    points: int
    width: float = WIDTH

    @property
    def area(self) -> svg.PlotArea:
        return svg.PlotArea(LEFT, self.width - RIGHT, TOP, HEIGHT - BOTTOM)

    def x(self, at: float) -> float:
        return self.area.x((at - self.start) / (self.end - self.start))

    def middle(self, index: int) -> float:
        """A value is the mean of a step: it stands in its middle."""
        return self.area.x((index + 0.5) / self.points)


@dataclass(frozen=True, slots=True)
class ChartLine:
    """`kind` is its class in the style, `name` the label at its end."""

    name: str
    values: svg.Points
    kind: str = "line"
    filled: bool = False


def ratio_chart(axis: TimeAxis, title: str, values: svg.Points, band: Band, mean: float | None) -> Markup:
    """A ratio on 0 to 100 %, against its target."""
    low, high = band["low"] or None, band["high"]
    high = high if low is not None and high is not None and high < 1 else None
    end_labels = [] if mean is None else [(mean, f"mean {formatting.percent(mean)}", "name")]
    target = ""
    if low is not None and high is not None:
        end_labels.append(((low + high) / 2, f"target {low * 100:.0f}–{high * 100:.0f} %", "aim"))
        target = f", target {formatting.percent(low)} to {formatting.percent(high)}"
    elif low is not None:
        end_labels.append((low, f"target {formatting.percent(low)}", "aim"))
        target = f", target at least {formatting.percent(low)}"
    ticks = [(tick / 100, f"{tick} %") for tick in (0, 25, 50, 75, 100)]
    extent = svg.describe_range(values, formatting.percent)
    description = f"{title}: {extent}, mean {formatting.percent(mean)}{target}"
    return _plot(axis, description, [ChartLine(title, values)], ticks, end_labels, _target_band(axis.area, low, high))


def count_chart(axis: TimeAxis, title: str, lines: Sequence[ChartLine]) -> Markup:
    """Numbers of GPUs, from zero."""
    highest = max((value for line in lines for value in line.values if value is not None), default=0.0)
    step = _round_step(highest)
    ticks = [
        (step * number, formatting.count(step * number)) for number in range(max(1, ceil(highest / step - 1e-9)) + 1)
    ]
    last_values = [next((v for v in reversed(line.values) if v is not None), None) for line in lines]
    end_labels = [
        (value, line.name, f"name {line.kind}")
        for value, line in zip(last_values, lines, strict=True)
        if value is not None
    ]
    ranges = (f"{line.name} {svg.describe_range(line.values, '{:.3g}'.format)}" for line in lines)
    return _plot(axis, f"{title}: {'; '.join(ranges)}", lines, ticks, end_labels, ())


def _round_step(highest: float) -> float:
    """1, 2 or 5 times a power of ten, for at most five ticks; whole, as GPUs are."""
    if highest <= 1:
        return 1.0
    power = 10.0 ** floor(log10(highest / 4))
    return float(max(1.0, next(power * factor for factor in (1, 2, 5, 10) if power * factor * 5 >= highest)))


def _plot(
    axis: TimeAxis,
    description: str,
    lines: Sequence[ChartLine],
    ticks: Sequence[tuple[float, str]],
    end_labels: Sequence[tuple[float, str, str]],
    target_band: Iterable[Markup],
) -> Markup:
    area, top = axis.area, ticks[-1][0]

    def y(value: float) -> float:
        return area.y(min(max(value, 0.0), top) / top)

    elements = [*_gaps(axis, lines), *_grid(axis, ticks, y), *target_band]
    for line in lines:
        for part in svg.segments(line.values):
            points = [(axis.middle(index), y(value)) for index, value in part]
            if line.filled and len(points) > 1:
                corners = [(points[0][0], area.bottom), *points, (points[-1][0], area.bottom)]
                elements.append(svg.element("polygon", "area", points=svg.join_points(corners)))
            elements.append(svg.curve(points, line.kind, 1.6))
    heights = svg.spread_labels([y(value) for value, _, _ in end_labels], 15, TOP + 4, area.bottom)
    elements += [
        svg.label(area.right + 8, at + 4, text, kind) for at, (_, text, kind) in zip(heights, end_labels, strict=True)
    ]
    return svg.drawing(axis.width, HEIGHT, description, elements)


def _grid(axis: TimeAxis, ticks: Sequence[tuple[float, str]], y: svg.YScale) -> Iterator[Markup]:
    area = axis.area
    for value, text in ticks:
        yield area.across(y(value), "grid")
        yield svg.label(LEFT - 6, y(value) + 4, text, "end")
    short = axis.width < WIDTH
    width = _SHORT_TICK_WIDTH if short else _TICK_WIDTH
    for at in time_ticks(axis.start, axis.end, int((area.right - LEFT) // width)):
        yield svg.line(axis.x(at), axis.x(at), area.bottom, area.bottom + 4, "grid")
        text = formatting.day(at, short) if at % _DAY == 0 else formatting.clock(at)
        yield svg.label(axis.x(at), HEIGHT - 6, text, "middle")


def time_ticks(start: float, end: float, max_ticks: int) -> list[float]:
    """Unix times of whole hours or days in UTC, about `max_ticks` at most."""
    step = next((each for each in _TICK_INTERVALS if (end - start) / each <= max_ticks), _TICK_INTERVALS[-1])
    return [at * step for at in range(ceil(start / step), floor(end / step) + 1)]


def _target_band(area: svg.PlotArea, low: float | None, high: float | None) -> Iterator[Markup]:
    if low is not None and high is not None:
        yield svg.rect(area.left, area.y(high), area.right - area.left, area.y(low) - area.y(high), "aim")
    yield from (area.across(area.y(edge), "aim") for edge in (low, high) if edge is not None)


def _gaps(axis: TimeAxis, lines: Sequence[ChartLine]) -> Iterator[Markup]:
    """Steps in which no line has a value."""
    empty = [all(line.values[index] is None for line in lines) for index in range(axis.points)]
    for missing, part in groupby(range(axis.points), empty.__getitem__):
        if missing:
            steps = list(part)
            left, right = (axis.area.x(edge / axis.points) for edge in (steps[0], steps[-1] + 1))
            yield axis.area.band(left, right, "gap")
