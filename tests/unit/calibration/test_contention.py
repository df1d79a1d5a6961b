"""When other users of a GPU invalidate a probe: at the limits, and with readings that are missing."""

from __future__ import annotations

import pytest
from gpu_advisor.calibration.contention import DeviceUsage, contention_reason

GIB = 1 << 30
FREE = DeviceUsage(GIB // 2, 0.0, 0)


@pytest.mark.parametrize(
    ("before", "valid"),
    [
        (DeviceUsage(GIB, 0.0, 0), True),
        (DeviceUsage(GIB + 1, 0.0, 0), False),
        (DeviceUsage(0, 0.05, 0), True),
        (DeviceUsage(0, 0.051, 0), False),
        (DeviceUsage(None, 0.051, None), False),
        (DeviceUsage(None, None, 1), False),
        (DeviceUsage(GIB + 1, None, None), False),
        (DeviceUsage(None, None, None), True),
        (DeviceUsage(0, None, 0), True),
    ],
)
def test_a_gpu_in_use_before_the_probe(before: DeviceUsage, valid: bool) -> None:
    after = DeviceUsage(before.used_bytes, 1.0, 0)
    assert (contention_reason(before, after, 0) is None) is valid
    assert contention_reason(before, after, 0) != ""


@pytest.mark.parametrize(
    ("used", "processes", "valid"),
    [
        (10.5, 0, True),  # what we reserved, and what was there before
        (12.5, 0, True),  # and a context
        (12.51, 0, False),
        (10.5, 1, False),
        (10.5, None, True),
        (None, 0, True),
        (None, 2, False),
        (0.1, 0, True),
    ],
)
def test_a_gpu_that_others_use_during_the_probe(used: float | None, processes: int | None, valid: bool) -> None:
    after = DeviceUsage(None if used is None else round(used * GIB), 1.0, processes)
    assert (contention_reason(FREE, after, 10 * GIB) is None) is valid
    blind = DeviceUsage(None, 0.0, 0)
    assert (contention_reason(blind, after, 10 * GIB) is None) is (not processes)
