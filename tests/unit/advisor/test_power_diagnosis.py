"""Diagnosis without SM activity: power levels, default limits, a job's own report, and one question."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest
from gpu_advisor.evaluation import signals
from gpu_advisor.evaluation.diagnosis.decision_table import DIAGNOSES
from gpu_advisor.evaluation.diagnosis.inputs import INPUTS
from gpu_advisor.evaluation.diagnosis.power_levels import default_limit_watts, idle_shares
from gpu_advisor.evaluation.diagnosis.questions import QUESTIONS, SECONDARY_QUESTIONS
from gpu_advisor.evaluation.engine import decide
from gpu_advisor.evaluation.facts import Gpu
from gpu_advisor.evaluation.owners import GpuOwner
from gpu_advisor.evaluation.signals import Signal
from gpu_advisor.settings import Settings
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.advisor.test_policies_diagnosed import concluded_on, fleet

A100 = "NVIDIA A100-SXM4-80GB"


@pytest.mark.parametrize(
    ("name", "watts"),
    [
        ("NVIDIA H100 80GB HBM3", 700),
        ("NVIDIA H100 PCIe", 350),
        ("NVIDIA A100-SXM4-80GB", 400),
        ("NVIDIA A100 80GB PCIe", 300),
        ("Tesla T4", 70),
        ("NVIDIA L4", 72),
        ("NVIDIA GeForce RTX 4090", 450),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),  # another board by nearly the same name
        ("A GPU of next year", None),
    ],
)
def test_default_limits_by_the_drivers_name(name: str, watts: float | None) -> None:
    assert default_limit_watts(name) == watts


@given(st.sampled_from(["NVIDIA L4", "Tesla T4", A100, "NVIDIA H200", "AMD Instinct MI300X", "unknown", ""]))
def test_idle_power_with_clocks_up_is_more(name: str) -> None:
    lowest, clocks_up = idle_shares(name)
    assert 0 < lowest < clocks_up < 0.5


def limited(share: float, name: str = A100, watts: float = 400.0, **more: float) -> list[str]:
    """The advice on eight GPUs that all have the same power limit."""
    limit = share * watts
    measured = {
        signals.POWER: 0.97 * limit, signals.POWER_LIMIT: limit, signals.SM_CLOCK: 0.7e9, signals.SM_CLOCK_MAX: 1.41e9,
    }  # fmt: skip
    more_signals = {getattr(signals, key): value for key, value in more.items()}
    advice, _ = concluded_on(fleet(8, {**measured, **more_signals}, utilization=0.97, name=name))
    return [each.kind for each in advice if each.kind == "power_limit"]


def test_a_limit_that_all_gpus_have_is_seen_against_the_models() -> None:
    assert limited(0.5) == ["power_limit"]
    assert limited(1.0) == []
    assert limited(0.5, name="A GPU of next year") == []  # no default, no claim
    assert limited(0.5, name="A GPU of next year", POWER_LIMIT_DEFAULT=400.0) == ["power_limit"]
    assert limited(0.5, POWER_LIMIT_DEFAULT=200.0) == []  # what the driver reports wins


@pytest.mark.parametrize(
    ("reported", "kinds"),
    [
        ({}, {"data_loading"}),  # nothing but the host to go by
        ({signals.JOB_DATA_WAIT: 0.02}, set()),
        ({signals.JOB_DATA_WAIT: 0.4}, {"data_loading"}),
    ],
)
@pytest.mark.parametrize("host", [{signals.NODE_CPU: 0.84}, {signals.NODE_IO_PRESSURE: 0.3}])
def test_a_jobs_own_report_wins_over_the_host(
    reported: Mapping[Signal, float], kinds: set[str], host: Mapping[Signal, float]
) -> None:
    steps = {signals.JOB_STEP_TIME: 1.0} if reported else {}
    held = {signals.IDLE_MEMORY_USED: 0.8, signals.HALF_IDLE_UTILIZATION: 0.6}
    advice, _ = concluded_on(fleet(8, {**steps, **reported, **host, **held}, utilization=0.6))
    assert {each.kind for each in advice} == kinds


def test_an_owner_that_is_a_training_job_trains() -> None:
    known = fleet(1, {signals.SM_ACTIVITY: 0.12, signals.DRAM_ACTIVITY: 0.2, signals.IDLE_MEMORY_USED: 0.2})
    for owner, asks in ((GpuOwner(job="llm"), False), (GpuOwner(user="ada"), True)):
        owned = dataclasses.replace(known, owners={"GPU-0": (owner,)}, values={**known.values, "gpu_sm_activity": {}})
        asked = {each.input for each in decide(owned, Settings()).abstentions if each.subject == "diagnosis"}
        assert ("pool_kind" in asked) == asks


def test_each_question_names_causes_and_inputs_that_there_are() -> None:
    for question in (*QUESTIONS, *SECONDARY_QUESTIONS):
        assert set(question.causes) <= set(DIAGNOSES)
        assert question.inputs
        assert set(question.inputs) <= set(INPUTS)


def test_observations_agree_with_the_number_of_gpus() -> None:
    observed = [question.observed_on(1) for question in (*QUESTIONS, *SECONDARY_QUESTIONS)]
    assert not [text for text in observed if {"are", "run", "draw", "need", "their", "they"} & set(text.split())]
    assert SECONDARY_QUESTIONS[0].observed_on(1).startswith("works at full load, but draws less")
    assert all(question.observed_on(2) == question.observation for question in QUESTIONS)


GPUS = (
    Gpu("a", "0", A100, "nvidia", "n", True, "dcgm-exporter 3"),
    Gpu("b", "0", "NVIDIA GeForce RTX 4090", "nvidia", "n", True, "nvidia_gpu_exporter"),
    Gpu("c", "0", "AMD Instinct MI300X", "amd", "n", True, "amd-device-metrics-exporter"),
    Gpu("d", "0", "Intel Data Center GPU Max 1550", "intel", "n", True, "gpu-exporter"),
)


@pytest.mark.parametrize("gpu", GPUS, ids=lambda gpu: gpu.vendor + gpu.uuid)
def test_no_gpu_is_asked_for_what_another_vendors_tool_shows(gpu: Gpu) -> None:
    ways = {name: source.how for name, each in INPUTS.items() if (source := each.source(gpu))}
    text = " ".join(ways.values())
    assert ("nvidia-smi" in text, "amd-smi" in text) == (gpu.vendor == "nvidia", gpu.vendor == "amd")
    assert ("dcgm" in ways.get("sm_activity", "")) == (gpu.name == A100)
    assert "kernel_profile" in ways  # there is always one way to settle it
