"""examples/train as a user starts it, with a real exporter."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.own_processes import exporter
from tests.polling import wait_until
from tests.servers import free_port

EXAMPLE = Path(__file__).parents[3] / "examples" / "train" / "train.py"
COUNTERS = ("steps_total", "step_seconds_total", "data_wait_seconds_total", "samples_total")
GAUGES = ("batch_size", "loss", "report_interval_seconds")


def test_the_exporter_exposes_the_job_while_it_runs(tmp_path):
    textfile = tmp_path / "textfile"
    textfile.mkdir()
    # On the CPU, whether or not the machine has a GPU.
    command = [sys.executable, str(EXAMPLE), "--directory", str(textfile), "--report-seconds", "0.2", "--epochs", "4"]
    # A whole batch needs 7.2 MiB; weights, gradients, Adam's state and its temporaries need 1.8 MiB at any size. Both
    # are far enough from 4 MiB for the batches that the loader prefetches.
    command += ["--simulate-memory-mib", "4", "--batch-size", "1024", "--read-seconds", "0.0015"]
    arguments = ["--collector.textfile.directory", str(textfile), "--simulate", "1xT4-16GB:idle", "--no-collector.host"]
    with exporter(tmp_path, f"127.0.0.1:{free_port()}", *arguments) as program:
        job = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            wait_until(
                lambda: "training_batch_size" in program.text("/metrics"),
                "the job reports",
                program,
                timeout_seconds=90,
            )
            page = program.text("/metrics")
            output, _ = job.communicate(timeout=120)
        finally:
            job.kill()
            job.wait()
        assert job.returncode == 0, output
        wait_until(lambda: "training_" not in program.text("/metrics"), "the job's metrics are removed", program)
    assert "node_textfile_scrape_error 0" in page
    for name in (*COUNTERS, *GAUGES):
        assert re.search(rf'^training_{name}{{rank="0",training_job="example"}} [0-9.e-]+$', page, re.MULTILINE), name
    assert re.search(r"^training_memory_limit_bytes{.*} 4194304$", page, re.MULTILINE)
    assert "loss: mean" in output
    assert re.search(r"recovered [1-9]\d* time\(s\) from out of memory", output)
    assert list(textfile.iterdir()) == []


def test_its_help_teaches():
    done = subprocess.run([sys.executable, str(EXAMPLE), "--help"], capture_output=True, text=True, check=True)
    assert "--simulate-memory-mib" in done.stdout
