"""`serve` reads its settings again by SIGHUP and POST /-/reload; what is wrong changes nothing. Logs are lines."""

from __future__ import annotations

import logging
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from gpu_advisor.commands.run_service import run_service
from gpu_advisor.runtime.logs import EscapingFormatter, RepetitionLimit
from gpu_advisor.runtime.wiring import RunningAdvisor, build_advisor
from gpu_advisor.settings import ConfigError, Settings
from gpu_advisor.settings.addresses import AddressError, join_host_port, split_host_port

from tests.logged_process import run_module
from tests.polling import wait_until
from tests.servers import free_port

SETTINGS = """
cluster: {cluster}
state_dir: {folder}/state
source: {{prometheus: {{url: "http://127.0.0.1:9", retries: 0}}}}
web: {{listen_address: "127.0.0.1:{port}", enable_lifecycle: {lifecycle}, write_token_file: "{folder}/token"}}
"""


@contextmanager
def serving(folder: Path, text: str) -> Iterator[tuple[subprocess.Popen[str], list[str], Path]]:
    path = folder / "advisor.yml"
    path.write_text(text)
    with run_module("gpu_advisor", "serve", "--config", str(path)) as (process, lines):
        yield process, lines, path


def test_settings_are_read_again_and_bad_ones_change_nothing(tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    values = {"folder": tmp_path, "port": port, "lifecycle": "true"}

    def cluster() -> str:
        try:
            return str(requests.get(f"{url}/recommendations", timeout=60).json()["cluster"])
        except requests.ConnectionError:
            return ""

    with serving(tmp_path, SETTINGS.format(cluster="one", **values)) as (process, lines, path):
        wait_until(lambda: cluster() == "one", "the first settings")
        path.write_text(SETTINGS.format(cluster="two", **values))
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: cluster() == "two", "the second settings")
        path.write_text("nonsense: true\n")
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: any("not reloaded" in line for line in list(lines)), "the reason in the log")
        assert cluster() == "two"
        token = (tmp_path / "token").read_text().strip()
        assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600
        assert requests.post(f"{url}/-/reload", timeout=60).status_code == 401
        allowed = {"Authorization": f"Bearer {token}"}
        refused = requests.post(f"{url}/-/reload", headers=allowed, timeout=60)
        assert refused.status_code == 400
        assert "nonsense" in refused.json()["detail"]
        # Valid, but it cannot start with it.
        path.write_text(SETTINGS.format(cluster="three", **values) + "allocation: {inventory_file: /nowhere.yml}\n")
        path.write_text(path.read_text().replace(f'"{tmp_path}/token"', '"/nowhere/token"'))
        assert requests.post(f"{url}/-/reload", headers=allowed, timeout=60).status_code == 200
        wait_until(lambda: any("/nowhere/token" in line for line in list(lines)), "the reason in the log")
        wait_until(lambda: cluster() == "two", "the previous settings")
        path.write_text(SETTINGS.format(cluster="four", **{**values, "lifecycle": "false"}))
        assert requests.post(f"{url}/-/reload", headers=allowed, timeout=60).status_code == 200
        wait_until(lambda: cluster() == "four", "the last settings")
        assert requests.post(f"{url}/-/reload", headers=allowed, timeout=60).status_code == 403
        assert process.poll() is None
        assert (tmp_path / "token").read_text().strip() == token


def test_up_ends_with_its_terminal() -> None:
    """Without `load`, SIGHUP keeps its default action, which ends the process."""
    assert run_service.__kwdefaults__ is None
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL


def test_stopping_goes_on_whatever_fails(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    settings = Settings.model_validate({"state_dir": str(tmp_path), "source": {"embedded": {"targets": []}}})
    advisor = build_advisor(settings)
    stopped = []

    def fail() -> None:
        stopped.append("failed")
        raise RuntimeError("on purpose")

    advisor._closers.insert(1, lambda: stopped.append("before"))
    advisor._closers.insert(2, fail)
    advisor.close()
    assert stopped == ["failed", "before"]
    assert "on purpose" in caplog.text
    RunningAdvisor.close(advisor)  # a second time: nothing


@pytest.mark.parametrize(
    "wrong",
    [
        {"source": {"embedded": {"targets": ["node-1:99999"]}}},
        {"source": {"embedded": {}}, "allocation": {"inventory_file": "/nowhere.yml"}},
    ],
)
def test_what_cannot_start_leaves_nothing_open(tmp_path: Path, wrong: dict[str, Any]) -> None:
    """A reload starts with the previous settings again, while it handles the error."""
    usable: dict[str, Any] = {"source": {"embedded": {"targets": []}}}
    wrong_settings, right = (Settings.model_validate({"state_dir": str(tmp_path), **each}) for each in (wrong, usable))
    threads = set(threading.enumerate())
    try:
        build_advisor(wrong_settings)
    except ConfigError:
        build_advisor(right).close()
    else:
        pytest.fail("it started")
    started = [each for each in threading.enumerate() if each not in threads]
    for each in started:
        each.join(timeout=10)
    assert not [each.name for each in started if each.is_alive()]


@pytest.mark.parametrize("address", ["::1:9817", "[::1:9817", "[]:1", ":1", "a", "a:b", "a:99999"])
def test_addresses_that_can_be_read_two_ways_are_refused(address: str) -> None:
    with pytest.raises(AddressError):
        split_host_port(address)


def test_ipv6_addresses_have_brackets() -> None:
    assert split_host_port("[::1]:9817") == ("::1", 9817)
    assert join_host_port("::1", 9817) == "[::1]:9817"
    assert join_host_port("localhost", 1) == "localhost:1"


@pytest.mark.parametrize("text", ["a\nERROR forged", "\x1b[2J", "\u2028", "\u202egnp", "\r"])
def test_nothing_from_outside_ends_a_log_line(text: str) -> None:
    record = logging.LogRecord("n", logging.INFO, "f", 1, "pool %s", (text,), None)
    line = EscapingFormatter("%(message)s").format(record)
    assert line.isprintable()


def test_a_message_is_logged_so_often_and_no_more() -> None:
    now = [0.0]
    limit = RepetitionLimit(lambda: now[0])
    records = [logging.LogRecord("n", logging.INFO, "f", 1, "failed %d", (n,), None) for n in range(1000)]
    assert sum(map(limit.filter, records)) == 20
    now[0] = 61.0
    assert limit.filter(records[0])
    assert "980 more" in records[0].getMessage()
