"""A duration as text for people."""

from __future__ import annotations

_UNITS = ((86400, "d", "day"), (3600, "h", "hour"), (60, "min", "minute"))


def duration(seconds: float, decimals: int = 1, words: bool = False) -> str:
    """In the largest unit of which it is exactly one, or at least two: `45 s`, `90 min`, `2.5 h`, `3 d`.

    With `words`: `45 seconds`, `90 minutes`, `1 day`.
    """
    size, short, long = next(
        (unit for unit in _UNITS if seconds >= 2 * unit[0] or seconds == unit[0]), (1, "s", "second")
    )
    number = f"{seconds / size:.{decimals if size > 1 else 0}f}"
    number = number.rstrip("0").rstrip(".") if "." in number else number
    return f"{number} {long}{'' if number == '1' else 's'}" if words else f"{number} {short}"
