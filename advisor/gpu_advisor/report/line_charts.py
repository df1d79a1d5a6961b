"""Curves over time as inline SVG, for screens, for print, and without colour: lines differ by dashes.

No scripts; colours and fonts come from the page's style. Each drawing says in words what it shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import ceil, floor, log10

from markupsafe import Markup

from gpu_advisor.report import formatting
from gpu_advisor.report.schema import Band
from gpu_advisor.report.svg import WIDTH, format_coordinate, label, svg_line

#: Of a drawing, in its own units; SMALL_WIDTH ones stand two beside each other.
SMALL_WIDTH, HEIGHT = 400.0, 190.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 118.0, 12.0, 26.0

#: Distances (seconds) that marks of time may have.
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_TICK_INTERVALS = (
    5 * _MINUTE, 15 * _MINUTE, 30 * _MINUTE, _HOUR, 3 * _HOUR, 6 * _HOUR, 12 * _HOUR, _DAY, 2 * _DAY, 3 * _DAY,
    7 * _DAY, 14 * _DAY, 28 * _DAY, 56 * _DAY,
)  # fmt: skip

#: And how wide (in the drawing's units) one of them is with its room, with the day of the week and without.
_TICK_WIDTH, _SHORT_TICK_WIDTH = 76.0, 56.0

Points = Sequence[float | None]


@dataclass(frozen=True, slots=True)
class TimeAxis:
    """The time that a plot is of: `start` and `end` in seconds since 1970, cut into `points` steps."""

    start: float
    end: float
    points: int
    width: float = WIDTH

    @property
    def right(self) -> float:
        return self.width - RIGHT

    def x(self, at: float) -> float:
        return LEFT + (self.right - LEFT) * (at - self.start) / (self.end - self.start)

    def middle(self, index: int) -> float:
        """A value is of a whole step: it stands in its middle."""
        return self.x(self.start + (index + 0.5) * (self.end - self.start) / self.points)

    def edge(self, index: int) -> float:
        return self.x(self.start + index * (self.end - self.start) / self.points)


@dataclass(frozen=True, slots=True)
class ChartLine:
    """`kind` is its class in the style. `name` stands beside its end."""

    name: str
    values: Points
    kind: str = "line"
    filled: bool = False


def ratio_chart(axis: TimeAxis, title: str, values: Points, band: Band, mean: float | None) -> Markup:
    """A share of a whole, from 0 to 100 %, against where it should be."""
    low, high = band["low"], band["high"]
    two_edges = low is not None and high is not None and high < 1
    end_labels = [] if mean is None else [(mean, f"mean {formatting.percent(mean)}", "name")]
    if low and high is not None and two_edges:
        end_labels.append(((low + high) / 2, f"target {low * 100:.0f}–{high * 100:.0f} %", "aim"))
    elif low:
        end_labels.append((low, f"target {formatting.percent(low)}", "aim"))
    ticks = [(tick / 100, f"{tick} %") for tick in (0, 25, 50, 75, 100)]
    target_band = _target_band(axis.right, low if low else None, high if two_edges else None)
    should = f", should be {'at least ' if not two_edges else 'between '}{formatting.percent(low)}" if low else ""
    should += f" and {formatting.percent(high)}" if two_edges else ""
    description = f"{title}: {_range(values, formatting.percent)}, mean {formatting.percent(mean)}{should}"
    return _plot(axis, description, [ChartLine(title, values)], ticks, end_labels, target_band)


def count_chart(axis: TimeAxis, title: str, lines: Sequence[ChartLine]) -> Markup:
    """Numbers of GPUs, from zero."""
    known = [value for line in lines for value in line.values if value is not None]
    highest = max(known, default=0.0)
    step = _round_step(highest)
    ticks = [
        (step * number, formatting.count(step * number)) for number in range(max(1, ceil(highest / step - 1e-9)) + 1)
    ]
    end_labels = [(line.values[last], line.name, f"name {line.kind}") for line in lines
              if (last := _last_value_index(line.values)) is not None]  # fmt: skip
    description = f"{title}: " + "; ".join(f"{line.name} {_range(line.values, lambda v: f'{v:.3g}')}" for line in lines)
    return _plot(axis, description, lines, ticks, [(v, n, k) for v, n, k in end_labels if v is not None], Markup(""))


def _round_step(highest: float) -> float:
    """1, 2 or 5 times a power of ten, so that there are at most five marks; whole, as GPUs are."""
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
    target_band: Markup,
) -> Markup:
    top = ticks[-1][0]

    def y(value: float) -> float:
        return _y(min(max(value, 0.0), top) / top)

    elements = [*_gaps(axis, lines), *_grid(axis, ticks, y), target_band]
    for line in lines:
        elements += [_segment_svg(axis, part, y, line) for part in _segments(line.values)]
    elements += [label(axis.right + 8, at + 4, text, kind) for at, text, kind in _spread_labels(end_labels, y)]
    return Markup('<svg class="plot" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        format_coordinate(axis.width), format_coordinate(HEIGHT), description, Markup("").join(elements)
    )


def _y(share: float) -> float:
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - share)


def _grid(axis: TimeAxis, ticks: Sequence[tuple[float, str]], y: Callable[[float], float]) -> Iterator[Markup]:
    for value, text in ticks:
        yield svg_line(LEFT, axis.right, y(value), y(value), "grid")
        yield label(LEFT - 6, y(value) + 4, text, "end")
    short = axis.width < WIDTH
    room = _SHORT_TICK_WIDTH if short else _TICK_WIDTH
    for at in time_ticks(axis.start, axis.end, int((axis.right - LEFT) // room)):
        yield svg_line(axis.x(at), axis.x(at), y(0), y(0) + 4, "grid")
        text = formatting.day(at, short) if at % 86400 == 0 else formatting.clock(at)
        yield label(axis.x(at), HEIGHT - 6, text, "middle")


def time_ticks(start: float, end: float, max_ticks: int) -> list[float]:
    """Where the marks of time stand: whole hours or days in UTC, about `max_ticks` at most."""
    step = next((each for each in _TICK_INTERVALS if (end - start) / each <= max_ticks), _TICK_INTERVALS[-1])
    return [at * step for at in range(ceil(start / step), floor(end / step) + 1)]


def _target_band(right: float, low: float | None, high: float | None) -> Markup:
    if low is None:
        return Markup("")
    room = Markup("")
    if high is not None:
        room = Markup('<rect class="aim" x="{}" width="{}" y="{}" height="{}"/>').format(
            format_coordinate(LEFT),
            format_coordinate(right - LEFT),
            format_coordinate(_y(high)),
            format_coordinate(_y(low) - _y(high)),
        )
    edges = [svg_line(LEFT, right, _y(edge), _y(edge), "aim") for edge in (low, high) if edge is not None]
    return room + Markup("").join(edges)


def _gaps(axis: TimeAxis, lines: Sequence[ChartLine]) -> Iterator[Markup]:
    """Where no line has a value."""
    nothing = [all(line.values[index] is None for line in lines) for index in range(axis.points)]
    for missing, part in groupby(range(axis.points), lambda index: nothing[index]):
        if missing:
            found = list(part)
            left, right = axis.edge(found[0]), axis.edge(found[-1] + 1)
            yield Markup('<rect class="gap" x="{}" width="{}" y="{}" height="{}"/>').format(
                format_coordinate(left),
                format_coordinate(right - left),
                format_coordinate(TOP),
                format_coordinate(HEIGHT - TOP - BOTTOM),
            )


def _segments(values: Points) -> Iterator[list[tuple[int, float]]]:
    """The stretches without a gap."""
    for missing, part in groupby(enumerate(values), lambda each: each[1] is None):
        if not missing:
            yield [(index, value) for index, value in part if value is not None]


def _segment_svg(axis: TimeAxis, part: list[tuple[int, float]], y: Callable[[float], float], line: ChartLine) -> Markup:
    if len(part) == 1:
        [(index, value)] = part
        return Markup('<circle class="{}" cx="{}" cy="{}" r="1.6"/>').format(
            line.kind, format_coordinate(axis.middle(index)), format_coordinate(y(value))
        )
    through = " ".join(
        f"{format_coordinate(axis.middle(index))},{format_coordinate(y(value))}" for index, value in part
    )
    area = Markup("")
    if line.filled:
        first, last = axis.middle(part[0][0]), axis.middle(part[-1][0])
        area = Markup('<polygon class="area" points="{},{} {} {},{}"/>').format(
            format_coordinate(first), format_coordinate(y(0)), through, format_coordinate(last), format_coordinate(y(0))
        )
    return area + Markup('<polyline class="{}" points="{}"/>').format(line.kind, through)


def _range(values: Points, tell: Callable[[float], str]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "nothing known"
    missing = len(values) - len(known)
    gaps = f", nothing seen for {missing} of {len(values)} steps" if missing else ""
    return f"between {tell(min(known))} and {tell(max(known))}{gaps}"


def _last_value_index(values: Points) -> int | None:
    return next((index for index in range(len(values) - 1, -1, -1) if values[index] is not None), None)


def _spread_labels(
    labels: Sequence[tuple[float, str, str]], y: Callable[[float], float]
) -> list[tuple[float, str, str]]:
    """Where labels stand, so that none covers another."""
    placed: list[tuple[float, str, str]] = []
    for value, text, kind in sorted(labels, key=lambda label: -label[0]):
        at = max(TOP + 4, y(value))
        placed.append((max(at, placed[-1][0] + 15) if placed else at, text, kind))
    over = placed[-1][0] - (HEIGHT - BOTTOM) if placed else 0
    return [(at - max(0.0, over), text, kind) for at, text, kind in placed]
