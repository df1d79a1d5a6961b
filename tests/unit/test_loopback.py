"""This machine is reached without the proxy that the environment names for the network."""

from __future__ import annotations

import subprocess
import time
from contextlib import closing, nullcontext
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import requests
from gpu_advisor.loopback import is_loopback, proxies_for
from gpu_advisor.runtime import local_exporter
from gpu_advisor.runtime.local_exporter import READY_POLL_SECONDS, run_exporter
from gpu_advisor.sources.embedded.history import History
from gpu_advisor.sources.embedded.scraper import Scraper
from gpu_advisor.sources.prometheus.http_client import DeadlineClient

from tests.servers import free_port
from tests.unit.sources.fake_http import fake_http, reply


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> str:
    """One that nobody answers at, in both spellings."""
    address = f"http://127.0.0.1:{free_port()}"
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, address)
        monkeypatch.setenv(name.upper(), address)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
    return address


@pytest.mark.parametrize(
    ("url", "direct"),
    [
        ("http://127.0.0.1:9816/metrics", True),
        ("http://127.8.9.1/", True),
        ("http://[::1]:9816/metrics", True),
        ("https://localhost/", True),
        ("http://LOCALHOST:1/", True),
        ("http://a.localhost:1/", True),
        ("http://0.0.0.0:9816/", True),
        ("http://[::]:9816/", True),
        ("http://10.0.0.1:9816/", False),
        ("http://node-1:9816/", False),
        ("http://localhost.example.org/", False),
        ("http://127.0.0.1.example.org/", False),
        ("http://[::1", False),
    ],
)
def test_which_requests_go_to_this_machine(url: str, direct: bool) -> None:
    assert proxies_for(url) == ({"http": "", "https": ""} if direct else None)


def test_a_request_changes_no_environment_of_other_threads(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    changes: list[str | None] = []

    def set_environ(_name: str, value: str | None) -> nullcontext[None]:
        changes.append(value)
        return nullcontext()

    monkeypatch.setattr(requests.utils, "set_environ", set_environ)
    url = "http://127.0.0.1:9816/metrics"
    found = requests.Session().merge_environment_settings(url, proxies_for(url), None, None, None)
    assert requests.utils.select_proxy(url, found["proxies"]) == ""
    assert changes == [None]


def test_a_host_is_no_url() -> None:
    assert [is_loopback(host) for host in ("::1", "127.0.0.1", "", "0.0.0.0", "localhost.")] == [
        True,
        True,
        *[False] * 3,
    ]


@pytest.mark.usefixtures("proxy")
def test_a_server_on_this_machine_is_reached() -> None:
    with fake_http(reply(200, "ok")) as server:
        assert DeadlineClient().fetch("GET", server.url, seconds=20, max_bytes=10).body == b"ok"


def test_other_machines_are_reached_through_the_proxy(
    proxy: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(History(tmp_path / "history.db")) as history:
        Scraper(history, ["node-1.example.org:9816"], 5, {"gpu_up"}).scrape_all()
    assert "add the target to NO_PROXY" in caplog.text


@pytest.mark.usefixtures("proxy")
def test_up_starts_behind_a_proxy(tmp_path: Path) -> None:
    """Its exporter and its scrapes are on this machine."""
    address = f"127.0.0.1:{free_port()}"
    with (
        run_exporter(address, "1xT4-16GB", tmp_path / "exporter", tmp_path / "jobs"),
        closing(History(tmp_path / "history.db")) as history,
    ):
        Scraper(history, [address], 5, {"gpu_up"}).scrape_all()
        assert len(history.read("gpu_up", (), 0, 2e9)) == 1


def test_an_exporter_that_is_not_ready_is_asked_again_after_a_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    def answer(handler: BaseHTTPRequestHandler, number: int) -> None:
        reply(503 if number < 2 else 200, "")(handler, number)

    command = subprocess.Popen
    monkeypatch.setattr(local_exporter, "check_can_listen", lambda *_: None)
    monkeypatch.setattr(subprocess, "Popen", lambda _, **options: command(["sleep", "60"], **options))
    monkeypatch.setattr(time, "sleep", pauses.append)
    with fake_http(answer) as server, run_exporter(server.address, "", tmp_path, tmp_path / "jobs"):
        assert pauses == [READY_POLL_SECONDS] * 2
