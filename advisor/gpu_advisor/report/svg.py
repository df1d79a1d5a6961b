"""Primitives of the report's drawings."""

from __future__ import annotations

from markupsafe import Markup

#: How wide drawings are, in their own units; the page scales them to the room there is.
WIDTH = 760.0


def svg_line(x1: float, x2: float, y1: float, y2: float, kind: str) -> Markup:
    """A line; `kind` is its class in the style."""
    ends = (format_coordinate(each) for each in (x1, x2, y1, y2))
    return Markup('<line class="{}" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(kind, *ends)


def label(x: float, y: float, text: str, kind: str) -> Markup:
    """A text; `y` is its base line."""
    return Markup('<text class="{}" x="{}" y="{}">{}</text>').format(
        kind, format_coordinate(x), format_coordinate(y), text
    )


def format_coordinate(number: float) -> str:
    """Short: a report has many."""
    return f"{number:.1f}".removesuffix(".0")
