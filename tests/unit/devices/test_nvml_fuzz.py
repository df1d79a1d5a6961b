"""A short run of the fuzzer with fixed seeds; `python -m tests.nvml_fuzz --minutes 30` is a long one with new seeds."""

from __future__ import annotations

import random
import subprocess
import sys
from dataclasses import replace

import pytest

from tests.nvml_fuzz import oracle
from tests.nvml_fuzz.machines import GPU_FUNCTIONS, MEMORY_FUNCTIONS, random_gpu
from tests.nvml_fuzz.worker import FalsePageError, parse
from tests.simulated_nvml.build import NoCompilerError
from tests.simulated_nvml.control import SimulatedGpu

EPISODES = 12


def test_a_driver_that_answers_at_random() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.nvml_fuzz", "--seed", "20260", "--episodes", str(EPISODES)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if NoCompilerError.__name__ in done.stdout:
        pytest.skip("the simulated NVML needs gcc")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"episodes {EPISODES}," in done.stdout


# ---- the oracle notices what it is there for ---------------------------------------------------------------------


def faulty(**faults: dict[str, int]) -> SimulatedGpu:
    gpu = random_gpu(random.Random(1), 0)
    for name, value in faults.items():
        setattr(gpu, name, value)
    return gpu


POWER = oracle.QUANTITIES[("gpu_power_watts",)]
GPU = random_gpu(random.Random(1), 0)


@pytest.mark.parametrize(
    ("faults", "allowed"),
    [
        ({}, {101.0}),
        ({"errors": {"nvmlDeviceGetPowerUsage": 999}}, set()),
        ({"errors": {"nvmlDeviceGetPowerUsage": 999}, "chances": {"nvmlDeviceGetPowerUsage": 50}}, {101.0}),
        ({"raw": {"nvmlDeviceGetPowerUsage": 250_000}}, {250.0}),
        ({"raw": {"nvmlDeviceGetPowerUsage": 5_000_000}}, set()),
    ],
)
def test_which_values_are_true(faults: dict[str, dict[str, int]], allowed: set[float]) -> None:
    assert oracle.answers(POWER, GPU, faulty(**faults), frozenset()) == allowed


def test_when_a_gpu_may_be_down() -> None:
    assert not oracle.may_be_down(faulty(), frozenset())
    assert not oracle.may_be_down(
        faulty(errors={"nvmlDeviceGetFanSpeed": 15, "nvmlDeviceGetPowerUsage": 15}), frozenset()
    )
    assert oracle.may_be_down(faulty(errors=dict.fromkeys(GPU_FUNCTIONS, 15)), frozenset())
    assert not oracle.may_be_down(faulty(errors=dict.fromkeys(GPU_FUNCTIONS, 3)), frozenset())


def test_what_mig_mode_refuses_is_no_answer() -> None:
    lost = (
        "nvmlDeviceGetTemperature", "nvmlDeviceGetPowerUsage", "nvmlDeviceGetEnforcedPowerLimit",
        "nvmlDeviceGetPerformanceState", "nvmlDeviceGetPcieReplayCounter", "nvmlDeviceGetTotalEccErrors",
        "nvmlDeviceGetTotalEnergyConsumption", *MEMORY_FUNCTIONS,
    )  # fmt: skip
    gpu = replace(faulty(errors=dict.fromkeys(lost, 15)), mig=False)
    assert not oracle.may_be_down(gpu, frozenset())
    assert oracle.may_be_down(replace(gpu, mig=True), frozenset())


@pytest.mark.parametrize("page", [b'gpu_up{uuid="a"} 1\ngpu_up{uuid="a"} 1\n', b'gpu_power_watts{uuid="a"} NaN\n'])
def test_pages_that_a_server_would_refuse(page: bytes) -> None:
    with pytest.raises(FalsePageError):
        parse(page)
