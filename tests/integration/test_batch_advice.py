"""No mocks: a job's report and a profile -> exporter -> embedded history -> advisor -> API."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from gpu_advisor.calibration.profile import Measurement, Profile, profile_file_name, write_profile
from gpu_advisor.training.metrics import BATCH_SIZE, PEAK_MEMORY, STEP_SECONDS, MetricSample, render

from tests.own_processes import Program, advisor, exporter
from tests.polling import wait_until
from tests.servers import free_port

GIB = 1 << 30


def memory(size: int) -> int:
    return 10 * GIB + size * GIB


def write_curve(folder: Path, gpu_type: str) -> None:
    sizes = tuple(
        Measurement(batch_size=size, peak_memory_bytes=memory(size), samples_per_second=size / (0.05 + 0.01 * size))
        for size in (4, 8, 16, 32)
    )
    profile = Profile(
        gpu_type=gpu_type,
        workload="llm",
        precision="bfloat16",
        memory_kind="reserved",
        created_timestamp_seconds=1.8e9,
        measurements=sizes,
    )
    write_profile(profile, folder / profile_file_name(profile))


def report(textfile: Path, uuid: str, batch: int) -> None:
    """What a job's monitor writes."""
    samples = [
        MetricSample(STEP_SECONDS, 60.0),
        MetricSample(BATCH_SIZE, batch),
        MetricSample(PEAK_MEMORY, memory(batch)),
    ]
    beside = textfile / "llm.part"
    beside.write_text(render({"training_job": "llm", "rank": "0", "uuid": uuid}, samples))
    beside.rename(textfile / "llm.prom")


def on_batch(program: Program) -> list[Any]:
    advice = program.get("/recommendations")["recommendations"]
    return [each for each in advice if each["kind"] == "batch_size" and each["unit"] == "samples"]


def test_a_profile_and_a_running_job_make_advice_that_ends_when_it_is_followed(tmp_path: Path) -> None:
    textfile, profiles = tmp_path / "textfile", tmp_path / "profiles"
    textfile.mkdir()
    watched, address = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    config = {
        "source": {"embedded": {"targets": [watched], "scrape_interval_seconds": 1}},
        "evaluation": {"interval_seconds": 1, "window_seconds": 5, "idle_window_seconds": 8},
        "profiles_dir": str(profiles),
    }
    arguments = ["--simulate", "1xH100-80GB:training", "--collector.textfile.directory", str(textfile)]
    with exporter(tmp_path, watched, *arguments, "--no-collector.host") as node:
        info = next(line for line in node.text("/metrics").splitlines() if line.startswith("gpu_info{"))
        uuid, name = (re.findall(rf'\b{label}="([^"]+)"', info)[0] for label in ("uuid", "name"))
        write_curve(profiles, name)
        report(textfile, uuid, 24)
        with advisor(tmp_path, address, config) as program:
            [advice] = wait_until(lambda: on_batch(program), "a larger batch is advised", program)
            assert advice["scope"]["name"] == "llm"
            assert advice["current"] == 24
            assert 40 <= advice["recommended"] <= 56
            assert memory(int(advice["recommended"])) <= 0.85 * 80 * GIB
            assert "calibrated on" in advice["summary"]
            assert any("learning rate" in line for line in advice["apply"])
            report(textfile, uuid, int(advice["recommended"]))
            wait_until(lambda: not on_batch(program), "the advice is followed, and gone", program)
