"""What is measured before and after a recommendation of each kind."""

from __future__ import annotations

from dataclasses import replace

import pytest
from gpu_advisor.evaluation.facts import Facts
from gpu_advisor.evaluation.policies import KINDS
from gpu_advisor.evaluation.recommendation import Scope
from gpu_advisor.state.measures import MEASURES, Measurement, measure, values_before
from gpu_advisor.state.outcomes import (
    ClosedRecommendation,
    TrackedRecommendation,
    UtilizationSnapshot,
    judge_settled,
)

from tests.unit.advisor.builders import AT, GpuSpec, facts

GPUS = ("a", "b")


def known(**values: float) -> Facts:
    found = facts([GpuSpec(uuid, None, memory=None) for uuid in GPUS])
    return replace(found, values={**found.values, **{name: {"a": value} for name, value in values.items()}})


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_measured_or_says_why_not(kind: str) -> None:
    for each in MEASURES.get(kind, ()):
        before, after = known(**{each.signal.name: 0.2}), known(**{each.signal.name: 0.6})
        found = measure(kind, GPUS, values_before(kind, GPUS, before), after)
        assert found == Measurement(each.signal.name, each.signal.unit, 0.2, 0.6, each.better == "higher")
    reason = measure(kind, GPUS, {}, known())
    assert isinstance(reason, str)
    assert reason


@pytest.mark.parametrize(
    ("kind", "before", "after", "signal", "improved"),
    [
        ("data_loading", {"training_data_wait": 0.4, "gpu_idle_utilization": 0.5},
         {"training_data_wait": 0.1, "gpu_idle_utilization": 0.4}, "training_data_wait", True),
        ("data_loading", {"gpu_idle_utilization": 0.5}, {"training_data_wait": 0.1, "gpu_idle_utilization": 0.8},
         "gpu_idle_utilization", True),  # only what was known before
        ("cooling", {"gpu_throttle_hw_thermal": 0.3}, {"gpu_throttle_hw_thermal": 0.29}, "gpu_throttle_hw_thermal",
         False),  # noise
        ("cooling", {"gpu_throttle_hw_thermal": 0.5}, {"gpu_throttle_hw_thermal": 0.47}, "gpu_throttle_hw_thermal",
         True),  # three points
        ("power_limit", {"gpu_sm_clock": 1.0e9}, {"gpu_sm_clock": 1.01e9}, "gpu_sm_clock", False),
        ("power_limit", {"gpu_sm_clock": 1.0e9}, {"gpu_sm_clock": 1.2e9}, "gpu_sm_clock", True),
    ],
)  # fmt: skip
def test_before_and_after(
    kind: str, before: dict[str, float], after: dict[str, float], signal: str, improved: bool
) -> None:
    found = measure(kind, GPUS, values_before(kind, GPUS, known(**before)), known(**after))
    assert isinstance(found, Measurement)
    assert (found.signal, found.improved) == (signal, improved)


def test_what_cannot_be_known_has_a_reason() -> None:
    before = {"gpu_idle_utilization": 0.2}
    assert "released" in str(measure("idle_reclaim", GPUS, before, facts([GpuSpec("c")])))
    assert "no exporter" in str(measure("idle_reclaim", GPUS, before, known()))
    assert "no exporter" in str(measure("idle_reclaim", GPUS, {}, known(gpu_idle_utilization=0.5)))
    assert measure("smaller_gpu", GPUS, before, known())


def test_an_outcome_has_its_measurement() -> None:
    """Also of a job, which has no utilization of its own in the checklist."""
    made = TrackedRecommendation(
        "1", "data_loading", "change", Scope("job", "llm"), "affected GPUs", AT - 9000, 2, 0, None, None, GPUS,
        {"training_data_wait": 0.4},
    )  # fmt: skip
    closed = ClosedRecommendation(made, AT - 1000, None)
    after = UtilizationSnapshot(AT, {}, {}, known(training_data_wait=0.1))
    waiting, (outcome,) = judge_settled([closed], after, 900)
    assert waiting == ()
    assert outcome.measured == Measurement("training_data_wait", "ratio", 0.4, 0.1, True)
    assert (outcome.improved, outcome.not_measured) == (True, "")
    _, (unknown,) = judge_settled([closed], UtilizationSnapshot(AT + 9000, {}, {}, known()), 900)
    assert (unknown.measured, unknown.improved) == (None, None)
    assert unknown.not_measured
