from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from gpu_advisor.cli import cli

GIB = 1 << 30


@pytest.fixture
def points(tmp_path: Path) -> Path:
    path = tmp_path / "points.csv"
    path.write_text(f"batch_size,peak_memory_bytes\n8,{3 * GIB}\n16,{4 * GIB}\n32,{6 * GIB}\n")
    return path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["batch-size", *arguments])


def test_json_answer(points: Path) -> None:
    result = run("--points", str(points), "--memory", "40GiB", "--predict", "64,128", "--format", "json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.output)
    assert answer["recommended_batch_size"] == 128
    assert set(answer["ceilings"]) == {"memory", "throughput_knee", "gradient_noise"}
    assert [row["batch_size"] for row in answer["predictions"]] == [64, 128]
    for row in answer["predictions"]:
        assert row["low"] <= row["peak_memory_bytes"] <= row["high"]
        assert row["samples_per_second"] is None


def test_text_answer(points: Path) -> None:
    result = run("--points", str(points), "--memory", "12GiB", "--current", "16")
    assert result.exit_code == 0
    assert "recommended batch size" in result.output
    assert "learning rate" in result.output


@pytest.mark.parametrize(
    ("arguments", "fix"),
    [
        (["--memory", "40"], "did you mean 40GiB"),
        (["--memory", "40GiB", "--target", "85"], "did you mean 0.85"),
        (["--memory", "40GiB", "--target", "0"], "above 0"),
        (["--memory", "40GiB", "--predict", "32;64"], "separated by commas"),
        (["--memory", "40GiB", "--predict", "0"], "at least 1"),
        (["--memory", "40GiB", "--profile", "x"], "either --points"),
    ],
)
def test_bad_options_name_the_fix(points: Path, arguments: list[str], fix: str) -> None:
    result = run("--points", str(points), *arguments)
    assert result.exit_code == 2
    assert fix in result.output


def test_bad_points_are_a_usage_error(tmp_path: Path) -> None:
    result = run("--points", str(tmp_path / "none.csv"), "--memory", "40GiB")
    assert result.exit_code == 2
    assert "readable CSV" in result.output


def test_the_package_needs_no_torch() -> None:
    code = (
        "import sys, gpu_advisor, gpu_advisor.cli;"
        "import gpu_advisor.calibration.batch_size_advice, gpu_advisor.calibration.profile;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
