"""A trace of the step as a further point of the memory fit, and where it misleads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from gpu_advisor.calibration.batch_size_advice import WIDTH_RATIOS, BatchSizeRequest, recommend_batch_size
from gpu_advisor.calibration.errors import CalibrationError, PointsError, WorkloadError
from gpu_advisor.calibration.memory_fit import fit_memory
from gpu_advisor.calibration.points import MeasuredPoint, MeasuredPoints, clean_points
from gpu_advisor.calibration.prior import TRACE_PRIOR
from gpu_advisor.calibration.profile import read_profile, write_profile
from gpu_advisor.calibration.trace_worker import trace_in_subprocess
from gpu_advisor.calibration.traced_memory import TracedMemory, sizes_to_trace
from gpu_advisor.cli import cli
from hypothesis import given, settings
from hypothesis import strategies as st

GIB = 1 << 30
SIZES = (8, 16, 32, 64, 128)


def trace(*gib: float) -> TracedMemory:
    return TracedMemory(tuple((size, round(each * GIB)) for size, each in zip(SIZES, gib, strict=True)))


def points(at8: float, at16: float, traced: TracedMemory | None = None) -> MeasuredPoints:
    measured = (MeasuredPoint(size, round(gib * GIB)) for size, gib in ((8, at8), (16, at16)))
    return clean_points(measured, traced=traced)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.3, 3), st.floats(0.5, 8), st.floats(0.02, 0.5), st.sampled_from([32, 64, 128]))
def test_a_trace_narrows_the_interval_around_the_truth(
    context: float, fixed: float, per_sample: float, size: int
) -> None:
    traced = trace(*(fixed + per_sample * each for each in SIZES))
    at8, at16 = (context + fixed + per_sample * each for each in (8, 16))
    truth = (context + fixed + per_sample * size) * GIB
    without, found = fit_memory(points(at8, at16)).predict(size), fit_memory(points(at8, at16, traced)).predict(size)
    assert found.low <= truth <= found.high
    assert found.peak_memory_bytes == pytest.approx(truth, rel=0.03)
    assert found.high - found.low < 0.8 * (without.high - without.low)


def test_the_trace_knows_a_bend_beyond_the_measured_sizes() -> None:
    """The optimizer's step makes the peak of small batches, and says nothing of the activations of large ones."""
    traced = trace(4, 4, 4, 6, 10)
    found, without = fit_memory(points(5, 5, traced)).predict(128), fit_memory(points(5, 5)).predict(128)
    assert found.peak_memory_bytes == pytest.approx(11 * GIB, rel=0.03)
    assert found.high - found.low < 4 * GIB < 10 * GIB < without.high - without.low


@pytest.mark.parametrize("ratio", [0.3, 3.0, 8.0])
def test_a_trace_of_another_step_counts_for_little(ratio: float) -> None:
    traced = trace(*(2 + ratio * 0.2 * size for size in SIZES))
    fit, without = fit_memory(points(3.6, 5.2, traced)), fit_memory(points(3.6, 5.2))
    assert fit.trace_share < 0.5
    found, expected = fit.predict(64), without.predict(64)
    assert found.peak_memory_bytes == pytest.approx(expected.peak_memory_bytes, rel=0.1)
    (note,) = [n for n in recommend_batch_size(fit.points, BatchSizeRequest(40 * GIB, 0.9)).notes if "trace" in n]
    assert "check that it is the workload that was measured" in note


def test_without_a_trace_a_note_says_how_to_add_it() -> None:
    request = BatchSizeRequest(40 * GIB, 0.9)
    with_it, without = (recommend_batch_size(points(3, 4, each), request) for each in (trace(2, 3, 5, 9, 17), None))
    assert any("--model package.module:factory" in note for note in without.notes)
    assert not any("--model package.module:factory" in note for note in with_it.notes)


def test_shares_and_evidence() -> None:
    fit = fit_memory(points(3, 4, trace(2, 3, 5, 9, 17)))
    assert fit.trace is not None
    assert fit.trace.weight.sum() == pytest.approx(1)
    assert TRACE_PRIOR.trust < fit.trace_share < 1
    assert fit.exceeds_probability(128, 30 * GIB) < 0.01 < 0.99 < fit.exceeds_probability(128, 12 * GIB)
    assert fit_memory(points(3, 4)).trace_share == 0
    assert sum(weight for _, weight in TRACE_PRIOR.growths) == pytest.approx(1, abs=2e-3)
    assert sum(weight for _, weight in TRACE_PRIOR.noises) == pytest.approx(1, abs=2e-3)


def test_between_traced_sizes_memory_is_linear_and_never_negative() -> None:
    traced = TracedMemory(((8, 800), (16, 1600), (64, 11200)))
    assert [traced.bytes_at(size) for size in (8, 12, 16, 40, 64, 128)] == [800, 1200, 1600, 6400, 11200, 24000]
    assert TracedMemory(((8, 100), (16, 1000))).bytes_at(1) == 0


