"""A job's metrics: parsed by the exporter's strict parser and promtool, from real files and ports."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import torch
from gpu_advisor.training.memory.device_memory import MemoryStats
from gpu_advisor.training.metrics import FAMILIES
from gpu_advisor.training.monitor import TrainingMonitor
from gpu_advisor.training.publishers import MonitorError, textfile_name
from gpu_advisor.training.value_statistics import MAX_NAMES
from gpu_exporter.jobs.exposition_parser import parse_exposition
from gpu_exporter.jobs.textfile import TextfilePage, reserved_name_matcher
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.polling import wait_until
from tests.servers import require_binary


class FakeDeviceMemory:
    """A device with the given memory statistics."""

    def __init__(self, **stats: int) -> None:
        self.stats = stats

    def read(self) -> MemoryStats:
        return MemoryStats(**self.stats)

    def reset_peak(self) -> None: ...

    def empty_cache(self) -> None: ...


GIB = 2**30
MEMORY = FakeDeviceMemory(
    allocated_bytes=GIB, reserved_bytes=2 * GIB, peak_allocated_bytes=3 * GIB, peak_reserved_bytes=4 * GIB,
    limit_bytes=80 * GIB, allocation_retries=2, out_of_memory_errors=1,
)  # fmt: skip


def full(**settings: Any) -> TrainingMonitor:
    """A monitor with every metric recorded, and one closed window."""
    monitor = TrainingMonitor(
        **{"job": "job", "rank": 3, "uuid": "GPU-1", "figures": False, "memory": MEMORY, **settings}
    )
    for batch in monitor.batches([torch.zeros(8, 2), torch.zeros(5, 2)]):
        with monitor.communication():
            pass
        monitor.record(loss=torch.tensor(float(len(batch))), accuracy=0.5)
    monitor.record({"bad": float("nan")})
    monitor.record_micro_batch_size(4)
    monitor._close_window({"host_cpu_busy_ratio": 0.25})
    return monitor


def series(monitor: TrainingMonitor) -> dict[str, str]:
    found: dict[str, str] = {}
    for family in parse_exposition(monitor.page()).values():
        found.update(family.series)
    return {re.sub(r'(,?)(rank="3"|training_job="job"|uuid="GPU-1")(,?)', "", key): text for key, text in found.items()}


def test_every_family_passes_the_exporters_reader():
    monitor = full()
    found = series(monitor)
    assert found["training_steps_total{}"] == "2"
    assert found["training_samples_total{}"] == "13"
    assert found["training_batch_size{}"] == "8", "a smaller last batch is not the batch size"
    assert found["training_micro_batch_size{}"] == "4"
    assert found["training_peak_memory_bytes{}"] == str(3 * GIB)
    assert found["training_memory_limit_bytes{}"] == str(80 * GIB)
    assert found["training_allocation_retries_total{}"] == "2"
    assert found["training_out_of_memory_total{}"] == "1"
    assert found["training_loss{}"] == "5"
    assert found['training_nonfinite_values_total{name="bad"}'] == "1"
    by_name = {key: float(text) for key, text in found.items() if 'name="loss"' in key}
    assert sorted(by_name.values()) == [1.5, 5, 6.5, 8]
    assert set(parse_exposition(monitor.page())) == {family.name for family in FAMILIES}
    for line in monitor.page().splitlines():
        assert line.startswith("#") or all(
            part in line for part in ('training_job="job"', 'rank="3"', 'uuid="GPU-1"')
        ), line


@pytest.mark.servers
def test_promtool_finds_no_problem():
    done = subprocess.run(
        [require_binary("promtool"), "check", "metrics"],
        input=full().page(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@settings(max_examples=50, deadline=None)
@given(
    job=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=300),
    name=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    value=st.floats(),
)
def test_no_name_and_no_number_breaks_the_page(tmp_path_factory, job, name, value):
    directory = tmp_path_factory.mktemp("textfile")
    monitor = TrainingMonitor(job=job, rank=0, directory=str(directory), figures=False, keep_file=True)
    monitor.start()
    with monitor.step():
        pass
    if name not in ("step_seconds", "data_wait_seconds"):
        monitor.record({name: value, "loss": value})
    monitor.close()
    page = TextfilePage([str(directory)], reserved_name_matcher(host=True))
    page.run()
    assert b"node_textfile_scrape_error 0" in page.page
    assert b"training_steps_total" in page.page


def test_ranks_share_a_directory_and_leave_it_clean(tmp_path):
    monitors = [full(rank=rank, directory=str(tmp_path)).start() for rank in range(4)]
    page = TextfilePage([str(tmp_path)], reserved_name_matcher(host=True))
    for monitor in monitors:
        monitor._close_window({})
    page.run()
    assert b"node_textfile_scrape_error 0" in page.page
    assert page.page.count(b"training_steps_total{") == 4
    assert all(os.stat(tmp_path / name).st_mode & 0o044 for name in os.listdir(tmp_path)), "the exporter cannot read it"
    for monitor in monitors:
        monitor.close()
        monitor.close()
    assert os.listdir(tmp_path) == []


def test_a_reader_never_sees_half_a_file(tmp_path):
    with full(directory=str(tmp_path), interval_seconds=0.001) as monitor:
        path = tmp_path / textfile_name("job", 3)
        wait_until(path.exists, "the file exists")
        until = time.monotonic() + 0.3
        while time.monotonic() < until:
            assert "training_steps_total" in parse_exposition(path.read_text())
            monitor.record(loss=1.0)


def test_jobs_that_differ_have_files_that_differ():
    names = [
        textfile_name(job, rank) for job in ("a/b", "a_b", "a b", "../a_b", "x" * 300, "x" * 299) for rank in (0, 1)
    ]
    assert len(set(names)) == len(names)
    assert all("/" not in name and len(name) < 200 and name.endswith(".prom") for name in names)


def test_errors_while_publishing_do_not_stop_training(tmp_path, caplog):
    directory = tmp_path / "removed"
    directory.mkdir()
    with full(directory=str(directory)) as monitor:
        shutil.rmtree(directory)
        for _ in range(3):
            monitor._close_window({})
        assert len([one for one in caplog.records if "training continues" in one.message]) == 1, "logged more than once"
        directory.mkdir()
        monitor._close_window({})
        assert os.listdir(directory)


def test_a_device_error_leaves_the_other_metrics():
    class Lost:
        def read(self):
            raise RuntimeError("CUDA error: unspecified launch failure")

    page = full(memory=Lost()).page()
    assert "training_steps_total" in page
    assert "memory" not in page


def test_it_serves_itself():
    with full(listen="127.0.0.1:0") as monitor:
        url = f"http://127.0.0.1:{monitor.port}"
        answer = urllib.request.urlopen(f"{url}/metrics", timeout=60)
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert "training_steps_total" in parse_exposition(answer.read().decode())
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{url}/other", timeout=60)
        with pytest.raises(MonitorError, match="its own port"):
            TrainingMonitor(listen=f"127.0.0.1:{monitor.port}")
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{url}/metrics", timeout=60)


@pytest.mark.parametrize(
    ("arguments", "fix"),
    [
        ({"directory": "/nowhere/at/all"}, "create it"),
        ({"listen": "9464"}, "HOST:PORT"),
        ({"listen": "localhost:99999"}, "HOST:PORT"),
        ({"interval_seconds": 0}, "greater than 0"),
        ({"interval_seconds": float("nan")}, "greater than 0"),
        ({"job": ""}, "give the job a name"),
    ],
)
def test_wrong_arguments_are_reported_at_once(arguments, fix):
    with pytest.raises(MonitorError, match=fix):
        TrainingMonitor(**arguments)


@pytest.mark.parametrize(
    ("value", "problem"),
    [(torch.zeros(2), "2 elements"), ("x", "not a number"), (None, "not a number"), ([1], "not a number")],
)
def test_values_that_are_not_one_number_are_refused(value, problem):
    with pytest.raises(MonitorError, match=problem):
        full().record(loss=value)


def test_reserved_and_too_many_names_are_refused():
    monitor = TrainingMonitor(job="job")
    with pytest.raises(MonitorError, match="use another name"):
        monitor.record(step_seconds=1.0)
    monitor.record({f"loss at step {step}": 1.0 for step in range(MAX_NAMES)})
    with pytest.raises(MonitorError, match="Do not put a changing value"):
        monitor.record({"loss at another step": 1.0})


@pytest.mark.parametrize(
    ("environment", "job", "rank"),
    [
        ({"SLURM_JOB_ID": "42", "SLURM_PROCID": "5"}, "42", 5),
        ({"TORCHELASTIC_RUN_ID": "run", "RANK": "2", "SLURM_PROCID": "5"}, "run", 2),
        ({"GPU_ADVISOR_TRAINING_JOB": "mine", "SLURM_JOB_ID": "42"}, "mine", 0),
        ({"TORCHELASTIC_RUN_ID": "none"}, None, 0),
    ],
)
def test_names_of_job_and_rank(monkeypatch, environment, job, rank):
    for name in ("SLURM_JOB_ID", "SLURM_PROCID", "TORCHELASTIC_RUN_ID", "RANK", "GPU_ADVISOR_TRAINING_JOB"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monitor = TrainingMonitor()
    with monitor.step():
        pass
    expected = job or f"-{os.getpid()}"
    assert re.search(
        rf'training_steps_total{{training_job="[^"]*{re.escape(expected)}",rank="{rank}"}} 1', monitor.page()
    )


def test_windows_and_the_whole_run(tmp_path):
    monitor = full()
    monitor.record(loss=100.0)
    before = series(monitor)
    monitor._close_window({})
    after = series(monitor)
    mean = next(key for key in before if 'name="loss"' in key and "mean" in key)
    assert (before[mean], after[mean]) == ("6.5", "100")
    monitor._close_window({})
    assert series(monitor)[mean] == "100", "without new values the last window stays"
    assert monitor.summary().values["loss"].count == 3
    assert "loss: mean" in str(monitor.summary())


def test_host_metrics_are_recorded():
    with TrainingMonitor(job="job", interval_seconds=0.01) as monitor:
        with monitor.step():
            pass
        wait_until(lambda: "host_cpu_busy_ratio" in monitor.page(), "host metrics")
    page = monitor.page()
    assert 'name="host_memory_used_ratio"' in page
    for line in page.splitlines():
        if "_ratio" in line and "std" not in line:
            assert 0 <= float(line.split()[-1]) <= 1


CRASH = """
import os, sys
from gpu_advisor.training import TrainingMonitor
monitor = TrainingMonitor(job="job", directory=sys.argv[1], interval_seconds=0.01).start()
with monitor.step(): pass
while not os.listdir(sys.argv[1]): pass
if os.fork() == 0:
    sys.exit(0)
os.wait()
print(os.listdir(sys.argv[1]))
"""


def test_the_end_of_the_program_removes_the_file_and_the_end_of_a_child_does_not(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", CRASH, str(tmp_path)], capture_output=True, text=True, check=True, timeout=60
    )
    assert "training-job-0.prom" in done.stdout
    assert os.listdir(tmp_path) == []


def test_the_documentation_lists_the_catalogue():
    text = (Path(__file__).parents[3] / "docs" / "training.md").read_text()
    for family in FAMILIES:
        assert re.search(rf"^\| `{family.name}` \| {family.type} \|", text, re.MULTILINE), family.name
        if not family.labels:
            assert family.help in text, family.name
    assert len(re.findall(r"^\| `training_", text, re.MULTILINE)) == len(FAMILIES)
