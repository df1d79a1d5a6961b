"""Numbers as text, the same in each rendering. Unknown is a dash, never zero."""

from __future__ import annotations

from datetime import datetime, timezone

UNKNOWN = "–"


def percent(ratio: float | None) -> str:
    return UNKNOWN if ratio is None else f"{ratio * 100:.1f} %"


def hours(value: float | None) -> str:
    """GPU-hours."""
    return UNKNOWN if value is None else f"{value:,.1f}"


def money(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:,.2f}"


def signed_money(value: float | None) -> str:
    return UNKNOWN if value is None else f"{_rounded(value, 2):+,.2f}"


def signed_hours(value: float | None) -> str:
    return UNKNOWN if value is None else f"{_rounded(value, 1):+,.1f}"


def signed_percent(ratio: float | None) -> str:
    """A relative difference."""
    return UNKNOWN if ratio is None else f"{_rounded(ratio * 100, 1):+,.1f} %"


def _rounded(value: float, digits: int) -> float:
    """Without a negative zero."""
    return round(value, digits) + 0.0


def signed_count(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:+,.10g}"


def count(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:,.10g}"


def gpus(value: float | None) -> str:
    """A number of GPUs, of which some count in part."""
    return UNKNOWN if value is None else f"{round(value, 1):,.10g}"


def percentage_points(ratio: float | None) -> str:
    """A difference of two percentages."""
    return UNKNOWN if ratio is None else f"{_rounded(ratio * 100, 1):+.1f} points"


def to_minute(text: str | None) -> str:
    """An RFC 3339 time of the document, to the minute."""
    return UNKNOWN if text is None else text[:16].replace("T", " ")


def parse_rfc3339(text: str) -> float:
    """An RFC 3339 time of the document as Unix time."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def day(seconds: float, short: bool = False) -> str:
    """Mon 16 Nov, or 16 Nov."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%d %b" if short else "%a %d %b")


def clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%H:%M")


def truncate(name: str, length: int) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"
