"""Curves over time as inline SVG, for screens, for print, and without colour: lines differ by dashes.

No scripts; colours and fonts come from the page's style. Each drawing says in words what it shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import ceil, floor, log10

from markupsafe import Markup

from gpu_advisor.report import figures
from gpu_advisor.report.drawing import WIDTH, label, straight, units
from gpu_advisor.report.shapes import Band

#: Of a drawing, in its own units; SMALL ones stand two beside each other.
SMALL, HEIGHT = 400.0, 190.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 118.0, 12.0, 26.0

#: Distances (seconds) that marks of time may have.
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_TIMES = (
    5 * _MINUTE, 15 * _MINUTE, 30 * _MINUTE, _HOUR, 3 * _HOUR, 6 * _HOUR, 12 * _HOUR, _DAY, 2 * _DAY, 3 * _DAY,
    7 * _DAY, 14 * _DAY, 28 * _DAY, 56 * _DAY,
)  # fmt: skip

#: And how wide (in the drawing's units) one of them is with its room, with the day of the week and without.
_TIME_WIDTH, _SHORT_TIME_WIDTH = 76.0, 56.0

Points = Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Axis:
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
class Line:
    """`kind` is its class in the style. `name` stands beside its end."""

    name: str
    values: Points
    kind: str = "line"
    filled: bool = False


def ratio_plot(axis: Axis, title: str, values: Points, band: Band, mean: float | None) -> Markup:
    """A share of a whole, from 0 to 100 %, against where it should be."""
    low, high = band["low"], band["high"]
    two_edges = low is not None and high is not None and high < 1
    beside = [] if mean is None else [(mean, f"mean {figures.percent(mean)}", "name")]
    if low and high is not None and two_edges:
        beside.append(((low + high) / 2, f"target {low * 100:.0f}–{high * 100:.0f} %", "aim"))
    elif low:
        beside.append((low, f"target {figures.percent(low)}", "aim"))
    marks = [(tick / 100, f"{tick} %") for tick in (0, 25, 50, 75, 100)]
    aims = _aims(axis.right, low if low else None, high if two_edges else None)
    should = f", should be {'at least ' if not two_edges else 'between '}{figures.percent(low)}" if low else ""
    should += f" and {figures.percent(high)}" if two_edges else ""
    said = f"{title}: {_range(values, figures.percent)}, mean {figures.percent(mean)}{should}"
    return _plot(axis, said, [Line(title, values)], marks, beside, aims)


def count_plot(axis: Axis, title: str, lines: Sequence[Line]) -> Markup:
    """Numbers of GPUs, from zero."""
    known = [value for line in lines for value in line.values if value is not None]
    highest = max(known, default=0.0)
    step = _round_step(highest)
    marks = [(step * number, figures.count(step * number)) for number in range(max(1, ceil(highest / step - 1e-9)) + 1)]
    beside = [(line.values[last], line.name, f"name {line.kind}") for line in lines
              if (last := _last_known(line.values)) is not None]  # fmt: skip
    said = f"{title}: " + "; ".join(f"{line.name} {_range(line.values, lambda v: f'{v:.3g}')}" for line in lines)
    return _plot(axis, said, lines, marks, [(v, n, k) for v, n, k in beside if v is not None], Markup(""))


def _round_step(highest: float) -> float:
    """1, 2 or 5 times a power of ten, so that there are at most five marks; whole, as GPUs are."""
    if highest <= 1:
        return 1.0
    power = 10.0 ** floor(log10(highest / 4))
    return float(max(1.0, next(power * factor for factor in (1, 2, 5, 10) if power * factor * 5 >= highest)))


def _plot(
    axis: Axis,
    said: str,
    lines: Sequence[Line],
    marks: Sequence[tuple[float, str]],
    beside: Sequence[tuple[float, str, str]],
    aims: Markup,
) -> Markup:
    top = marks[-1][0]

    def y(value: float) -> float:
        return _y(min(max(value, 0.0), top) / top)

    drawn = [*_gaps(axis, lines), *_grid(axis, marks, y), aims]
    for line in lines:
        drawn += [_stretch(axis, part, y, line) for part in _parts(line.values)]
    drawn += [label(axis.right + 8, at + 4, text, kind) for at, text, kind in _apart(beside, y)]
    return Markup('<svg class="plot" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        units(axis.width), units(HEIGHT), said, Markup("").join(drawn)
    )


def _y(share: float) -> float:
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - share)


def _grid(axis: Axis, marks: Sequence[tuple[float, str]], y: Callable[[float], float]) -> Iterator[Markup]:
    for value, text in marks:
        yield straight(LEFT, axis.right, y(value), y(value), "grid")
        yield label(LEFT - 6, y(value) + 4, text, "end")
    short = axis.width < WIDTH
    room = _SHORT_TIME_WIDTH if short else _TIME_WIDTH
    for at in times(axis.start, axis.end, int((axis.right - LEFT) // room)):
        yield straight(axis.x(at), axis.x(at), y(0), y(0) + 4, "grid")
        text = figures.day(at, short) if at % 86400 == 0 else figures.clock(at)
        yield label(axis.x(at), HEIGHT - 6, text, "middle")


def times(start: float, end: float, most: int) -> list[float]:
    """Where the marks of time stand: whole hours or days in UTC, about `most` at most."""
    step = next((each for each in _TIMES if (end - start) / each <= most), _TIMES[-1])
    return [at * step for at in range(ceil(start / step), floor(end / step) + 1)]


def _aims(right: float, low: float | None, high: float | None) -> Markup:
    if low is None:
        return Markup("")
    room = Markup("")
    if high is not None:
        room = Markup('<rect class="aim" x="{}" width="{}" y="{}" height="{}"/>').format(
            units(LEFT), units(right - LEFT), units(_y(high)), units(_y(low) - _y(high))
        )
    edges = [straight(LEFT, right, _y(edge), _y(edge), "aim") for edge in (low, high) if edge is not None]
    return room + Markup("").join(edges)


def _gaps(axis: Axis, lines: Sequence[Line]) -> Iterator[Markup]:
    """Where no line has a value."""
    nothing = [all(line.values[index] is None for line in lines) for index in range(axis.points)]
    for missing, part in groupby(range(axis.points), lambda index: nothing[index]):
        if missing:
            found = list(part)
            left, right = axis.edge(found[0]), axis.edge(found[-1] + 1)
            yield Markup('<rect class="gap" x="{}" width="{}" y="{}" height="{}"/>').format(
                units(left), units(right - left), units(TOP), units(HEIGHT - TOP - BOTTOM)
            )


def _parts(values: Points) -> Iterator[list[tuple[int, float]]]:
    """The stretches without a gap."""
    for missing, part in groupby(enumerate(values), lambda each: each[1] is None):
        if not missing:
            yield [(index, value) for index, value in part if value is not None]


def _stretch(axis: Axis, part: list[tuple[int, float]], y: Callable[[float], float], line: Line) -> Markup:
    if len(part) == 1:
        [(index, value)] = part
        return Markup('<circle class="{}" cx="{}" cy="{}" r="1.6"/>').format(
            line.kind, units(axis.middle(index)), units(y(value))
        )
    through = " ".join(f"{units(axis.middle(index))},{units(y(value))}" for index, value in part)
    area = Markup("")
    if line.filled:
        first, last = axis.middle(part[0][0]), axis.middle(part[-1][0])
        area = Markup('<polygon class="area" points="{},{} {} {},{}"/>').format(
            units(first), units(y(0)), through, units(last), units(y(0))
        )
    return area + Markup('<polyline class="{}" points="{}"/>').format(line.kind, through)


def _range(values: Points, tell: Callable[[float], str]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "nothing known"
    missing = len(values) - len(known)
    gaps = f", nothing seen for {missing} of {len(values)} steps" if missing else ""
    return f"between {tell(min(known))} and {tell(max(known))}{gaps}"


def _last_known(values: Points) -> int | None:
    return next((index for index in range(len(values) - 1, -1, -1) if values[index] is not None), None)


def _apart(labels: Sequence[tuple[float, str, str]], y: Callable[[float], float]) -> list[tuple[float, str, str]]:
    """Where labels stand, so that none covers another."""
    placed: list[tuple[float, str, str]] = []
    for value, text, kind in sorted(labels, key=lambda label: -label[0]):
        at = max(TOP + 4, y(value))
        placed.append((max(at, placed[-1][0] + 15) if placed else at, text, kind))
    over = placed[-1][0] - (HEIGHT - BOTTOM) if placed else 0
    return [(at - max(0.0, over), text, kind) for at, text, kind in placed]
