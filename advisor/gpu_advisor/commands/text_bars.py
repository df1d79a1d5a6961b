"""Bars and sparklines of block characters, or of ASCII where the terminal has no Unicode. Pure."""

from __future__ import annotations

from collections.abc import Sequence

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_LEVELS = "▁▂▃▄▅▆▇█"
_ASCII_LEVELS = "_.-=*%#@"


def bar(ratio: float | None, width: int, unicode: bool) -> str:
    """A bar of `width` characters for 0..1; all dots if unknown, so that it is no zero."""
    if ratio is None:
        return ("·" if unicode else "?") * width
    eighths = round(min(max(ratio, 0.0), 1.0) * width * 8)
    if not unicode:
        return ("#" * round(eighths / 8)).ljust(width, ".")
    part = _EIGHTHS[eighths % 8] if eighths % 8 else ""
    return ("█" * (eighths // 8) + part).ljust(width)


def sparkline(ratios: Sequence[float | None], width: int, unicode: bool) -> str:
    """The last `width` values of 0..1, the newest at the right; a space for each that is unknown or not there yet."""
    levels = _LEVELS if unicode else _ASCII_LEVELS
    shown = list(ratios)[-width:] if width else []
    marks = (
        " " if ratio is None else levels[min(len(levels) - 1, int(min(max(ratio, 0.0), 1.0) * len(levels)))]
        for ratio in shown
    )
    return "".join(marks).rjust(width)
