"""Run gpu-exporter and gpu-advisor as processes in tests: on free ports, until ready, stopped by pid."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from tests.polling import TIMEOUT_SECONDS, wait_until


@dataclass
class Program:
    """A running gpu-exporter or gpu-advisor at http://`address`."""

    address: str
    process: subprocess.Popen[str]
    log_path: Path

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def get(self, path: str) -> Any:
        answer = requests.get(self.url + path, timeout=60)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def text(self, path: str) -> str:
        answer = requests.get(self.url + path, timeout=60)
        assert answer.status_code == 200, answer.text
        return answer.text

    def log(self) -> str:
        return self.log_path.read_text()

    def kill(self) -> None:
        """Kill the process, as a crash would."""
        self.process.kill()
        self.process.wait(60)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(60)


@contextmanager
def exporter(tmp_path: Path, address: str, *arguments: str) -> Iterator[Program]:
    command = [sys.executable, "-m", "gpu_exporter", "--web.listen-address", address, *arguments]
    with _start(command, address, tmp_path / f"exporter-{time.monotonic_ns()}.log") as program:
        yield program


@contextmanager
def advisor(tmp_path: Path, address: str, config: dict[str, Any]) -> Iterator[Program]:
    """Run `gpu-advisor serve` with this configuration, at this address and with a `state_dir` below `tmp_path`."""
    path = tmp_path / "advisor.yml"
    web = {**config.get("web", {}), "listen_address": address}
    path.write_text(yaml.safe_dump({"state_dir": str(tmp_path / "state"), **config, "web": web}))
    command = [sys.executable, "-m", "gpu_advisor", "serve", "--config", str(path)]
    with _start(command, address, tmp_path / f"advisor-{time.monotonic_ns()}.log") as program:
        yield program


@contextmanager
def up(
    tmp_path: Path,
    exporter_address: str,
    advisor_address: str,
    simulate: str = "",
    config: dict[str, Any] | None = None,
    ready_within_seconds: float = TIMEOUT_SECONDS,
) -> Iterator[Program]:
    command = [
        sys.executable, "-m", "gpu_advisor", "up", "--exporter-address", exporter_address,
        "--advisor-address", advisor_address, "--state-dir", str(tmp_path / "up"), "--simulate", simulate,
    ]  # fmt: skip
    if config is not None:
        path = tmp_path / "up.yml"
        path.write_text(yaml.safe_dump(config))
        command += ["--config", str(path)]
    with _start(command, advisor_address, tmp_path / f"up-{time.monotonic_ns()}.log", ready_within_seconds) as program:
        yield program


@contextmanager
def _start(
    command: Sequence[str], address: str, log_path: Path, ready_within_seconds: float = TIMEOUT_SECONDS
) -> Iterator[Program]:
    with log_path.open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, text=True)
    program = Program(address, process, log_path)
    try:
        wait_until(lambda: _is_ready(program), f"{address} is ready", program, timeout_seconds=ready_within_seconds)
        yield program
    finally:
        program.stop()


def _is_ready(program: Program) -> bool:
    if program.process.poll() is not None:
        pytest.fail(f"exited at startup with {program.process.returncode}:\n{program.log()}", pytrace=False)
    try:
        return requests.get(f"{program.url}/-/ready", timeout=10).status_code == 200
    except requests.RequestException:
        return False
