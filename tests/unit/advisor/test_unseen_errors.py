"""Fatal errors that no series shows: which GPUs are named, and what would show them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from gpu_advisor.evaluation.policies import unseen_errors
from gpu_advisor.evaluation.pools import assign_pools
from gpu_advisor.evaluation.recommendation import Reason
from gpu_advisor.evaluation.signals import FATAL_ERRORS, LAST_ERROR
from gpu_advisor.settings import Settings

from tests.unit.advisor.builders import GpuSpec, facts, with_values


@pytest.mark.parametrize(
    ("up", "exporter", "fatal", "last", "reason"),
    [
        (True, "nvidia_gpu_exporter", None, None, Reason.UNSUPPORTED),
        (True, "nvidia_gpu_exporter (own_*)", None, None, Reason.UNSUPPORTED),
        (True, "amd-device-metrics-exporter", None, None, Reason.UNSUPPORTED),
        (True, "dcgm-exporter", None, None, None),
        (True, "nvidia_gpu_exporter", 0.0, None, None),  # published: another policy reports it
        (True, "dcgm-exporter", None, 79.0, Reason.CONFLICTING),
        (True, "dcgm-exporter", 1.0, 79.0, None),
        (True, "dcgm-exporter", None, 13.0, None),  # an error of the program
        (False, "nvidia_gpu_exporter", None, None, None),  # down: reported as that
        (False, "dcgm-exporter", None, 79.0, None),
        (None, "dcgm-exporter", None, 79.0, None),
    ],
)
def test_gpus_whose_fatal_errors_are_not_seen(
    up: bool | None, exporter: str, fatal: float | None, last: float | None, reason: Reason | None
) -> None:
    known = facts([GpuSpec("a", up=up), GpuSpec("b")])
    known = replace(known, gpus=(replace(known.gpus[0], exporter=exporter), known.gpus[1]))
    values = {FATAL_ERRORS: {"a": fatal}, LAST_ERROR: {"a": last}}
    known = with_values(
        known, {signal: {k: v for k, v in of.items() if v is not None} for signal, of in values.items()}
    )
    (pool,) = assign_pools(known.gpus, Settings().pools)
    found = list(unseen_errors.recommend(known, Settings(), pool))
    assert [(each.reason, each.gpus) for each in found] == ([] if reason is None else [(reason, ("a",))])
    assert all("1 of 2 GPUs" in each.message and "dmesg" in each.message for each in found)
