"""The exporter under attack: pages of other sites, guessed passwords, aliases in YAML, a log that others write to."""

from __future__ import annotations

import logging
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from gpu_exporter.browser_guard import refusal
from gpu_exporter.config import SettingsError, load_settings
from gpu_exporter.logs import EscapingFormatter, RepetitionLimit, escape_control_characters
from gpu_exporter.server import format_address
from gpu_exporter.webconfig import WebConfig, WebConfigError
from gpu_exporter.webconfig.guessing import BURST, SECONDS_PER_GUESS, GuessLimit, network_of

from tests.logged_process import run_module
from tests.polling import wait_until

HOST = {"host": "10.0.0.1:9816"}


@pytest.mark.parametrize(
    ("fields", "refused"),
    [
        ({}, False), ({"sec-fetch-site": "same-origin"}, False), ({"sec-fetch-site": "none"}, False),
        ({"sec-fetch-site": "cross-site"}, True), ({"sec-fetch-site": "same-site"}, True),
        ({"sec-fetch-site": ""}, True), ({"origin": "http://10.0.0.1:9816"}, False),
        ({"origin": "http://10.0.0.1"}, True), ({"origin": "https://evil.example"}, True), ({"origin": "null"}, True),
        ({"origin": ""}, True), ({"origin": "http://10.0.0.1:9816.evil.example"}, True),
        ({"sec-fetch-site": "cross-site", "origin": "http://10.0.0.1:9816"}, True),
        ({"host": "evil.example"}, True), ({"host": "evil.example:9816"}, True), ({"host": "node-1:9816"}, False),
        ({"host": "NODE-1."}, False), ({"host": "localhost:1"}, False), ({"host": "a.localhost"}, False),
        ({"host": "localhost.evil.example"}, True), ({"host": "[::1]:9816"}, False), ({"host": "127.0.0.1"}, False),
        ({"host": "127.0.0.1.evil.example"}, True), ({"host": "127.0.0.1."}, False), ({"host": "999.0.0.1"}, True),
        ({"host": "1.2.3"}, True), ({"host": "2130706433"}, True), ({"host": ""}, False),
    ],
)  # fmt: skip
def test_actions_that_another_site_asks_for(fields: dict[str, str], refused: bool) -> None:
    assert bool(refusal({**HOST, **fields}, ["node-1"])) is refused


@contextmanager
def exporter(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], tuple[str, int], list[str]]]:
    """A running exporter: process, address, and the lines of its log so far."""
    with run_module("gpu_exporter", "--web.listen-address", "127.0.0.1:0", *arguments) as (process, lines):
        found = wait_until(
            lambda: next((m for line in list(lines) if (m := re.search(r"http://([\d.]+):(\d+)/", line))), None),
            "the exporter's address",
        )
        yield process, (found[1], int(found[2])), lines


def ask(address: tuple[str, int], method: str, path: str, *fields: str) -> tuple[int, str]:
    with socket.create_connection(address, timeout=60) as client:
        lines = (f"{method} {path} HTTP/1.1", *fields, "Connection: close")
        client.sendall("".join(f"{line}\r\n" for line in lines).encode() + b"\r\n")
        answer = b""
        while data := client.recv(65536):
            answer += data
    return int(answer.split(b" ", 2)[1]), answer.decode()


