"""examples/one_job as its README says: all steps against a running advisor."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import requests
import yaml

from tests.own_processes import Program, up
from tests.polling import wait_until
from tests.servers import free_port

EXAMPLE = Path(__file__).parents[2] / "examples" / "one_job"

pytest.importorskip("torch")


def test_the_job_runs_from_plan_to_report(tmp_path: Path) -> None:
    there = (f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}", "2xA100-80GB:idle")
    with up(tmp_path, *there, config=yaml.safe_load((EXAMPLE / "advisor.yml").read_text())) as program:
        wait_until(lambda: "jobs  " in program.log(), "the folder for jobs is logged", program)
        [jobs] = re.findall(r"^jobs +report to (.*)$", program.log(), re.MULTILINE)
        wait_until(lambda: free(program) == 2, "GPUs that are known to be free", program)
        report = tmp_path / "report.html"
        command = [sys.executable, str(EXAMPLE / "run.py"), "--advisor", program.url, "--jobs", jobs]
        command += ["--report", str(report), "--epochs", "1"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        titles = re.findall(r"^== (\w+)", done.stdout, re.MULTILINE)
        assert titles == ["Plan", "Cost", "Allocate", "Set", "Recommendations", "Report"]
        assert re.search(r"CUDA_VISIBLE_DEVICES=GPU-\S+", done.stdout)
        assert re.search(r"fits: micro-batch \d+", done.stdout)
        assert re.search(r"cheapest: \S+ in \S+, [\d.]+ hours", done.stdout)
        assert re.search(r"epoch 1: loss", done.stdout)
        advice = done.stdout.partition("== Recommendations")[2]
        assert re.search(r"1 of 1 GPUs of lease \w+ idle for 20 s: does the lessee need them", advice)
        assert "reports training steps" in advice  # its name may be gone already: it has ended
        assert re.search(r"gpu-advisor allocate --release \w+", advice)
        assert re.search(r"of [\d.]+ GPU-hours [\d.]+ were unused", done.stdout)
        assert "<svg" in report.read_text()
        assert program.get("/api/v1/gpu/allocations")["total"] == 0
        wait_until(lambda: free(program) == 2, "the job is not reporting any more, and its GPU is free", program)


def free(program: Program) -> int | None:
    """GPUs that nobody uses; None while that is not known yet."""
    answer = requests.get(f"{program.url}/api/v1/gpu/status", timeout=60)
    return sum(node["available_gpus"] for node in answer.json()["available_nodes"]) if answer.ok else None
