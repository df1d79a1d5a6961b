"""Plans corrected by a profile, and plans of modules that are traced."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from gpu_advisor.calibration.memory_estimate import EstimateCorrection, MemoryEstimate
from gpu_advisor.calibration.profile import Measurement, MemoryKind, Profile, write_profile
from gpu_advisor.cli import cli
from gpu_advisor.commands import plan_module
from gpu_advisor.hardware.cluster_spec import parse_cluster
from gpu_advisor.hardware.errors import PlanError
from gpu_advisor.hardware.gpu_types import GIB
from gpu_advisor.planning.known_models import KNOWN_SHAPES
from gpu_advisor.planning.layout import OPTIMIZERS, ParallelLayout
from gpu_advisor.planning.memory_model import activations, memory
from gpu_advisor.planning.profile_correction import MAX_ACTIVATIONS_RATIO, MIN_ACTIVATIONS_RATIO, correct_from_profile
from gpu_advisor.planning.traced_plan import correction_from_profiles, traced_plans
from hypothesis import given
from hypothesis import strategies as st

MIXED = OPTIMIZERS["adamw-mixed"]
SMALL = KNOWN_SHAPES["GPT-2 XL"]


def profile(
    peak_of: Callable[[int], float],
    precision: str = "bfloat16",
    kind: MemoryKind = "driver",
    sizes: tuple[int, ...] = (1, 2, 4, 8),
) -> Profile:
    measured = tuple(Measurement(batch_size=size, peak_memory_bytes=round(peak_of(size))) for size in sizes)
    return Profile(
        gpu_type="NVIDIA H100", workload="my.training:gpt", precision=precision, memory_kind=kind,
        created_timestamp_seconds=1.7e9, measurements=measured,
    )  # fmt: skip


def peaks(context_gib: float, ratio: float) -> Callable[[int], float]:
    """A model that takes what the plan says, but for its context and its activations."""

    def peak(size: int) -> float:
        layout = ParallelLayout(micro_batch=size)
        return context_gib * GIB + memory(SMALL, layout, MIXED, 0.0).states + ratio * activations(SMALL, layout, 2)

    return peak


@given(
    st.floats(0, 8),
    st.floats(MIN_ACTIVATIONS_RATIO + 0.01, MAX_ACTIVATIONS_RATIO - 0.01),
    st.sampled_from([(1, 2), (1, 3, 5), (1, 2, 4, 8)]),
)
def test_what_a_model_really_takes_is_recovered(context_gib: float, ratio: float, sizes: tuple[int, ...]) -> None:
    peak = peaks(context_gib, ratio)
    by = correct_from_profile(profile(peak, sizes=sizes), SMALL, MIXED, True, GIB)
    assert by.activations_ratio == pytest.approx(ratio, rel=1e-5)
    assert by.overhead_bytes == pytest.approx(context_gib * GIB, abs=1e-4 * GIB)
    assert by.spread_ratio < 1e-5
    other = memory(SMALL, ParallelLayout(micro_batch=16), MIXED, by.overhead_bytes, by.activations_ratio)
    assert other.total == pytest.approx(peak(16), rel=1e-4)


def test_a_step_that_peaks_before_its_gradients_are_there_is_planned_with_them() -> None:
    gradients = memory(SMALL, ParallelLayout(), MIXED, 0.0).gradients
    peak = peaks(0, 1.2)
    by = correct_from_profile(profile(lambda size: peak(size) - gradients), SMALL, MIXED, True, GIB)
    assert by.activations_ratio == pytest.approx(1.2, rel=1e-5)
    assert by.overhead_bytes == 0


def test_memory_without_the_drivers_context_keeps_the_assumed_overhead() -> None:
    measured = profile(peaks(0.5, 1.0), kind="reserved")
    assert correct_from_profile(measured, SMALL, MIXED, True, GIB).overhead_bytes == pytest.approx(1.5 * GIB, rel=1e-4)


@pytest.mark.parametrize(
    ("measured", "reported"),
    [
        (profile(peaks(1, 1), precision="float32"), "--optimizer adamw-fp32"),
        (profile(peaks(1, 4)), "activations of the profile are 4 times"),
        (profile(peaks(1, 0.2)), "activations of the profile are 0.2 times"),
        (
            profile(lambda size: 1e9 + 0.9 * activations(SMALL, ParallelLayout(micro_batch=size), 2)),
            "for weights and optimizer",
        ),
        (profile(lambda size: peaks(1, 1)(size) * (1.9 if size == 2 else 1), sizes=(1, 2, 3)), "from the plan's line"),
    ],
)
def test_a_profile_of_another_model_is_refused(measured: Profile, reported: str) -> None:
    with pytest.raises(PlanError, match=reported):
        correct_from_profile(measured, SMALL, MIXED, True, GIB)


def run(*arguments: str) -> Any:
    return CliRunner().invoke(cli, ["plan", *arguments])


def test_the_command_corrects_by_a_profile(tmp_path: Path) -> None:
    path = tmp_path / "gpt.profile.json"
    write_profile(profile(peaks(3, 1.5)), path)
    asked = ("--params", "1.56b", "--sequence", "1024", "--gpus", "8xA100-40GB", "--format", "json")
    plain, by = json.loads(run(*asked).output), json.loads(run(*asked, "--profile", str(path)).output)
    assert plain["corrected_by"] is None
    assert by["corrected_by"]["activations_ratio"] == pytest.approx(1.5, rel=1e-3)
    assert by["plans"][0]["memory_bytes"]["overhead"] == pytest.approx(3 * GIB, rel=1e-3)
    reported = run(*asked[:-2], "--profile", str(path)).output
    assert "Corrected by 4 sizes of my.training:gpt on NVIDIA H100" in reported
    assert "Overhead 3.0 GiB, activations x 1.50" in reported
    assert "one --profile" in run(*asked, "--profile", str(path), "--profile", str(path)).output
    assert "give the path of a profile" in run(*asked, "--profile", str(tmp_path / "none.json")).output


def traced(gib_a_sample: float, spread: float = 0.0) -> Callable[[str, int, str, EstimateCorrection], MemoryEstimate]:
    """Stands in for a trace: 4 GiB and so much a sample."""

    def trace(_workload: str, size: int, _precision: str, by: EstimateCorrection) -> MemoryEstimate:
        reserved = round((4 + gib_a_sample * size) * GIB)
        whole = round(by.context_bytes + by.ratio * reserved)
        return MemoryEstimate(size, reserved, reserved, whole, round(whole * (1 - spread)), round(whole * (1 + spread)))

    return trace


@pytest.mark.parametrize(
    ("gib_a_sample", "spread", "micro_batch"),
    [(1.0, 0.0, 16), (2.0, 0.0, 8), (0.01, 0.0, 64), (1.0, 0.4, 8), (40.0, 0.0, None)],
)
def test_the_largest_micro_batch_that_fits(gib_a_sample: float, spread: float, micro_batch: int | None) -> None:
    found = traced_plans(
        "m:f",
        parse_cluster("4xL4"),
        512,
        0.1,
        "bfloat16",
        EstimateCorrection(context_bytes=GIB),
        traced(gib_a_sample, spread),
    )
    if micro_batch is None:
        assert not found.fitting
        assert found.smallest is not None
        assert found.smallest.used_ratio > 0.9
        return
    best = found.fitting[0]
    assert best.layout.micro_batch == micro_batch
    assert best.layout.global_batch == 512
    assert all(plan.used_ratio <= 0.9 and plan.estimate.high <= 24 * GIB for plan in found.fitting)


def test_profiles_correct_a_trace() -> None:
    trace = traced(1.0)
    measured = profile(lambda size: (2 + 1.1 * (4 + size)) * GIB)
    by = correction_from_profiles([measured], parse_cluster("4xL4"), GIB, trace)
    assert by.context_bytes == pytest.approx(2 * GIB, rel=1e-3)
    assert by.ratio == pytest.approx(1.1, rel=1e-3)
    assert correction_from_profiles([], parse_cluster("4xL4"), GIB, trace) == EstimateCorrection(context_bytes=GIB)


def test_a_module_by_the_command() -> None:
    """A real trace of a built-in workload."""
    found = run("--module", "mlp", "--gpus", "2xT4", "--global-batch", "2", "--format", "json")
    assert found.exit_code == 0, found.output
    reported = json.loads(found.output)
    assert [plan["layout"]["micro_batch"] for plan in reported["plans"]] == [1]
    assert reported["plans"][0]["memory_bytes"] > GIB  # the assumed overhead and the model


def test_a_modules_plans_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    found = traced_plans(
        "m:f", parse_cluster("2xL4"), 16, 0.1, "bfloat16", EstimateCorrection(context_bytes=GIB), traced(3.0)
    )
    plan_module.show("m:f", parse_cluster("2xL4"), "bfloat16", found)
    reported = capsys.readouterr().out
    assert "micro-batch 4 x 2 on 2 GPUs: 17.0 GiB" in reported
    assert "gradient_as_bucket_view=True" in reported
    assert "note: no --profile given" in reported


@pytest.mark.parametrize(
    ("arguments", "reported"),
    [
        (("--module", "mlp", "--params", "7b", "--gpus", "1xT4"), "give one model"),
        (("--module", "mlp", "--gpus", "3xT4", "--global-batch", "4"), "multiple of their number"),
        (("--module", "nothing", "--gpus", "1xT4"), "package.module:factory"),
    ],
)
def test_modules_that_cannot_be_planned(arguments: tuple[str, ...], reported: str) -> None:
    found = run(*arguments)
    assert found.exit_code == 1
    assert reported in found.output
