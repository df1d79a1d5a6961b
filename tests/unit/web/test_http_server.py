"""The HTTP server: its answers to valid requests, and how it copes with slow and with many clients."""

from __future__ import annotations

import http.client
import logging
import resource
import socket
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest
from gpu_advisor.web.http.clients import PendingResponses
from gpu_advisor.web.http.lanes import Lane
from gpu_advisor.web.http.limits import ServerLimits, limits_for_descriptors

from tests.certificates import self_signed
from tests.polling import wait_until
from tests.unit.web.clients import BODY, application, connect, exchange, read_all, release, serving, status_of

GET = b"GET /echo HTTP/1.1\r\nHost: a\r\n\r\n"
QUICK = ServerLimits(request_seconds=0.5, idle_seconds=0.5, response_seconds=0.5, slowest_bytes_per_second=1 << 30)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    return self_signed(tmp_path_factory.mktemp("tls"))


@pytest.fixture(params=["plain", "tls"])
def wrap(request: pytest.FixtureRequest, tls: ssl.SSLContext) -> tuple[ssl.SSLContext | None, ssl.SSLContext]:
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    return (tls if request.param == "tls" else None), client


Wrap = tuple[ssl.SSLContext | None, ssl.SSLContext]


def fetch(address: tuple[str, int], wrap: Wrap, path: str, **arguments: Any) -> tuple[int, bytes]:
    server, client = wrap
    made = (
        http.client.HTTPSConnection(*address, timeout=60, context=client)
        if server
        else http.client.HTTPConnection(*address, timeout=60)
    )
    try:
        made.request(str(arguments.pop("method", "GET")), path, **arguments)
        answer = made.getresponse()
        return answer.status, answer.read()
    finally:
        made.close()


def test_requests_of_every_kind(wrap: Wrap) -> None:
    with serving(tls=wrap[0]) as address:
        host = f"{address[0]}:{address[1]}"
        assert fetch(address, wrap, "/echo?a=b%20c") == (200, f"GET /echo?a=b%20c {host} ".encode())
        assert fetch(address, wrap, "/echo", method="POST", body=b"body")[1].endswith(b" body")
        chunks = iter([b"in ", b"two"])
        assert fetch(address, wrap, "/echo", method="POST", body=chunks)[1].endswith(b" in two")
        assert fetch(address, wrap, "/echo", method="HEAD") == (200, b"")
        assert fetch(address, wrap, "/empty") == (204, b"")
        assert fetch(address, wrap, "/big") == (200, BODY * 200)
        assert fetch(address, wrap, "/broken")[0] == 500
        assert fetch(address, wrap, "/split")[0] == 500


