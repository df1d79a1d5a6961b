"""Jinja filters that format values for people. An unknown value is a dash, never a zero."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timezone
from functools import partial, wraps
from typing import Any

from gpu_advisor.evaluation.recommendation import Check
from gpu_advisor.rendering.durations import duration
from gpu_advisor.rendering.names import humanize

UNKNOWN = "–"

#: Steps of a thousand, and of 1024 for memory.
_THOUSANDS = ("", "k", "M", "G", "T", "P")
_KIBI = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")

_VENDORS: Mapping[str, str] = {"amd": "AMD", "ascend": "Ascend", "intel": "Intel", "nvidia": "NVIDIA"}

_SUFFIXES = {"celsius": " °C", "watts": " W", "seconds": " s", "tokens": " tokens", "per_second": "/s",
             "tokens_per_second": " tokens/s"}  # fmt: skip


def percent(ratio: float | None) -> str:
    """0.123 -> 12 %"""
    if ratio is None:
        return UNKNOWN
    return f"{ratio * 100:.1f} %" if 0.0005 <= abs(ratio) < 0.1 else f"{ratio * 100:.0f} %"


def value_text(value: float | None, unit: str) -> str:
    """A value with its unit, rounded for people."""
    if value is None:
        return UNKNOWN
    if unit == "ratio":
        return percent(value)
    if unit == "bytes":
        return _scaled(value, 1024, _KIBI)
    if unit in ("hertz", "bytes_per_second"):
        return _scaled(value, 1000, _THOUSANDS) + {"hertz": "Hz", "bytes_per_second": "B/s"}[unit]
    if unit == "seconds" and 0 < abs(value) < 1:
        return f"{float(f'{1000 * value:.3g}'):.4g} ms"
    digits = ".0f" if unit == "watts" and abs(value) >= 10 else ".4g"
    return f"{value:{digits}}{_SUFFIXES.get(unit, '')}"


def _scaled(value: float, base: int, names: tuple[str, ...]) -> str:
    power = 0
    while abs(value) >= base and power < len(names) - 1:
        value, power = value / base, power + 1
    return f"{value:.3g} {names[power]}"


def check_value(check: Check, currency: str = "") -> str:
    return value_text(check.value, "ratio") if check.item != "cost" else money(check.value, currency)


def format_target(check: Check, currency: str = "") -> str:
    """The target range."""
    format_value = partial(money, currency=currency) if check.item == "cost" else percent
    if check.low and check.high is not None and (check.high < 1 or check.item == "cost"):
        return f"{format_value(check.low)} to {format_value(check.high)}"
    if check.low:
        return f"at least {format_value(check.low)}"
    return f"at most {format_value(check.high)}" if check.high is not None else ""


def format_deviation(check: Check, currency: str = "") -> str:
    """`19 points too low`: percentage points, or money."""
    if check.missed_by is None:
        return ""
    far = money(abs(check.missed_by), currency) if check.item == "cost" else _points(abs(check.missed_by))
    return f"{far} too {'high' if check.missed_by > 0 else 'low'}"


def _points(ratio: float) -> str:
    points = ratio * 100
    return f"{points:.0f} points" if points >= 9.5 else f"{points:.1f} points"


def drivers_by_state(drivers: Mapping[str, Iterable[str]]) -> list[tuple[str, list[str]]]:
    """States that are not `ok`, each with the vendors whose driver has it on some node."""
    found: dict[str, list[str]] = {}
    for vendor, states in sorted(drivers.items()):
        for state in sorted(set(states) - {"ok"}):
            found.setdefault(state, []).append(_VENDORS.get(vendor, vendor))
    return sorted(found.items())


def money(value: float | None, currency: str) -> str:
    return UNKNOWN if value is None else f"{value:,.2f} {currency} per hour"


def signed_money(value: float | None, currency: str) -> str:
    return UNKNOWN if value is None else f"{value:+,.2f} {currency} per hour"


def time_of_day(seconds: float) -> str:
    """Hours and minutes, in UTC."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%H:%M")


def ago(seconds: float, now: float) -> str:
    """How long before `now`: `3 h ago`."""
    return "just now" if now - seconds < 60 else f"{duration(now - seconds, decimals=0)} ago"


def clock_or_day(seconds: float, now: float) -> str:
    """`11:30` within a day, else `27 Nov 11:30`; UTC."""
    form = "%H:%M" if now - seconds < 86400 else "%d %b %H:%M"
    return datetime.fromtimestamp(seconds, timezone.utc).strftime(form)


def utc_time(seconds: float) -> str:
    """A time for people; the element's `datetime` attribute has the machine-readable one."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


def gpu_count(number: float) -> str:
    """How many GPUs: whole ones from ten up, one decimal below."""
    text = f"{number:.0f}" if number >= 10 else f"{number:.1f}".removesuffix(".0")
    return f"{text} GPU{'' if text == '1' else 's'}"


def replica_unit(pool: Mapping[str, Any]) -> str:
    """What a pool's number of replicas counts: `servers`, `of 1 GPU`, `of 2 GPUs each`."""
    if pool["replicas_are"] == "servers":
        return "server" if pool["replicas"] == 1 else "servers"
    size = pool["gpus_per_replica"]
    return "of 1 GPU" if size == 1 else f"of {size} GPUs each"


def first_clause(message: str) -> tuple[str, str]:
    """What stands before the first semicolon outside parentheses, and what follows it ("" without one)."""
    depth = 0
    for at, character in enumerate(message):
        depth += (character == "(") - (character == ")")
        if depth <= 0 and message.startswith("; ", at):
            return message[:at], message[at + 2 :]
    return message, ""


def sentence(message: str) -> str:
    """With a full stop, and a capital unless it begins with an address."""
    first = message.partition(" ")[0]
    begin = message[:1] if "://" in first else message[:1].upper()
    return begin + message[1:] + ("" if message.endswith((".", "?")) else ".")


def unbroken(text: str) -> str:
    """`80%` and `80 %` alike with a space that does not break, as a page shows percentages."""
    return _PERCENTAGE.sub("\N{NO-BREAK SPACE}%", text)


_PERCENTAGE = re.compile(r"(?<=[0-9]) ?%(?![0-9A-Za-z])")


def _in_pages(format_: Callable[..., str]) -> Callable[..., str]:
    """The filter of templates; terminals have plain spaces."""

    @wraps(format_)
    def formatted(*arguments: Any, **named: Any) -> str:
        return unbroken(format_(*arguments, **named))

    return formatted


_WITH_PERCENTAGES: tuple[Callable[..., str], ...] = (percent, value_text, check_value, format_target)

FILTERS: tuple[Callable[..., Any], ...] = (
    *map(_in_pages, _WITH_PERCENTAGES),
    format_deviation, money, signed_money, humanize, duration, time_of_day, utc_time, gpu_count, ago, clock_or_day,
    replica_unit, first_clause, sentence, drivers_by_state,
)  # fmt: skip
