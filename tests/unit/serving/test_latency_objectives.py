"""Latency objectives of a serving pool: durations with their unit."""

from __future__ import annotations

import pytest
from gpu_advisor.settings.slo import SloSettings
from pydantic import ValidationError


@pytest.mark.parametrize(("text", "seconds"), [("500ms", 0.5), (" 2 s", 2.0), (".05s", 0.05), ("600s", 600.0)])
def test_durations_have_a_unit(text: str, seconds: float) -> None:
    found = SloSettings.model_validate({"ttft_p95": text, "itl_p95": text})
    assert found.ttft_p95 == pytest.approx(seconds)
    assert found.itl_p95 == pytest.approx(seconds)


@pytest.mark.parametrize("value", [0.5, 500, "500", "0ms", "11min", "-1s", "601s", None, True])
def test_what_is_no_duration_is_refused_with_the_fix(value: object) -> None:
    with pytest.raises(ValidationError, match=r"500ms or 2s|not between 1ms and 600s|no objective"):
        SloSettings.model_validate({"ttft_p95": value})
