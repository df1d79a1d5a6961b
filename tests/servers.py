"""Real Prometheus and Alertmanager processes for tests.

    with prometheus(tmp_path, scrape={"gpu-exporter": ["127.0.0.1:9400"]}) as server:
        server.query("up")

Everything listens on free ports of 127.0.0.1, keeps its data and its log below `tmp_path`, and is gone at the end of
the block. Mark such tests with `@pytest.mark.servers`. A missing program skips the test, unless
GPU_ADVISOR_REQUIRE_SERVERS=1 says that here it must be there.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import pytest
import requests
import yaml

READY_WITHIN_SECONDS = 30.0
STOP_WITHIN_SECONDS = 5.0
LOG_TAIL_LINES = 40

_PACKAGES = {
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "prometheus-alertmanager": "prometheus-alertmanager",
    "amtool": "prometheus-alertmanager",
    "prometheus-node-exporter": "prometheus-node-exporter",
    "chromium": "chromium",
}


def require_binary(binary: str) -> str:
    """The path of a program, or a skip (a failure with GPU_ADVISOR_REQUIRE_SERVERS=1) that says how to get it."""
    path = shutil.which(binary)
    if path is not None:
        return path
    message = f"{binary} is not on PATH; on Debian: apt-get install {_PACKAGES.get(binary, binary)}"
    if os.environ.get("GPU_ADVISOR_REQUIRE_SERVERS") == "1":
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class _ServerProcess:
    """A started process with an HTTP address."""

    url: str
    log_path: Path
    process: subprocess.Popen[bytes] = field(repr=False)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def address(self) -> str:
        """host:port"""
        return self.url.partition("//")[2]

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def stop(self) -> None:
        """End the process: politely, then not. A second call does nothing."""
        if self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_WITHIN_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(STOP_WITHIN_SECONDS)

    def kill(self) -> None:
        """End the process as a crash would."""
        self.process.kill()
        self.process.wait(STOP_WITHIN_SECONDS)

    def _get(self, path: str, **params: str) -> Any:
        answer = requests.get(self.url + path, params=params, timeout=30)
        if answer.status_code != 200:
            raise AssertionError(f"{self.url}{path} answered {answer.status_code}: {answer.text[:1000]}")
        return answer.json()


S = TypeVar("S", bound=_ServerProcess)


class Prometheus(_ServerProcess):
    def query(self, expression: str, time: float | None = None) -> list[dict[str, Any]]:
        """The results of an instant query as the server's JSON has them: `metric`, `value` [time, text]."""
        params = {"query": expression} if time is None else {"query": expression, "time": f"{time:.3f}"}
        result: list[dict[str, Any]] = self._get("/api/v1/query", **params)["data"]["result"]
        return result

    def alerts(self) -> list[dict[str, Any]]:
        """Pending and firing alerts of its rules."""
        found: list[dict[str, Any]] = self._get("/api/v1/alerts")["data"]["alerts"]
        return found


class Alertmanager(_ServerProcess):
    def alerts(self) -> list[dict[str, Any]]:
        """The alerts it holds, as its v2 API has them."""
        found: list[dict[str, Any]] = self._get("/api/v2/alerts")
        return found