def test_one_connection_takes_many_requests_also_pipelined(wrap: Wrap) -> None:
    with serving(tls=wrap[0]) as address:
        plain = connect(address)
        client = wrap[1].wrap_socket(plain) if wrap[0] else plain
        client.sendall(GET * 20 + b"GET /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert read_all(client).count(b"HTTP/1.1 200 OK") == 21
        client.close()


def test_an_expected_continue_is_sent() -> None:
    with serving() as address, connect(address) as client:
        client.sendall(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 100 ")
        client.sendall(b"ab")
        assert client.recv(1000).endswith(b" ab")


def test_an_absolute_target_names_the_host() -> None:
    with serving() as address:
        answer = exchange(address, b"GET http://b.example/echo?q HTTP/1.1\r\nHost: a\r\n\r\n")
        assert answer.endswith(b"GET /echo?q b.example ")


def test_a_field_with_an_underscore_replaces_none_with_a_hyphen() -> None:
    def app(environ, start_response):
        start_response("200 OK", [])
        return [environ.get("HTTP_X_USER", "").encode()]

    with serving(app=app) as address:
        answer = exchange(address, b"GET / HTTP/1.1\r\nHost: a\r\nX-User: right\r\nX_User: wrong\r\n\r\n")
        assert answer.endswith(b"\r\n\r\nright")


def test_slow_and_idle_clients_keep_nobody_waiting(wrap: Wrap) -> None:
    """Silent, one byte at a time, not reading; each of them more often than there are workers."""
    with serving(tls=wrap[0]) as address:
        held = []
        for number in range(30):
            client = connect(address, receive_buffer=4096)
            if wrap[0] and number % 3:
                client = wrap[1].wrap_socket(client)
            if number % 3 == 1:
                client.sendall(b"G")
            elif number % 3 == 2:
                client.sendall(GET.replace(b"/echo", b"/big"))
            held.append(client)
        assert fetch(address, wrap, "/echo")[0] == 200
        for client in held:
            client.close()


@pytest.mark.parametrize(
    "sent", [b"", b"G", GET[:-2], b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n123"]
)
def test_an_unfinished_request_is_ended_at_its_deadline(sent: bytes) -> None:
    with serving(QUICK) as address, connect(address) as client:
        client.sendall(sent)
        answer = read_all(client)
        assert answer.startswith(b"HTTP/1.1 408 ") if sent else answer == b""


def test_one_byte_at_a_time_does_not_extend_the_deadline() -> None:
    with serving(QUICK) as address, connect(address) as client:
        stop = threading.Event()

        def drip() -> None:
            while not stop.wait(0.05):
                try:
                    client.send(b"x")
                except OSError:
                    return

        dripping = threading.Thread(target=drip)
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nX: ")
        dripping.start()
        assert read_all(client).startswith(b"HTTP/1.1 408 ")
        stop.set()
        dripping.join(10)


def test_an_idle_connection_is_closed_after_its_time() -> None:
    with serving(QUICK) as address, connect(address) as client:
        client.sendall(GET)
        assert read_all(client).count(b"HTTP/1.1 200") == 1


def test_a_response_that_is_not_taken_is_dropped_at_its_deadline() -> None:
    with serving(QUICK) as address, connect(address, receive_buffer=4096) as client:
        client.sendall(GET.replace(b"/echo", b"/big"))
        threading.Event().wait(1.5)
        assert len(read_all(client)) < len(BODY) * 200


def test_a_slow_lane_delays_no_other_and_refuses_what_it_cannot_hold() -> None:
    with serving() as address:
        held = [connect(address) for _ in range(4)]
        for client in held:
            client.sendall(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        # One thread, and 2 more tasks in its queue: one of four is refused at once.
        assert fetch(address, (None, ssl.create_default_context()), "/echo")[0] == 200
        release.set()
        statuses = sorted(status_of(client.recv(1000)) for client in held)
        assert statuses[-1] == 503
        assert statuses[0] == 200
        for client in held:
            client.close()


def test_a_prepared_request_goes_on_in_the_lane_that_it_belongs_to() -> None:
    def app(environ, start_response):
        start_response("200 OK", [])
        return [f"{environ['checked']} {threading.current_thread().name}".encode()]

    def prepare(environ: dict[str, Any]) -> str:
        environ["checked"] = threading.current_thread().name
        return "slow"

    lanes = {"quick": Lane(1, 1, prepare=prepare), "slow": Lane(1, 1)}
    with serving(lanes=lanes, app=app) as address:
        assert exchange(address, GET).endswith(b"web quick 0 web slow 0")


def test_beyond_the_connection_limit_the_address_with_most_loses_its_oldest() -> None:
    with serving(ServerLimits(connections=5)) as address:
        served = connect(address)
        served.sendall(GET)
        assert served.recv(1000).startswith(b"HTTP/1.1 200")
        idle = [connect(address) for _ in range(6)]
        assert status_of(exchange(address, GET)) == 200
        closed = [client for client in (served, *idle) if _is_closed(client)]
        assert 2 <= len(closed) <= 4
        for client in (served, *idle):
            client.close()


def _is_closed(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False


def test_without_descriptors_it_waits_says_so_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with serving() as address, caplog.at_level(logging.WARNING):
        held = [socket.socket() for _ in range(32)]  # there before the limit: only the server needs more
        used = len(list(Path("/proc/self/fd").iterdir()))
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (used + 8, hard))
            for client in held:
                client.connect(address)
            wait_until(lambda: "limit of open files" in caplog.text, "a warning")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for client in held:
            client.close()
        assert status_of(exchange(address, GET)) == 200
    assert caplog.text.count("limit of open files") < 50


def test_the_connection_limit_leaves_descriptors_for_the_rest() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        chosen = limits_for_descriptors(ServerLimits(connections=2048))
        now = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        assert now == resource.RLIM_INFINITY or chosen.connections + 256 <= now
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_responses_not_taken_are_bounded_together() -> None:
    def app(environ, start_response):
        start_response("200 OK", [])
        return [bytes(5_000_000)]  # a new one for each

    with serving(ServerLimits(pending_bytes=12_000_000), app=app) as address:
        held = [connect(address, receive_buffer=4096) for _ in range(6)]
        for client in held:
            client.sendall(GET[:-2] + b"Connection: close\r\n\r\n")
        threading.Event().wait(1)
        sizes = sorted(len(read_all(client)) for client in held)
        assert sizes[0] < 5_000_000 < sizes[-1]


def test_a_body_that_many_take_counts_once() -> None:
    pending, body = PendingResponses(), b"x" * 1000
    pending.add((b"head1", body))
    pending.add((b"head2", body))
    assert pending.bytes == 1010
    pending.remove((b"head1", body))
    assert pending.bytes <= 1005
    pending.remove((b"head2", body))
    assert pending.bytes == 0


def test_stopping_lets_a_response_be_taken() -> None:
    release.clear()
    with connect_after_stop() as (client, answer):
        assert status_of(answer) == 200
        client.close()


class connect_after_stop:  # noqa: N801
    """A request is under way while the server stops."""

    def __enter__(self) -> tuple[socket.socket, bytes]:
        with serving() as address:
            client = connect(address)
            client.sendall(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
            threading.Event().wait(0.2)
        return client, read_all(client)

    def __exit__(self, *_: object) -> None:
        pass


def test_application_is_a_plain_wsgi_application() -> None:
    assert list(application({"PATH_INFO": "/", "REQUEST_METHOD": "GET"}, lambda *_: None)) == [b"ok"]
