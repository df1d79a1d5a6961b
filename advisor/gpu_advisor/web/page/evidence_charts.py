"""Small charts as inline SVG: a measured curve against its threshold. No scripts, no styles of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

from markupsafe import Markup

from gpu_advisor.web.page.evidence_history import EvidenceSeries
from gpu_advisor.web.page.template_filters import duration, time_of_day, value_text

#: Of the drawing, in its own units; the page scales it to the room there is.
WIDTH, HEIGHT = 320.0, 96.0
LEFT, RIGHT, TOP, BOTTOM = 2.0, 62.0, 8.0, 16.0

#: A value's place from the top.
YScale = Callable[[float], float]


def evidence_chart(curve: EvidenceSeries, threshold: float | None, unit: str, name: str) -> Markup:
    """The curve as a drawing with a text alternative. A gap in the data is a gap in the line."""
    known = [value for value in curve.points if value is not None]
    if not known:
        return Markup('<p class="calm">{}</p>').format(curve.why)
    low, high = _scale(known, threshold, unit)

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - (value - low) / (high - low))

    elements = [Markup('<line class="axis" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
        _format_coordinate(LEFT), _format_coordinate(WIDTH - RIGHT), _format_coordinate(y(low)), _format_coordinate(y(low)))]  # fmt: skip
    elements += [_line(part, len(curve.points), y) for part in _segments(curve.points)]
    labels = [(known[-1], "now")]
    if threshold is not None:
        elements.append(
            Markup('<line class="limit" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
                _format_coordinate(LEFT),
                _format_coordinate(WIDTH - RIGHT),
                _format_coordinate(y(threshold)),
                _format_coordinate(y(threshold)),
            )
        )
        labels.append((threshold, "limit"))
    texts = [
        _text(WIDTH - RIGHT + 5, at, value_text(value, unit), kind) for at, value, kind in _spread_labels(labels, y)
    ]
    texts.append(_text(LEFT, HEIGHT - 4, f"{time_of_day(curve.start)} UTC", "time"))
    texts.append(_text(WIDTH - RIGHT, HEIGHT - 4, time_of_day(curve.end), "time end"))
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}{}</svg>').format(
        _format_coordinate(WIDTH),
        _format_coordinate(HEIGHT),
        describe_chart(curve, threshold, unit, name),
        Markup("").join(elements),
        Markup("").join(texts),
    )


def describe_chart(curve: EvidenceSeries, threshold: float | None, unit: str, name: str) -> str:
    """What the drawing shows, for who does not see it."""
    known = [value for value in curve.points if value is not None]
    lowest, highest, last = (value_text(value, unit) for value in (min(known), max(known), known[-1]))
    against = "" if threshold is None else f", threshold {value_text(threshold, unit)}"
    missing = len(curve.points) - len(known)
    gaps = f"; no data for {missing} of {len(curve.points)} points" if missing else ""
    length = duration(curve.end - curve.start)
    return f"{name} over {length}: {last} at the end, between {lowest} and {highest}{against}{gaps}"


def meter(value: float | None, low: float | None, high: float | None, kind: str) -> Markup:
    """A ratio as a bar, with marks at the edges of where it should be. Decoration: the number stands beside it."""
    if value is None:
        return Markup("")
    marks = Markup("").join(
        Markup('<rect class="mark" x="{}" y="0" width="1" height="10"/>').format(
            _format_coordinate(min(edge, 1.0) * 99)
        )
        for edge in (low, high)
        if edge is not None and 0 < edge < 1
    )
    return Markup(
        '<svg class="meter {}" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="room" width="100" height="10"/><rect class="fill" width="{}" height="10"/>{}</svg>'
    ).format(kind, _format_coordinate(100 * min(max(value, 0.0), 1.0)), marks)


def _scale(known: Sequence[float], threshold: float | None, unit: str) -> tuple[float, float]:
    """Ratios stand on the whole of 0 to 1, unless all of it is small; all else begins at zero, too."""
    values = [*known, *([] if threshold is None else [threshold])]
    low, high = min(0.0, *values), max(0.0, *values)
    if unit == "ratio" and 0.25 < high <= 1:
        return low, 1.0
    return (low, low + 1.0) if high == low else (low, high + 0.05 * (high - low))


def _segments(points: Sequence[float | None]) -> Iterator[list[tuple[int, float]]]:
    """The stretches without a gap."""
    for missing, part in groupby(enumerate(points), lambda each: each[1] is None):
        if not missing:
            yield [(index, value) for index, value in part if value is not None]


def _line(part: list[tuple[int, float]], points: int, y: YScale) -> Markup:
    def x(index: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * index / max(1, points - 1)

    if len(part) == 1:
        [(index, value)] = part
        return Markup('<circle class="line" cx="{}" cy="{}" r="1.5"/>').format(
            _format_coordinate(x(index)), _format_coordinate(y(value))
        )
    through = " ".join(f"{_format_coordinate(x(index))},{_format_coordinate(y(value))}" for index, value in part)
    return Markup('<polyline class="line" points="{}"/>').format(through)


def _spread_labels(labels: Sequence[tuple[float, str]], y: YScale) -> list[tuple[float, float, str]]:
    """Where the labels' baselines stand, so that two do not cover each other."""
    placed = sorted((y(value) + 4, value, kind) for value, kind in labels)
    if len(placed) == 2 and placed[1][0] - placed[0][0] < 13:
        middle = min(max((placed[0][0] + placed[1][0]) / 2, TOP + 8), HEIGHT - BOTTOM - 6)
        placed = [(middle - 6.5, *placed[0][1:]), (middle + 6.5, *placed[1][1:])]
    return placed


def _text(x: float, y: float, text: str, kind: str) -> Markup:
    return Markup('<text class="{}" x="{}" y="{}">{}</text>').format(
        kind, _format_coordinate(x), _format_coordinate(y), text
    )


def _format_coordinate(number: float) -> str:
    """Short: a page has many."""
    return f"{number:.1f}".removesuffix(".0")
