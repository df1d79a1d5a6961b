"""Real Prometheus and Alertmanager processes for tests.

    with prometheus(tmp_path, scrape={"gpu-exporter": ["127.0.0.1:9400"]}) as server:
        server.query("up")

Each listens on a free port of 127.0.0.1, keeps its data and its log below `tmp_path`, and is stopped at the end of the
block. Mark such tests with `@pytest.mark.servers`. Where a program is not installed the test is skipped, or fails if
GPU_ADVISOR_REQUIRE_SERVERS=1 is set.
"""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import pytest
import requests
import yaml

from tests.polling import wait_until

STOP_WITHIN_SECONDS = 60.0
LOG_TAIL_LINES = 40

#: Below Linux' ephemeral ports (from 32768), above the ports of common services.
_PORTS = range(14_000, 32_000)
_port_number = itertools.count(os.getpid() * 97)

_PACKAGES = {
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "prometheus-alertmanager": "prometheus-alertmanager",
    "amtool": "prometheus-alertmanager",
    "prometheus-node-exporter": "prometheus-node-exporter",
    "chromium": "chromium",
}


def require_binary(binary: str) -> str:
    """Return the path of a program; skip the test (GPU_ADVISOR_REQUIRE_SERVERS=1: fail it) if it is not installed."""
    path = shutil.which(binary)
    if path is not None:
        return path
    message = f"{binary} is not on PATH; on Debian: apt-get install {_PACKAGES.get(binary, binary)}"
    if os.environ.get("GPU_ADVISOR_REQUIRE_SERVERS") == "1":
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


def free_port() -> int:
    """Return an unused TCP port of 127.0.0.1.

    Not a port of the ephemeral range, which an outgoing connection may take before the server listens, and none that
    this process returned before. Parallel processes start at different ports.
    """
    while True:
        port = _PORTS[next(_port_number) % len(_PORTS)]
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


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
        """Stop the process: SIGTERM, then SIGKILL. A second call does nothing."""
        if self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_WITHIN_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(STOP_WITHIN_SECONDS)

    def kill(self) -> None:
        """Kill the process, as a crash would."""
        self.process.kill()
        self.process.wait(STOP_WITHIN_SECONDS)

    def _get(self, path: str, **params: str) -> Any:
        answer = requests.get(self.url + path, params=params, timeout=60)
        if answer.status_code != 200:
            raise AssertionError(f"{self.url}{path} answered {answer.status_code}: {answer.text[:1000]}")
        return answer.json()


S = TypeVar("S", bound=_ServerProcess)


class Prometheus(_ServerProcess):
    def query(self, expression: str, time: float | None = None) -> list[dict[str, Any]]:
        """Run an instant query; return its results as in the JSON: `metric`, `value` [time, text]."""
        params = {"query": expression} if time is None else {"query": expression, "time": f"{time:.3f}"}
        result: list[dict[str, Any]] = self._get("/api/v1/query", **params)["data"]["result"]
        return result

    def alerts(self) -> list[dict[str, Any]]:
        """Return the pending and firing alerts of its rules."""
        found: list[dict[str, Any]] = self._get("/api/v1/alerts")["data"]["alerts"]
        return found


class Alertmanager(_ServerProcess):
    def alerts(self) -> list[dict[str, Any]]:
        """Return its alerts in the format of its v2 API."""
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
    """Start a Prometheus and wait until it is ready.

    scrape: job name -> host:port addresses. backfill: an OpenMetrics file to import before the start.
    blocks: the data folder to use, for example one filled by `create_blocks`.
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
        "--storage.tsdb.retention.time=100y",  # keep backfilled samples of any age
        f"--web.listen-address={address}",
        "--log.level=warn",
    ]
    with _start(Prometheus, command, address, home) as server:
        yield server


@contextmanager
def alertmanager(tmp_path: Path) -> Iterator[Alertmanager]:
    """Start an Alertmanager that notifies nobody, and wait until it is ready."""
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
        "--cluster.listen-address=",  # no gossip
        "--log.level=warn",
    ]
    with _start(Alertmanager, command, address, home) as server:
        yield server


def create_blocks(openmetrics: Path, data: Path) -> None:
    """Write the samples of an OpenMetrics file with timestamps as TSDB blocks to the folder `data`."""
    command = [require_binary("promtool"), "tsdb", "create-blocks-from", "--max-block-duration=24h", "--quiet"]
    command += ["openmetrics", str(openmetrics), str(data)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        pytest.fail(f"promtool could not import {openmetrics}: {done.stderr or done.stdout}", pytrace=False)


def _new_folder(tmp_path: Path, name: str) -> Path:
    """Create tmp_path/name; tmp_path/name-2, ... if a test starts several."""
    number = 1
    while True:
        folder = tmp_path / (name if number == 1 else f"{name}-{number}")
        if not folder.exists():
            folder.mkdir(parents=True)
            return folder
        number += 1


@contextmanager
def _start(kind: type[S], command: list[str], address: str, home: Path) -> Iterator[S]:
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
    def ready() -> bool:
        if server.process.poll() is not None:
            _fail(server, f"exited at startup with status {server.process.returncode}")
        try:
            return requests.get(f"{server.url}/-/ready", timeout=10).status_code == 200
        except requests.RequestException:
            return False  # not listening yet

    wait_until(ready, f"{server.url} is ready", server)


def _fail(server: _ServerProcess, what: str) -> NoReturn:
    pytest.fail(f"{server.process.args!r} {what}\n{_log_tail(server)}", pytrace=False)


def _log_tail(server: _ServerProcess) -> str:
    tail = "\n".join(server.log().splitlines()[-LOG_TAIL_LINES:])
    return f"--- {server.log_path}\n{tail}"
