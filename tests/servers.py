"""Real Prometheus, VictoriaMetrics and Alertmanager processes for tests.

    with prometheus(tmp_path, scrape={"gpu-exporter": ["127.0.0.1:9400"]}) as server:
        server.query("up")

Each listens on a free port of 127.0.0.1, keeps its data and its log below `tmp_path`, and is stopped at the end of the
block. Mark such tests with `@pytest.mark.servers`. Where a program is not installed the test is skipped, or fails if
GPU_ADVISOR_REQUIRE_SERVERS=1 is set.

`make test-engines` runs the tests on other servers, which GPU_ADVISOR_TEST_ENGINE and GPU_ADVISOR_TEST_ALERTMANAGER
name: prometheus-3.5, victoriametrics-1.145, alertmanager-0.33. tests/get_servers.sh downloads them.
"""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NoReturn, TypeVar

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
    "systemd-analyze": "systemd",
}

#: Those of which `make test` tests the sources: one with the windows of Prometheus 2, one with those of Prometheus 3.
DEFAULT_ENGINES = ("prometheus-2.42", "prometheus-3.5")


def engines_under_test() -> tuple[str, ...]:
    """The engines that the tests of sources run on, for the parameters of a fixture.

    Where none of the default ones could be downloaded, as on systems other than Debian: the machine's own Prometheus.
    """
    named = os.environ.get("GPU_ADVISOR_TEST_ENGINE")
    if named:
        return (named,)
    return DEFAULT_ENGINES if any(map(shutil.which, DEFAULT_ENGINES)) else ("prometheus",)


def require_binary(binary: str) -> str:
    """Return the path of a program; skip the test (GPU_ADVISOR_REQUIRE_SERVERS=1: fail it) if it is not installed."""
    path = shutil.which(binary)
    if path is not None:
        return path
    install = f"apt-get install {_PACKAGES.get(binary, binary)}"
    if binary[-1].isdigit():
        install = f"tests/get_servers.sh .venv/servers {binary}, and put .venv/servers/usr/bin on PATH"
    message = f"{binary} is not on PATH; on Debian: {install}"
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

    ready_path: ClassVar[str]

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
    ready_path = "/-/ready"

    def query(self, expression: str, time: float | None = None) -> list[dict[str, Any]]:
        """Run an instant query; return its results as in the JSON: `metric`, `value` [time, text]."""
        params = {"query": expression, "nocache": "1"}  # VictoriaMetrics otherwise answers for half a minute ago
        if time is not None:
            params["time"] = f"{time:.3f}"
        result: list[dict[str, Any]] = self._get("/api/v1/query", **params)["data"]["result"]
        return result

    def alerts(self) -> list[dict[str, Any]]:
        """Return the pending and firing alerts of its rules."""
        found: list[dict[str, Any]] = self._get("/api/v1/alerts")["data"]["alerts"]
        return found


class VictoriaMetrics(Prometheus):
    ready_path = "/health"

    def load(self, openmetrics: Path) -> None:
        """Import an OpenMetrics file with timestamps."""
        with openmetrics.open() as lines:
            while batch := "".join(map(_with_milliseconds, itertools.islice(_samples(lines), 100_000))):
                answer = requests.post(f"{self.url}/api/v1/import/prometheus", data=batch.encode(), timeout=60)
                assert answer.status_code == 204, answer.text
        requests.get(f"{self.url}/internal/force_flush", timeout=60)  # otherwise visible only after some seconds


class Alertmanager(_ServerProcess):
    ready_path = "/-/ready"

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
    engine: str | None = None,
    labels: Mapping[str, Mapping[str, str]] | None = None,
) -> Iterator[Prometheus]:
    """Start a Prometheus, or a VictoriaMetrics, and wait until it is ready.

    scrape: job name -> host:port addresses. labels: job name -> labels of its targets.
    backfill: an OpenMetrics file to import before the start.
    blocks: the data folder to use, for example one filled by `create_blocks`.
    alertmanagers: host:port addresses or URLs. VictoriaMetrics evaluates no rules.
    engine: such as prometheus-3.5; the one that GPU_ADVISOR_TEST_ENGINE names if None, else this machine's Prometheus.
    """
    engine = engine or os.environ.get("GPU_ADVISOR_TEST_ENGINE") or "prometheus"
    binary = require_binary(engine)
    home = _new_folder(tmp_path, "prometheus")
    data = blocks or home / "data"
    config: dict[str, Any] = {
        "global": {
            "scrape_interval": scrape_interval,
            "scrape_timeout": scrape_interval,
            "evaluation_interval": scrape_interval,
        },
        "scrape_configs": [
            {
                "job_name": job,
                "static_configs": [{"targets": list(addresses), "labels": dict((labels or {}).get(job, {}))}],
            }
            for job, addresses in (scrape or {}).items()
        ],
        "rule_files": [str(path.resolve()) for path in rule_files],
    }
    address = f"127.0.0.1:{free_port()}"
    if engine.startswith("victoriametrics"):
        del config["rule_files"], config["global"]["evaluation_interval"]
        (home / "prometheus.yml").write_text(yaml.safe_dump(config))
        command = [
            binary,
            f"-promscrape.config={home / 'prometheus.yml'}",
            f"-storageDataPath={home / 'data'}",
            "-retentionPeriod=100y",
            f"-httpListenAddr={address}",
            "-loggerLevel=WARN",
        ]
        with _start(VictoriaMetrics, command, address, home) as server:
            for path in [backfill] if backfill else _block_sources(data):
                server.load(path)
            yield server
        return
    if backfill is not None:
        create_blocks(backfill, data)
    if alertmanagers:
        hosts = [address.partition("//")[2] or address for address in alertmanagers]
        config["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": hosts}]}]}
    (home / "prometheus.yml").write_text(yaml.safe_dump(config))
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
    binary = require_binary(os.environ.get("GPU_ADVISOR_TEST_ALERTMANAGER") or "prometheus-alertmanager")
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
    with _source_list(data).open("a") as file:
        file.write(f"{openmetrics.resolve()}\n")


def _source_list(blocks: Path) -> Path:
    """The file that lists what the blocks were made from, for servers that cannot read them."""
    return blocks.with_name(f"{blocks.name}.sources")


def _block_sources(blocks: Path) -> list[Path]:
    listed = _source_list(blocks)
    return [Path(line) for line in listed.read_text().splitlines()] if listed.exists() else []


def _samples(openmetrics: Iterable[str]) -> Iterator[str]:
    return (line for line in openmetrics if not line.startswith("#") and line.strip())


def _with_milliseconds(sample: str) -> str:
    """A sample whose timestamp is in milliseconds, as in Prometheus' text format, instead of OpenMetrics' seconds."""
    before, _, seconds = sample.rstrip("\n").rpartition(" ")
    return f"{before} {round(float(seconds) * 1000)}\n"


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
            return requests.get(server.url + server.ready_path, timeout=10).status_code == 200
        except requests.RequestException:
            return False  # not listening yet

    wait_until(ready, f"{server.url} is ready", server)


def _fail(server: _ServerProcess, what: str) -> NoReturn:
    pytest.fail(f"{server.process.args!r} {what}\n{_log_tail(server)}", pytrace=False)


def _log_tail(server: _ServerProcess) -> str:
    tail = "\n".join(server.log().splitlines()[-LOG_TAIL_LINES:])
    return f"--- {server.log_path}\n{tail}"
