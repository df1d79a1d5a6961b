"""Numbers and times as text: units, signs, rounding, and a dash for what is unknown."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from gpu_advisor.rendering.durations import duration
from gpu_advisor.report import formatting
from gpu_advisor.report.formatting import UNKNOWN
from hypothesis import given
from hypothesis import strategies as st

MONDAY = 1_795_392_000.0  # 2026-11-23 00:00 UTC


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        (formatting.percent, 0.125, "12.5 %"),
        (formatting.percent, 0.0, "0.0 %"),
        (formatting.hours, 1234.56, "1,234.6"),
        (formatting.money, 1234.5, "1,234.50"),
        (formatting.money, 0.0, "0.00"),
        (formatting.signed_money, 1234.5, "+1,234.50"),
        (formatting.signed_money, -2.0, "-2.00"),
        (formatting.count, 12000.0, "12,000"),
        (formatting.count, 0.5, "0.5"),
        (formatting.signed_money, -0.001, "+0.00"),
        (formatting.signed_hours, -1234.56, "-1,234.6"),
        (formatting.signed_percent, -0.0001, "+0.0 %"),
        (formatting.signed_percent, 0.2, "+20.0 %"),
        (formatting.signed_count, 2.0, "+2"),
        (formatting.percentage_points, 0.015, "+1.5 points"),
        (formatting.percentage_points, -0.2, "-20.0 points"),
    ],
)
def test_numbers(function: Callable[[float | None], str], value: float, text: str) -> None:
    assert function(value) == text
    assert function(None) == UNKNOWN


def test_times() -> None:
    assert formatting.to_minute("2026-11-23T10:05:59Z") == "2026-11-23 10:05"
    assert formatting.to_minute(None) == UNKNOWN
    assert formatting.parse_rfc3339("2026-11-23T00:00:00Z") == MONDAY
    assert formatting.parse_rfc3339("2026-11-23T01:00:00+01:00") == MONDAY
    assert (formatting.day(MONDAY), formatting.day(MONDAY, True)) == ("Mon 23 Nov", "23 Nov")
    assert formatting.clock(MONDAY + 3660) == "01:01"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 seconds"),
        (59, "59 seconds"),
        (60, "1 minute"),
        (61, "61 seconds"),
        (119, "119 seconds"),
        (120, "2 minutes"),
        (150, "2.5 minutes"),
        (3600, "1 hour"),
        (3601, "60 minutes"),
        (5400, "90 minutes"),
        (7199, "120 minutes"),
        (7200, "2 hours"),
        (86400, "1 day"),
        (129600, "36 hours"),
        (172800, "2 days"),
        (604800, "7 days"),
    ],
)
def test_durations_in_the_largest_unit_that_fits_twice(seconds: float, text: str) -> None:
    assert duration(seconds, words=True) == text


@pytest.mark.parametrize(
    ("seconds", "text", "rounded"),
    [(45, "45 s", "45 s"), (90, "90 s", "90 s"), (1800, "30 min", "30 min"), (3600, "1 h", "1 h"),
     (5400, "90 min", "90 min"), (9000, "2.5 h", "2 h"), (72000, "20 h", "20 h"), (864000, "10 d", "10 d")],
)  # fmt: skip
def test_durations_with_the_symbols_of_units(seconds: float, text: str, rounded: str) -> None:
    assert (duration(seconds), duration(seconds, decimals=0)) == (text, rounded)


@given(st.text(max_size=12), st.integers(1, 12))
def test_a_long_name_is_cut_to_its_length(name: str, length: int) -> None:
    found = formatting.truncate(name, length)
    assert len(found) <= length
    assert found == name or (len(name) > length and found == name[: length - 1] + "…")