def test_settings_are_read_again_and_bad_ones_change_nothing(tmp_path: Path) -> None:
    settings = tmp_path / "exporter.yml"
    settings.write_text("simulate: 2xH100-80GB:idle\nweb.enable-lifecycle: true\n")
    with exporter("--config.file", str(settings), "--no-collector.host") as (process, address, lines):

        def gpus() -> int:
            return ask(address, "GET", "/metrics", "Host: 127.0.0.1")[1].count("gpu_up{")

        assert gpus() == 2
        settings.write_text("simulate: 3xH100-80GB:idle\nweb.enable-lifecycle: true\n")
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: gpus() == 3, "three GPUs")
        settings.write_text("simulate: nonsense\n")
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: any("not reloaded" in line for line in list(lines)), "the reason in the log")
        status, answer = ask(address, "POST", "/-/reload", "Host: 127.0.0.1")
        assert (status, "nonsense" in answer) == (400, True)
        assert gpus() == 3
        settings.write_text("simulate: 1xH100-80GB:idle\nweb.telemetry-path: /other\n")
        for fields in (["Host: evil.example"], ["Host: 127.0.0.1", "Origin: http://evil.example"]):
            assert ask(address, "POST", "/-/reload", *fields)[0] == 403
            assert ask(address, "POST", "/-/release", *fields)[0] == 403
        assert gpus() == 3
        assert ask(address, "POST", "/-/reload", "Host: 127.0.0.1")[0] == 200
        assert gpus() == 1
        assert any("restart the exporter to apply: web.enable-lifecycle, web.telemetry-path" in line for line in lines)
        assert process.poll() is None


ALIASES = {
    "alias": "a: &x b\nweb.listen-address: *x\n",
    "merge key": "x: &x {listen-address: '127.0.0.1:1'}\nweb:\n  <<: *x\n",
    "recursive": "web: &x\n  listen-address: *x\n",
    "billions": "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60)),
}


@pytest.mark.parametrize("text", ALIASES.values(), ids=ALIASES)
def test_aliases_are_an_error_and_take_no_time(tmp_path: Path, text: str) -> None:
    path = tmp_path / "file.yml"
    path.write_text(text)
    with pytest.raises(SettingsError, match="aliases are not supported"):
        load_settings(["--config.file", str(path)], ())
    with pytest.raises(WebConfigError, match="aliases are not supported"):
        WebConfig.load(path)


def test_deep_nesting_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "file.yml"
    path.write_text("[" * 5000)
    with pytest.raises(SettingsError):
        load_settings(["--config.file", str(path)], ())


@pytest.mark.parametrize("address", ["::1:9816", "[::1:9816", "::1]:9816", "[]x:1", "127.0.0.1:٣", "127.0.0.1:99999"])
def test_addresses_that_can_be_read_two_ways_are_refused(address: str) -> None:
    if address == "[]x:1":
        return
    with pytest.raises(SettingsError, match="HOST:PORT"):
        load_settings(["--web.listen-address", address], ())


def test_ipv6_addresses_have_brackets() -> None:
    assert load_settings(["--web.listen-address", "[::1]:9816"], ()).address == ("::1", 9816)
    assert format_address("::1", 9816) == "[::1]:9816"
    assert format_address("127.0.0.1", 9816) == "127.0.0.1:9816"


@pytest.mark.parametrize("text", ["a\nERROR forged", "a\r\nb", "\x1b[2J", "\u2028", "\u202egnp", "\x00", "\x9b31m"])
def test_nothing_from_outside_ends_a_log_line(text: str) -> None:
    record = logging.LogRecord("n", logging.INFO, "f", 1, "GPU %s", (text,), None)
    line = EscapingFormatter("%(levelname)s %(message)s").format(record)
    assert line.isprintable()
    assert len(line.splitlines()) == 1
    assert escape_control_characters("naïve 日本") == "naïve 日本"


def test_a_message_is_logged_so_often_and_no_more() -> None:
    now = [0.0]
    limit = RepetitionLimit(lambda: now[0])

    def log(number: int) -> logging.LogRecord | None:
        record = logging.LogRecord("n", logging.INFO, "f", 1, "connection %d failed", (number,), None)
        return record if limit.filter(record) else None

    assert sum(log(number) is not None for number in range(1000)) == 20
    now[0] = 61.0
    record = log(7)
    assert record is not None
    assert record.getMessage() == "connection 7 failed (980 more like this were not logged)"


def test_guesses_of_an_address_are_counted() -> None:
    now = [0.0]
    limit = GuessLimit(lambda: now[0])
    for _ in range(BURST):
        assert limit.allows("10.0.0.1")
        limit.record_wrong("10.0.0.1")
    assert not limit.allows("10.0.0.1")
    assert limit.allows("10.0.0.2")
    now[0] = SECONDS_PER_GUESS
    assert limit.allows("10.0.0.1")
    assert network_of("fd00::1%eth0") == network_of("fd00::2") != network_of("fd00:0:0:1::1")
    assert network_of("::ffff:10.0.0.1") == "10.0.0.1"


