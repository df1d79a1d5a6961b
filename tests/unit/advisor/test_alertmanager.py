"""Notifying Alertmanagers: each by itself, retried until it succeeds, and never with outdated alerts."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from types import SimpleNamespace

import pytest
from gpu_advisor.notify import alertmanager
from gpu_advisor.notify.alertmanager import MAX_ALERTS_PER_REQUEST, AlertDispatcher, AlertmanagerStatus
from gpu_advisor.notify.alerts import ALERT_TTL_EVALUATIONS
from gpu_advisor.settings import AlertmanagerSettings
from gpu_advisor.state.alert import Alert
from pydantic import SecretStr

from tests.polling import wait_until
from tests.unit.advisor.builders import AT
from tests.unit.sources.fake_http import FakeServer, Responder, fake_http, reply

OK = reply(200, "")


def alert(id_: str) -> Alert:
    return Alert(id_, {"alertname": "X", "id": id_}, {}, AT)


@contextmanager
def senders(*urls: str, interval: float = 15, timeout: float = 5) -> Iterator[AlertDispatcher]:
    made = AlertDispatcher([AlertmanagerSettings(url=url, timeout_seconds=timeout) for url in urls], interval)
    try:
        yield made
    finally:
        made.close()


def sent_alerts(server: FakeServer) -> list[list[str]]:
    """The alerts of each request."""
    return [[each["labels"]["id"] for each in json.loads(request.body)] for request in server.requests]


@pytest.mark.parametrize(
    ("status", "up", "words"),
    [(200, True, ""), (302, False, "HTTP 302"), (400, False, "HTTP 400: '<oops>"), (503, False, "HTTP 503")],
)
def test_what_an_alertmanager_did_not_take_is_not_counted(status: int, up: bool, words: str) -> None:
    with fake_http(reply(status, "<oops>\n", Location="/-/ready")) as server, senders(server.url) as sender:
        assert sender.states == (AlertmanagerStatus(server.url),)
        sender.send([alert("1")], AT)
        wait_until(lambda: sender.states[0].up is not None, "it was notified")
        (state,) = sender.states
        assert (state.up, state.sent) == (up, int(up))
        assert words in state.message


def no_answer(handler: BaseHTTPRequestHandler, number: int) -> None:
    time.sleep(3)


def drip(handler: BaseHTTPRequestHandler, number: int) -> None:
    """An answer without an end, a byte at a time: no limit on a single wait would end it."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    for _ in range(60):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.05)


@pytest.mark.parametrize("bad", [no_answer, drip])
def test_one_that_hangs_holds_up_neither_the_service_nor_the_others(bad: Responder) -> None:
    with fake_http(bad) as away, fake_http(OK) as there, senders(away.url, there.url, timeout=0.5) as sender:
        for number in range(3):
            sender.send([alert(str(number))], AT)
            wait_until(lambda n=number: sent_alerts(there)[-1:] == [[str(n)]], "the other one is notified")  # type: ignore[misc]
        wait_until(lambda: sender.states[0].up is False, "and it is known of the first that it does not answer")
        assert "0.5 s" in sender.states[0].message


def test_sending_does_not_wait_for_an_answer() -> None:
    released = threading.Event()

    def hang(handler: BaseHTTPRequestHandler, number: int) -> None:
        released.wait(60)

    with fake_http(hang) as server, senders(server.url, timeout=30) as sender:
        for number in range(3):
            sender.send([alert(str(number))], AT)
        wait_until(lambda: server.requests, "the first request")
        assert sender.states[0].up is None
        released.set()


def test_what_failed_is_sent_again_with_growing_pauses_and_the_newest_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alertmanager, "FIRST_RETRY_SECONDS", 0.1)
    pauses: list[float] = []
    retry_later = alertmanager._Sender._retry_later

    def record(sender: alertmanager._Sender, message: alertmanager._AlertBatch, pause: float) -> None:
        pauses.append(pause)
        retry_later(sender, message, pause)

    monkeypatch.setattr(alertmanager._Sender, "_retry_later", record)

    def at_last(handler: BaseHTTPRequestHandler, number: int) -> None:
        (OK if number >= 4 else reply(503, ""))(handler, number)

    with fake_http(at_last) as server, senders(server.url) as sender:
        sender.send([alert("old")], AT)
        wait_until(lambda: len(server.requests) >= 2, "a second try")
        sender.send([alert("new")], AT)
        wait_until(lambda: sender.states[0].up, "notified at last")
        assert sent_alerts(server)[0] == ["old"]
        assert sent_alerts(server)[-1] == ["new"]
        assert sender.states[0].sent == 1
        assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8])
        count = len(server.requests)
        time.sleep(0.3)
        assert len(server.requests) == count  # what was delivered is not sent again by itself


def test_resolved_alerts_are_not_sent_as_firing(monkeypatch: pytest.MonkeyPatch) -> None:
    """After its end, an alert that fires would read as resolved."""
    now = [0.0]
    monkeypatch.setattr(alertmanager, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(alertmanager, "FIRST_RETRY_SECONDS", 0.05)

    def expire(handler: BaseHTTPRequestHandler, number: int) -> None:
        now[0] += ALERT_TTL_EVALUATIONS * 15
        reply(503, "")(handler, number)

    with fake_http(expire) as server, senders(server.url, interval=15) as sender:
        sender.send([alert("1")], AT)
        wait_until(lambda: sender.states[0].up is False, "a first try")
        time.sleep(0.3)
        assert len(server.requests) == 1


def test_many_alerts_go_in_batches_and_none_at_all_is_sent_too() -> None:
    with fake_http(OK) as server, senders(server.url) as sender:
        sender.send([alert(str(number)) for number in range(2 * MAX_ALERTS_PER_REQUEST + 1)], AT)
        wait_until(lambda: sender.states[0].sent == 2 * MAX_ALERTS_PER_REQUEST + 1, "all of them")
        assert [len(each) for each in sent_alerts(server)] == [MAX_ALERTS_PER_REQUEST, MAX_ALERTS_PER_REQUEST, 1]
        sender.send([], AT)
        wait_until(lambda: len(server.requests) == 4, "that there is none")
        assert json.loads(server.requests[-1].body) == []


def test_a_login_is_sent_and_not_shown() -> None:
    with fake_http(reply(401, "who?")) as server:
        settings = AlertmanagerSettings(url=server.url, username="ada", password=SecretStr("s3cret"))
        sender = AlertDispatcher([settings], 15)
        sender.send([], AT)
        wait_until(lambda: sender.states[0].up is False, "refused")
        sender.close()
        assert server.requests[0].headers["Authorization"] == "Basic YWRhOnMzY3JldA=="
        assert "s3cret" not in repr(sender.states)
