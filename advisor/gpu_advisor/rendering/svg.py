"""Inline SVG for the page and the report: elements, the area that data is drawn in, lines with gaps, labels.

No scripts and no colours: `kind` is an element's class in the page's style.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from markupsafe import Markup, escape

Points = Sequence[float | None]
YScale = Callable[[float], float]


def element(name: str, kind: str = "", content: str = "", **attributes: float | str) -> Markup:
    """An element; `aria_label` becomes aria-label. `content` is escaped unless it is Markup."""
    given = {**({"class": kind} if kind else {}), **attributes}
    text = "".join(f' {key.replace("_", "-")}="{_attribute(value)}"' for key, value in given.items())
    return Markup(f"<{name}{text}>{escape(content)}</{name}>" if content else f"<{name}{text}/>")


def drawing(width: float, height: float, description: str, elements: Iterable[Markup], kind: str = "plot") -> Markup:
    """The whole picture; `description` is its text alternative."""
    view_box = f"0 0 {format_coordinate(width)} {format_coordinate(height)}"
    content = Markup("").join(elements)
    return element("svg", kind, content, viewBox=view_box, role="img", aria_label=description)


def line(x1: float, x2: float, y1: float, y2: float, kind: str) -> Markup:
    return element("line", kind, x1=x1, x2=x2, y1=y1, y2=y2)


def label(x: float, y: float, text: str, kind: str = "") -> Markup:
    """A text; `y` is its base line."""
    return element("text", kind, text, x=x, y=y)


def rect(x: float, y: float, width: float, height: float, kind: str, **attributes: str) -> Markup:
    return element("rect", kind, x=x, y=y, width=width, height=height, **attributes)


def circle(x: float, y: float, radius: float, kind: str = "") -> Markup:
    return element("circle", kind, cx=x, cy=y, r=radius)


def curve(points: Sequence[tuple[float, float]], kind: str, radius: float) -> Markup:
    """A line through points; one point alone is a dot."""
    if len(points) == 1:
        return circle(*points[0], radius, kind)
    return element("polyline", kind, points=join_points(points))


def join_points(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{format_coordinate(x)},{format_coordinate(y)}" for x, y in points)


def format_coordinate(number: float) -> str:
    """Short: a page has many."""
    return f"{number:.1f}".removesuffix(".0")


def _attribute(value: float | str) -> str:
    return escape(value) if isinstance(value, str) else format_coordinate(value)


@dataclass(frozen=True, slots=True)
class PlotArea:
    """The rectangle that data is drawn in. Shares are 0 at the left or bottom, 1 at the right or top."""

    left: float
    right: float
    top: float
    bottom: float

    def x(self, share: float) -> float:
        return self.left + (self.right - self.left) * share

    def y(self, share: float) -> float:
        return self.bottom - (self.bottom - self.top) * share

    def across(self, y: float, kind: str) -> Markup:
        return line(self.left, self.right, y, y, kind)

    def band(self, left: float, right: float, kind: str) -> Markup:
        """From top to bottom."""
        return rect(left, self.top, right - left, self.bottom - self.top, kind)


def segments(values: Points) -> Iterator[list[tuple[int, float]]]:
    """Index and value, for each stretch without a gap."""
    for missing, part in groupby(enumerate(values), lambda each: each[1] is None):
        if not missing:
            yield [(index, value) for index, value in part if value is not None]


def spread_labels(heights: Sequence[float], gap: float, top: float, bottom: float) -> list[float]:
    """Heights at least `gap` apart within top to bottom, in the order given, each as near as possible to its own.

    The least squares solution (isotonic regression by pooling adjacent violators).
    """
    order = sorted(range(len(heights)), key=heights.__getitem__)
    blocks: list[tuple[float, int]] = []
    for rank, index in enumerate(order):
        mean, size = heights[index] - rank * gap, 1
        while blocks and blocks[-1][0] > mean:
            former, count = blocks.pop()
            mean, size = (former * count + mean * size) / (count + size), count + size
        blocks.append((mean, size))
    lowest = bottom - (len(heights) - 1) * gap
    spread = [max(top, min(mean, lowest)) for mean, size in blocks for _ in range(size)]
    by_index = {index: at + rank * gap for rank, (index, at) in enumerate(zip(order, spread, strict=True))}
    return [by_index[index] for index in range(len(heights))]


def describe_range(values: Points, format_value: Callable[[float | None], str]) -> str:
    """For a text alternative: `between 3 % and 9 %; no data for 2 of 60 points`."""
    known = [value for value in values if value is not None]
    if not known:
        return "no data"
    missing = len(values) - len(known)
    gaps = f"; no data for {missing} of {len(values)} points" if missing else ""
    return f"between {format_value(min(known))} and {format_value(max(known))}{gaps}"