@contextmanager
def prometheus(
    tmp_path: Path,
    *,
    scrape: Mapping[str, Sequence[str]] | None = None,
    scrape_interval: str = "1s",
    backfill: Path | None = None,
    blocks: Path | None = None,
    rule_files: Sequence[Path] = (),
    alertmanagers: Sequence[str] = (),
) -> Iterator[Prometheus]:
    """A Prometheus that is ready to answer.

    scrape: job name -> host:port addresses. backfill: an OpenMetrics file whose samples are there from the start.
    blocks: a folder that `create_blocks` filled before, used as it is.
    alertmanagers: host:port addresses or URLs.
    """
    binary = require_binary("prometheus")
    home = _new_folder(tmp_path, "prometheus")
    data = blocks or home / "data"
    if backfill is not None:
        create_blocks(backfill, data)
    config: dict[str, Any] = {
        "global": {
            "scrape_interval": scrape_interval,
            "scrape_timeout": scrape_interval,
            "evaluation_interval": scrape_interval,
        },
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": list(addresses)}]}
            for job, addresses in (scrape or {}).items()
        ],
        "rule_files": [str(path.resolve()) for path in rule_files],
    }
    if alertmanagers:
        hosts = [address.partition("//")[2] or address for address in alertmanagers]
        config["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": hosts}]}]}
    (home / "prometheus.yml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    command = [
        binary,
        f"--config.file={home / 'prometheus.yml'}",
        f"--storage.tsdb.path={data}",
        "--storage.tsdb.retention.time=100y",  # a backfilled past of any age stays
        f"--web.listen-address={address}",
        "--log.level=warn",
    ]
    with _start_thread(Prometheus, command, address, home) as server:
        yield server


@contextmanager
def alertmanager(tmp_path: Path) -> Iterator[Alertmanager]:
    """An Alertmanager that is ready, tells nobody and shows what it was told."""
    binary = require_binary("prometheus-alertmanager")
    home = _new_folder(tmp_path, "alertmanager")
    config = {"route": {"receiver": "nobody", "group_wait": "1s"}, "receivers": [{"name": "nobody"}]}
    (home / "alertmanager.yml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    command = [
        binary,
        f"--config.file={home / 'alertmanager.yml'}",
        f"--storage.path={home / 'data'}",
        f"--web.listen-address={address}",
        "--cluster.listen-address=",  # no gossip: nothing leaves this process
        "--log.level=warn",
    ]
    with _start_thread(Alertmanager, command, address, home) as server:
        yield server


def create_blocks(openmetrics: Path, data: Path) -> None:
    """Turn an OpenMetrics file with timestamps into blocks that a Prometheus finds at its start."""
    command = [require_binary("promtool"), "tsdb", "create-blocks-from", "--max-block-duration=24h", "--quiet"]
    command += ["openmetrics", str(openmetrics), str(data)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        pytest.fail(f"promtool could not import {openmetrics}: {done.stderr or done.stdout}", pytrace=False)


def _new_folder(tmp_path: Path, name: str) -> Path:
    """tmp_path/name, or tmp_path/name-2, ... where a test starts several."""
    number = 1
    while True:
        folder = tmp_path / (name if number == 1 else f"{name}-{number}")
        if not folder.exists():
            folder.mkdir(parents=True)
            return folder
        number += 1


@contextmanager
def _start_thread(kind: type[S], command: list[str], address: str, home: Path) -> Iterator[S]:
    log_path = home / "log.txt"
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=home)
    server = kind(url=f"http://{address}", log_path=log_path, process=process)
    try:
        _wait_until_ready(server)
        try:
            yield server
        except BaseException:
            print(_log_tail(server))  # pytest shows it with the failure
            raise
    finally:
        server.stop()


def _wait_until_ready(server: _ServerProcess) -> None:
    deadline = time.monotonic() + READY_WITHIN_SECONDS
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            _fail(server, f"ended at its start with status {server.process.returncode}")
        try:
            if requests.get(f"{server.url}/-/ready", timeout=2).status_code == 200:
                return
        except requests.RequestException:
            pass  # not listening yet: the deadline bounds the wait
        time.sleep(0.05)
    _fail(server, f"was not ready within {READY_WITHIN_SECONDS:.0f} s")


def _fail(server: _ServerProcess, what: str) -> NoReturn:
    pytest.fail(f"{server.process.args!r} {what}\n{_log_tail(server)}", pytrace=False)


def _log_tail(server: _ServerProcess) -> str:
    tail = "\n".join(server.log().splitlines()[-LOG_TAIL_LINES:])
    return f"--- {server.log_path}\n{tail}"