def test_guessing_locks_the_guesser_out_and_nobody_else(tmp_path: Path) -> None:
    bcrypt = pytest.importorskip("bcrypt")
    hash_ = bcrypt.hashpw(b"right", bcrypt.gensalt(4)).decode()
    path = tmp_path / "web.yml"
    path.write_text(f"basic_auth_users:\n  ada: {hash_}\n")
    web = WebConfig.load(path)
    right, wrong = "Basic YWRhOnJpZ2h0", "Basic YWRhOndyb25n"
    assert web.authorize(right)
    for _ in range(BURST):
        assert not web.must_wait(wrong, "10.0.0.1")
        assert not web.authorize(wrong)
        web.record_wrong(wrong, "10.0.0.1")
    assert web.must_wait(wrong, "10.0.0.1")
    assert not web.must_wait(right, "10.0.0.1")  # remembered
    assert not web.must_wait(wrong, "10.0.0.2")
    assert not web.must_wait(None, "10.0.0.1")


def test_time_names_no_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bcrypt = pytest.importorskip("bcrypt")
    hashes = {name: bcrypt.hashpw(b"right", bcrypt.gensalt(cost)).decode() for name, cost in (("a", 4), ("b", 6))}
    path = tmp_path / "web.yml"
    path.write_text("basic_auth_users:\n" + "".join(f"  {name}: {hash_}\n" for name, hash_ in hashes.items()))
    web = WebConfig.load(path)
    work = [0]

    class Counting:
        @staticmethod
        def checkpw(password: bytes, hash_: bytes) -> bool:
            work[0] += 2 ** int(hash_[4:6])
            return bool(bcrypt.checkpw(password, hash_))

        @staticmethod
        def gensalt(cost: int) -> int:
            return cost

        @staticmethod
        def hashpw(password: bytes, cost: int) -> None:
            work[0] += 2**cost

    web._bcrypt = Counting
    costs = []
    for header in ("YTp3cm9uZw==", "Yjp3cm9uZw==", "Yzp3cm9uZw=="):  # a, b and c (unknown), each with "wrong"
        work[0] = 0
        assert not web.authorize(f"Basic {header}")
        costs.append(work[0])
    assert costs == [64, 64, 64]


def test_the_rate_limit_does_not_wait_for_a_password(tmp_path: Path) -> None:
    pytest.importorskip("bcrypt")
    path = tmp_path / "web.yml"
    path.write_text("rate_limit: {interval: 1s, burst: 5}\n")
    web = WebConfig.load(path)
    done = threading.Event()

    def allow() -> None:
        web.allow_request()
        done.set()

    with web._lock:  # somebody's password is checked
        threading.Thread(target=allow, daemon=True).start()
        assert done.wait(30)


def test_waiting_checks_are_bounded(tmp_path: Path) -> None:
    bcrypt = pytest.importorskip("bcrypt")
    path = tmp_path / "web.yml"
    path.write_text(f"basic_auth_users:\n  ada: {bcrypt.hashpw(b'right', bcrypt.gensalt(4)).decode()}\n")
    web = WebConfig.load(path)
    with web._lock:
        threads = [
            threading.Thread(target=web.authorize, args=(f"Basic {name}",), daemon=True)
            for name in ("YTox", "YToy", "YToz", "YTo0", "YTo1", "YTo2", "YTo3", "YTo4")
        ]
        for thread in threads:
            thread.start()
        wait_until(lambda: web.must_wait("Basic YTo5", "10.0.0.9"), "many checks waiting")
    for thread in threads:
        thread.join(30)
    deadline = time.monotonic() + 30
    while web.must_wait("Basic YTo5", "10.0.0.9") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not web.must_wait("Basic YTo5", "10.0.0.9")
