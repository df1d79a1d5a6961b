"""The probe: real processes on the CPU; what a GPU would say is given as its outcome."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from gpu_advisor.calibration.contention import DeviceUsage, contention_reason
from gpu_advisor.calibration.errors import CalibrationError, DeviceBusyError, WorkloadError
from gpu_advisor.calibration.probe import ProbeRequest, run_probe
from gpu_advisor.calibration.profile import read_profiles
from gpu_advisor.calibration.workloads import build_step, run_step
from gpu_advisor.cli import cli
from gpu_exporter.jobs.exposition_parser import parse_exposition

GIB = 1 << 30
WORKLOADS = """
import time
import torch

def small(batch_size, device, precision):
    layer = torch.nn.Linear(256, 256)
    optimizer = torch.optim.SGD(layer.parameters(), 0.1)
    def step():
        print("a workload may say what it likes")
        layer(torch.randn(64 * batch_size, 256)).square().mean().backward()
        optimizer.step()
    return step

def hangs(batch_size, device, precision):
    time.sleep(600)

def raises(batch_size, device, precision):
    raise RuntimeError("no such data set")

def returns_a_model(batch_size, device, precision):
    return [torch.nn.Linear(1, 1)]

def steps_fail(batch_size, device, precision):
    return lambda: 1 / 0

constant = 3
"""


@pytest.fixture
def workload_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module of workloads, from which the probe is started."""
    (tmp_path / "probed.py").write_text(WORKLOADS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["probe", "--device", "cpu", "--threads", "1", "--seconds", "0", *arguments])


def test_sizes_are_measured_up_to_the_one_that_does_not_fit(workload_folder: Path) -> None:
    result = run(
        *("--workload", "probed:small", "--sizes", "8,32,1024", "--limit", "16MiB"),
        *("--job", 'my "job"', "--textfile", str(workload_folder / "text")),
    )
    assert result.exit_code == 0, result.output
    assert "1024  out of memory" in result.output
    found, errors = read_profiles(workload_folder / "profiles")
    assert errors == ()
    [profile] = found.values()
    assert profile.key == ("cpu", 'my "job"', "float32")
    assert profile.factory == "probed:small"
    assert profile.memory_kind == "cpu_tracked"
    assert profile.out_of_memory_batch_sizes == (1024,)
    small, large = profile.measurements
    # Inputs and outputs of 64 rows of 256 values a sample grow with the batch; squares and gradients do, too.
    grown = (large.peak_memory_bytes - small.peak_memory_bytes) / (24 * 64 * 256 * 4)
    assert 2 <= grown <= 6
    assert all(each.step_seconds_low and each.samples_per_second for each in profile.measurements)
    [page] = (workload_folder / "text").iterdir()
    families = parse_exposition(page.read_text())
    assert 'workload="my \\"job\\""' in page.read_text()
    assert len(families) == 3


def test_a_workload_that_hangs_is_ended_and_nothing_is_written(workload_folder: Path) -> None:
    result = run("--workload", "probed:hangs", "--sizes", "8,16", "--timeout", "4")
    assert result.exit_code == 1
    assert "did not finish within 4 s" in result.output
    assert "--timeout" in result.output
    assert not (workload_folder / "profiles").exists()


@pytest.mark.parametrize(
    ("workload", "words"),
    [
        ("probed:raises", "RuntimeError: no such data set: fix its factory"),
        ("probed:returns_a_model", "returned list: return a function"),
        ("probed:steps_fail", "ZeroDivisionError: division by zero: fix the step"),
        ("probed:constant", "is a int: name a function"),
        ("probed:missing", "check that this directory can import it"),
        ("nothing.of.this:kind", "check that this directory can import it"),
        ("neither", "mlp, conv, transformer or package.module:factory"),
    ],
)
def test_a_wrong_workload_names_the_fix(workload_folder: Path, workload: str, words: str) -> None:
    import torch

    with pytest.raises(WorkloadError) as error:
        run_step(workload, build_step(workload, 2, torch.device("cpu"), "float32"))
    assert words in str(error.value)


def outcome(kind: str, **more: object) -> Callable[[ProbeRequest, int], dict[str, Any]]:
    """A worker that measures the first size, and comes to this at all others."""
    measured = {
        "outcome": "measured",
        "memory": {
            "kind": "driver", "peak_bytes": GIB, "allocated_bytes": GIB, "reserved_bytes": GIB, "driver_bytes": GIB,
        },
        "step_seconds": [0.1, 0.1], "utilization_ratio": 0.5, "device_name": "GPU", "device_bytes": 8 * GIB,
        "torch": "2",
    }  # fmt: skip
    return lambda request, size: measured if size == 8 else {"outcome": kind, **more}


@pytest.mark.parametrize(
    ("found", "error", "words"),
    [
        (outcome("taken", message="3.0 GiB were in use"), DeviceBusyError, "stop the other processes on this GPU"),
        (outcome("workload", message="it raised"), WorkloadError, "batch size 16: it raised"),
        (outcome("timeout"), WorkloadError, "raise --timeout"),
        (outcome("out_of_memory"), CalibrationError, "size 16 ran out of memory: give at least two sizes that fit"),
        (outcome("failed", message="killed"), CalibrationError, "killed"),
    ],
)
def test_a_probe_is_whole_or_an_error(found: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error) as raised:
        run_probe(ProbeRequest("mlp", (8, 16, 32)), found)
    assert words in str(raised.value)


def test_one_size_is_no_profile_and_nothing_is_measured() -> None:
    def run_size(request: ProbeRequest, size: int) -> dict[str, Any]:
        raise AssertionError("measured")

    with pytest.raises(CalibrationError, match="at least two sizes"):
        run_probe(ProbeRequest("mlp", (8, 8)), run_size)


def test_a_workload_that_takes_no_memory_is_reported() -> None:
    measured = outcome("measured")(ProbeRequest("mlp", (8, 16)), 8)
    nothing = {**measured, "memory": {**measured["memory"], "peak_bytes": 0}}
    with pytest.raises(WorkloadError, match=r"not a valid profile .peak_memory_bytes Input.*trains on a batch"):
        run_probe(ProbeRequest("mlp", (8, 16)), lambda request, size: nothing)


def test_where_nothing_can_be_written_nothing_is_measured(workload_folder: Path) -> None:
    (workload_folder / "taken").write_text("a file")
    result = run("--workload", "probed:hangs", "--sizes", "8,16", "--output", "taken/profiles")
    assert result.exit_code == 1
    assert "taken is not writable: choose another folder" in result.output


IDLE, OURS = DeviceUsage(200 << 20, 0.0, 0), DeviceUsage(6 * GIB, 1.0, 0)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (IDLE, OURS, None),
        (DeviceUsage(None, None, None), DeviceUsage(None, None, None), None),
        (DeviceUsage(20 * GIB, 0.0, 0), OURS, "in use before the probe"),
        (DeviceUsage(0, 0.6, 0), OURS, "60% busy before the probe"),
        (DeviceUsage(0, 0.0, 1), OURS, "1 other process"),
        (IDLE, DeviceUsage(6 * GIB, 1.0, 2), "2 other process"),
        (IDLE, DeviceUsage(12 * GIB, 1.0, None), "other processes allocated"),
    ],
)
def test_a_gpu_that_others_use_is_noticed(before: DeviceUsage, after: DeviceUsage, words: str | None) -> None:
    reported = contention_reason(before, after, 5 * GIB)
    assert reported is None if words is None else reported is not None and words in reported