@pytest.mark.parametrize("rows", [(), ((8, 1),), ((16, 1), (8, 2)), ((8, 1), (8, 2)), ((8, 0), (16, 1))])
def test_what_is_no_trace(rows: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(PointsError, match="trace again"):
        TracedMemory(rows)


def test_sizes_to_trace() -> None:
    assert sizes_to_trace((8, 16), (24, 100, 1000)) == [8, 16, 24, 32, 64, 100, 128]
    assert sizes_to_trace((1, 3)) == [1, 3, 6, 12, 24]


WORKLOADS = """
import torch

def small(batch_size, device, precision):
    layer = torch.nn.Linear(256, 256, device=device)
    def step():
        layer(torch.randn(64 * batch_size, 256, device=device)).square().mean().backward()
    return step

def reads_values(batch_size, device, precision):
    step = small(batch_size, device, precision)
    return lambda: (step(), [0] * int(torch.randn(4).abs().sum().item() + 1))
"""


@pytest.fixture
def workload_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "traced_workloads.py").write_text(WORKLOADS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_a_probe_traces_its_workload_and_batch_size_uses_it(workload_folder: Path) -> None:
    path = workload_folder / "a.profile.json"
    arguments = ["probe", "--device", "cpu", "--threads", "1", "--seconds", "0", "--sizes", "8,16"]
    result = CliRunner().invoke(cli, [*arguments, "--workload", "traced_workloads:small", "--output", str(path)])
    assert result.exit_code == 0, result.output
    profile = read_profile(path)
    assert [each.batch_size for each in profile.traced_sizes] == [8, 16, 32, 64, 128]
    answer = CliRunner().invoke(cli, ["batch-size", "--profile", str(path), "--memory", "8GiB", "--format", "json"])
    assert "memory beyond the measured sizes follows the traced step" in json.loads(answer.output)["notes"]
    without = workload_folder / "without.profile.json"
    write_profile(profile.model_copy(update={"traced_sizes": ()}), without)
    again = CliRunner().invoke(cli, ["batch-size", "--profile", str(without), "--memory", "8GiB", "--format", "json",
                                     "--model", "traced_workloads:small"])  # fmt: skip
    assert json.loads(again.output) == json.loads(answer.output)  # with the profile's precision and kind of memory


def test_points_with_a_workload_are_traced(workload_folder: Path) -> None:
    csv = workload_folder / "points.csv"
    csv.write_text(f"batch_size,peak_memory_bytes\n8,{2 * GIB}\n16,{2 * GIB + (2 << 20)}\n")
    arguments = ["batch-size", "--points", str(csv), "--memory", "8GiB", "--memory-kind", "allocated"]
    result = CliRunner().invoke(cli, [*arguments, "--model", "traced_workloads:small"])
    assert result.exit_code == 0, result.output
    assert "the traced step" in result.output
    missing = CliRunner().invoke(cli, [*arguments, "--workload", "traced_workloads:none"])
    assert missing.exit_code == 2
    assert "has no attribute 'none'" in missing.output


def test_what_cannot_be_traced_says_why_and_the_measurements_stay(workload_folder: Path) -> None:
    with pytest.raises(WorkloadError, match=r"reads the values of tensors .*leave out \.item\(\)"):
        trace_in_subprocess("traced_workloads:reads_values", (8, 16), "float32", "allocated")
    path = workload_folder / "b.profile.json"
    arguments = ["probe", "--device", "cpu", "--threads", "1", "--seconds", "0", "--sizes", "8,16"]
    result = CliRunner().invoke(cli, [*arguments, "--workload", "traced_workloads:reads_values", "--output", str(path)])
    assert result.exit_code == 0
    assert "not traced: " in result.output
    assert not read_profile(path).traced_sizes


def test_a_worker_that_crashes_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpu_advisor.calibration.trace_worker.MODULE", "no.such.module")
    with pytest.raises(CalibrationError, match=r"exited with code 1: .*no\.such|exited with code 1: .*'no'"):
        trace_in_subprocess("mlp", (8, 16), "float32", "driver")


def test_without_a_trace_the_advice_says_how_much_narrower_it_would_be_and_how_to_give_it() -> None:
    request = BatchSizeRequest(40 * GIB, 0.85, (64,))
    note = next(each for each in recommend_batch_size(points(4, 6), request).notes if "trace" in each)
    assert "--model package.module:factory" in note
    assert "factory(batch_size, device, precision)" in note
    results = json.loads((Path(__file__).parents[3] / "benchmarks/results/batch_fit.json").read_text())
    for ratio, (without, traced) in WIDTH_RATIOS.items():
        assert f"from {without:.0%}" in note
        assert f"to {traced:.0%}" in note
        assert results[f"new families 8-16 x{ratio}"]["width"] == pytest.approx(without, abs=0.01)
        assert results[f"new families 8-16 traced x{ratio}"]["width"] == pytest.approx(traced, abs=0.01)
    with_trace = recommend_batch_size(points(4, 6, trace(3, 5, 9, 17, 33)), request)
    assert not any("--model" in each for each in with_trace.notes)
