"""The estimate without a GPU, beside the same steps really run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from gpu_advisor.calibration.errors import WorkloadError
from gpu_advisor.calibration.memory_estimate import estimate_memory, fit_correction
from gpu_advisor.calibration.profile import write_profile
from gpu_advisor.calibration.workloads import BUILT_IN
from gpu_advisor.cli import cli

from tests.unit.calibration.test_profile import profile


@pytest.mark.parametrize("workload", ["mlp", "conv", "transformer"])
def test_a_trace_sees_what_a_run_takes(workload: str) -> None:
    import torch
    from gpu_advisor.calibration.device_meters import CpuMeter
    from gpu_advisor.calibration.workloads import build_step

    torch.set_num_threads(1)
    _, ran = CpuMeter(None).memory(lambda: build_step(workload, 2, torch.device("cpu"), "float32"))
    found = estimate_memory(workload, 2)
    assert 0.97 <= found.allocated_bytes / ran.peak_bytes <= 1.03
    assert found.reserved_bytes >= found.allocated_bytes
    assert estimate_memory(workload, 8).allocated_bytes > found.allocated_bytes


def test_a_wrong_workload_is_an_error() -> None:
    with pytest.raises(WorkloadError, match="mlp, conv, transformer"):
        estimate_memory("neither", 2)


def test_a_workload_without_tensors_is_no_estimate_of_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BUILT_IN, "idle", lambda *_: lambda: None)
    with pytest.raises(WorkloadError, match="creates no tensors"):
        estimate_memory("idle", 2)


def test_modules_go_where_a_workload_puts_them() -> None:
    import torch
    from gpu_advisor.calibration.memory_estimate import _keep_modules_in_place

    module: Any = torch.nn.Conv2d(3, 4, 3)
    with _keep_modules_in_place():
        assert module.to("cpu") is module
        module.to(memory_format=torch.channels_last)
        assert module.weight.is_contiguous(memory_format=torch.channels_last)
        assert module.to("cpu", torch.float16).weight.dtype == torch.float16


def test_a_profile_of_a_job_corrects_by_what_was_probed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a factory is found in the folder where the command is given."""
    (tmp_path / "nets.py").write_text("from gpu_advisor.calibration.workloads import BUILT_IN\nmlp = BUILT_IN['mlp']\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))
    path = tmp_path / "llm.profile.json"
    write_profile(profile(gpu_type="cpu", workload="llm", factory="nets:mlp"), path)
    asked = ["estimate", "--workload", "nets:mlp", "--sizes", "8", "--format", "json", "--profile", str(path)]
    found = CliRunner().invoke(cli, asked)
    assert found.exit_code == 0, found.output
    assert json.loads(found.output)["correction"]["samples"] == 3


def test_calibrations_correct_it() -> None:
    context, ratio = 600.0, 1.1
    pairs = [(size, round(context + ratio * size)) for size in (1000, 2000, 4000, 8000)]
    found = fit_correction(pairs)
    assert found.context_bytes == pytest.approx(context, rel=0.02)
    assert found.ratio == pytest.approx(ratio, rel=0.01)
    assert fit_correction([]).samples == 0
    assert fit_correction(pairs[:1]).context_bytes == pytest.approx(700)
