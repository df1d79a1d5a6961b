"""The HTTP server with well-behaved and misbehaving clients."""

from __future__ import annotations

import gzip
import http.client
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from gpu_exporter import malloc
from gpu_exporter import server as http_server
from gpu_exporter.http_request import HttpError, accepts_gzip, parse_http_request
from gpu_exporter.server import ListenError, MetricsServer, ServerConfig

from tests.polling import wait_until

PAGE = b"# HELP up One.\n# TYPE up gauge\n" + b"".join(b'up{n="%d"} 1\n' % n for n in range(1000))
GET = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
LAST_GET = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@contextmanager
def serving(page=lambda: PAGE, host: str = "127.0.0.1") -> Iterator[MetricsServer]:
    server = MetricsServer((host, 0), ServerConfig("/metrics", page))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def server() -> Iterator[MetricsServer]:
    with serving() as server:
        yield server


def address(server: MetricsServer) -> tuple[str, int]:
    host, port = server.server_address[:2]
    assert isinstance(host, str)
    return host, port


def connect(server: MetricsServer) -> socket.socket:
    return socket.create_connection(address(server), timeout=60)


def http_client(server: MetricsServer) -> http.client.HTTPConnection:
    host, port = address(server)
    return http.client.HTTPConnection(host, port, timeout=60)


def send_raw(server: MetricsServer, *parts: bytes) -> bytes:
    """Everything that the server sends in response, until it closes the connection."""
    with connect(server) as client:
        for part in parts:
            client.sendall(part)
            time.sleep(0.01)
        return b"".join(iter(lambda: client.recv(65536), b""))


def get(server: MetricsServer, path: str = "/metrics", method: str = "GET", **fields: str):
    client = http_client(server)
    client.request(method, path, headers={name.replace("_", "-"): value for name, value in fields.items()})
    answer = client.getresponse()
    body = answer.read()
    client.close()
    return answer, body


def test_page(server):
    answer, body = get(server)
    assert (answer.status, body) == (200, PAGE)
    assert answer.getheader("Content-Type") == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.getheader("Content-Encoding") is None
    assert answer.getheader("Date", "").endswith(" GMT")


@pytest.mark.parametrize(
    ("path", "status", "content"),
    [
        ("/metrics?name=x", 200, PAGE),
        ("/-/healthy", 200, b"ok\n"),
        ("/-/ready", 200, b"ok\n"),
        ("/", 200, b'<a href="/metrics">'),
        ("/metrics/", 404, b"metrics are at /metrics"),
        ("/favicon.ico", 404, b"metrics are at /metrics"),
        ("*", 404, b"metrics are at /metrics"),
        ("http://node:9816/metrics", 200, PAGE),
    ],
)
def test_paths(server, path, status, content):
    answer, body = get(server, path)
    assert answer.status == status
    assert content in body


def test_gzip_only_if_accepted(server):
    answer, body = get(server, Accept_Encoding="gzip, deflate")
    assert answer.getheader("Content-Encoding") == "gzip"
    assert int(answer.getheader("Content-Length", "0")) == len(body) < len(PAGE)
    assert gzip.decompress(body) == PAGE
    assert get(server, Accept_Encoding="gzip;q=0, identity")[1] == PAGE
    assert get(server, "/-/healthy", Accept_Encoding="gzip")[1] == b"ok\n"


@pytest.mark.parametrize(
    ("accept_encoding", "accepts"),
    [
        ("gzip", True),
        ("deflate, GZIP", True),
        ("br;q=1, gzip;q=0.5", True),
        ("gzip;q=0.01", True),
        ("gzip; q=0", False),
        ("gzip;q=0.000", False),
        ("", False),
        ("br, identity", False),
    ],
)
def test_accepts_gzip(accept_encoding, accepts):
    assert accepts_gzip(accept_encoding) is accepts


def test_head_is_get_without_the_body(server):
    answer, body = get(server, method="HEAD")
    assert (answer.status, body, answer.getheader("Content-Length")) == (200, b"", str(len(PAGE)))
    head = send_raw(server, LAST_GET.replace(b"GET", b"HEAD"))
    assert head.endswith(b"\r\n\r\n")
    assert head.count(b"\r\n\r\n") == 1


def test_keep_alive(server):
    client = http_client(server)
    ports = set()
    for path in ("/metrics", "/nothing", "/metrics"):
        client.request("GET", path)
        client.getresponse().read()
        ports.add(client.sock.getsockname())
    client.close()
    assert len(ports) == 1


@pytest.mark.parametrize(
    ("request_", "kept"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nConnection: Close\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", True),
    ],
)
def test_when_the_connection_is_closed(server, request_, kept):
    with connect(server) as client:
        client.sendall(request_)
        client.settimeout(0.3)
        received = b""
        try:
            while data := client.recv(65536):
                received += data
            closed = True
        except TimeoutError:
            closed = False
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert closed is not kept
    assert (b"Connection: keep-alive" if kept else b"Connection: close") in received


def test_pipelined_requests_are_answered_in_order(server):
    answers = send_raw(server, GET + GET.replace(b"/metrics", b"/nothing") + LAST_GET)
    statuses = [part[:3] for part in answers.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"200", b"404", b"200"]
    assert answers.count(PAGE) == 2


def test_request_in_pieces(server):
    assert send_raw(
        server, b"\r\n\r\nGE", b"T /metr", b"ics HTTP/1.1\r", b"\nConnection: close\r\n", b"\r", b"\n"
    ).endswith(PAGE)


def test_bare_line_feeds_are_accepted(server):
    assert send_raw(server, b"GET /metrics HTTP/1.0\n\n").endswith(PAGE)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"rubbish\r\n\r\n", 400),
        (b"GET\r\n\r\n", 400),
        (b"GET /metrics\r\n\r\n", 400),
        (b"GET  /metrics HTTP/1.1\r\n\r\n", 400),
        (b"GET /a b HTTP/1.1\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1 \r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),  # TLS
        (b"GET /metrics HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nHost : x\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nA: b\r\n folded\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nA: \x00\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", 400),
        (b"GET /metrics HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\nhello", 400),
        (b"GET /metrics HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", 405),
        (b"DELETE /metrics HTTP/1.1\r\n\r\n", 405),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 5_000 + b"\r\n", 431),
        (b"A" * 100_000, 431),
    ],
)
def test_invalid_requests_are_rejected_and_the_connection_closed(server, request_, status):
    answer = send_raw(server, request_)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert answer.count(b"\r\nServer: ") == 1
    assert b"\r\nConnection: close\r\n" in answer
    assert (b"\r\nAllow: GET, HEAD\r\n" in answer) is (status == 405)
    assert get(server)[1] == PAGE


def test_error_reaches_a_client_that_is_still_sending(server):
    assert send_raw(server, b"POST / HTTP/1.1\r\nContent-Length: 100000\r\n\r\n", *[b"x" * 10_000] * 10).startswith(
        b"HTTP/1.1 405 "
    )


def test_repeated_fields_are_joined():
    request = parse_http_request(b"GET / HTTP/1.1\r\nAccept-Encoding: br\r\naccept-encoding:gzip  ")
    assert request.fields == {"accept-encoding": "br, gzip"}
    with pytest.raises(HttpError):
        parse_http_request(b"")


def test_slow_request_times_out(server, monkeypatch):
    monkeypatch.setattr(http_server, "CLIENT_TIMEOUT_SECONDS", 0.3)
    with connect(server) as client, connect(server) as silent, connect(server) as empty:
        received = b""
        client.settimeout(0.05)
        try:
            while True:
                client.sendall(b"G")
                empty.sendall(b"\r\n")
                try:
                    received += client.recv(65536)
                    break
                except TimeoutError:
                    continue
        except OSError:
            pass  # closed before the last byte was sent
        assert received.startswith(b"HTTP/1.1 408 ")
        assert silent.recv(1) == b""


def test_client_that_does_not_read_times_out(monkeypatch):
    monkeypatch.setattr(http_server, "CLIENT_TIMEOUT_SECONDS", 0.3)
    large = b"x" * 50_000_000
    with serving(lambda: large) as server, connect(server) as client:
        client.sendall(GET)
        wait_until(lambda: server._connections, "connected")
        wait_until(lambda: not server._connections, "closed")


def test_idle_connection_times_out(server, monkeypatch):
    monkeypatch.setattr(http_server, "CLIENT_TIMEOUT_SECONDS", 0.1)
    monkeypatch.setattr(http_server, "IDLE_TIMEOUT_SECONDS", 0.6)
    with connect(server) as client:
        for _ in range(2):  # the second request after more than the request timeout
            client.sendall(GET.replace(b"/metrics", b"/-/ready"))
            assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
            time.sleep(0.3)
        assert client.recv(1) == b""


def test_a_hundred_open_connections_delay_no_scrape(server):
    with ExitStack() as stack:
        for begun in range(100):
            client = stack.enter_context(connect(server))
            if begun % 2:
                client.sendall(b"GET /metrics HT")
        assert get(server)[1] == PAGE


def test_memory_is_given_back_when_a_crowd_has_left(server, monkeypatch):
    trimmed = threading.Event()
    monkeypatch.setattr(malloc, "trim", trimmed.set)
    with connect(server):
        assert get(server)[1] == PAGE
        assert not trimmed.is_set()
    with ExitStack() as stack:
        for _ in range(http_server.MIN_CROWD):
            stack.enter_context(connect(server))
        wait_until(lambda: len(server._connections) == http_server.MIN_CROWD, "a crowd")
        assert not trimmed.is_set()
    assert trimmed.wait(60)


def test_excess_connection_closes_the_least_recently_used(server, monkeypatch):
    monkeypatch.setattr(http_server, "MAX_CONNECTIONS", 3)
    with ExitStack() as stack:
        used, useless, other = (stack.enter_context(connect(server)) for _ in range(3))
        wait_until(lambda: len(server._connections) == 3, "three connections")
        used.sendall(GET.replace(b"/metrics", b"/-/ready"))
        assert used.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert get(server)[1] == PAGE
        assert useless.recv(1) == b""
        used.sendall(GET.replace(b"/metrics", b"/-/ready"))
        assert used.recv(65536).startswith(b"HTTP/1.1 200 ")
        other.sendall(LAST_GET)
        assert other.recv(100).startswith(b"HTTP/1.1 200 ")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the server polls")
def test_shutdown_wakes_an_idle_server():
    server = MetricsServer(("127.0.0.1", 0), ServerConfig("/metrics", lambda: PAGE))
    serving_thread = threading.Thread(target=server.serve_forever, args=(3600,), daemon=True)
    serving_thread.start()
    assert get(server)[1] == PAGE
    threading.Thread(target=server.shutdown, daemon=True).start()
    serving_thread.join(60)
    assert not serving_thread.is_alive()
    server.server_close()


def test_concurrent_scrapers_all_get_the_page(server):
    pages = []
    scrapers = [threading.Thread(target=lambda: pages.append(get(server)[1])) for _ in range(50)]
    for scraper in scrapers:
        scraper.start()
    for scraper in scrapers:
        scraper.join()
    assert pages == [PAGE] * 50


def test_failing_page_is_an_error_and_logged(caplog):
    def page() -> bytes:
        raise ValueError("no page today")

    with serving(page) as server:
        assert get(server)[0].status == 500
        assert get(server, "/-/healthy")[0].status == 200
    assert "no page today" in caplog.text


def test_address_in_use_says_how_to_fix_it(server):
    with pytest.raises(ListenError, match=r"--web\.listen-address"):
        MetricsServer(("127.0.0.1", server.server_address[1]), ServerConfig("/metrics", lambda: PAGE))


def test_ipv6():
    try:
        with serving(host="::1") as server:
            assert get(server)[1] == PAGE
    except ListenError as error:
        pytest.skip(str(error))


class FakeAccess:
    """Allows requests with the right header, at a limited rate."""

    headers = (("X-Frame-Options", "deny"),)

    def __init__(self) -> None:
        self.left = 100

    def ssl_context(self) -> None:
        return None

    def authorize(self, header: str | None) -> bool:
        return header == "Basic me"

    def must_wait(self, header: str | None, address: str) -> bool:
        return header == "Basic guesser"

    def record_wrong(self, header: str | None, address: str) -> None:
        self.wrong = address

    def allow_request(self) -> bool:
        self.left -= 1
        return self.left >= 0


def test_access_policy_and_actions() -> None:
    done, guard = [], FakeAccess()
    site = ServerConfig("/metrics", lambda: PAGE, {"/-/release": lambda: done.append(1)}, lambda: guard)
    server = MetricsServer(("127.0.0.1", 0), site)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()

    def asked(line: bytes, *fields: bytes) -> tuple[bytes, bytes]:
        answer = send_raw(server, b"\r\n".join((line + b" HTTP/1.1", b"Connection: close", *fields, b"", b"")))
        return answer.split(b" ", 2)[1], answer

    try:
        for line in (b"GET /metrics", b"POST /-/healthy", b"POST /-/release", b"GET /nowhere"):
            status, answer = asked(line)
            assert status == b"401"
            assert b"\r\nWWW-Authenticate: Basic " in answer
            assert b"\r\nX-Frame-Options: deny\r\n" in answer
        assert not done
        assert guard.wrong == "127.0.0.1"
        guard.left = 0
        for line in (b"GET /-/healthy", b"HEAD /-/ready"):  # the kubelet has no password
            assert asked(line)[0] == b"200"
        guard.left = 100
        assert asked(b"GET /metrics", b"Authorization: Basic guesser")[0] == b"429"
        mine = b"Authorization: Basic me"
        assert asked(b"GET /metrics", mine)[0] == b"200"
        assert asked(b"POST /-/release", mine)[0] == b"200"
        assert asked(b"GET /-/release", mine)[0] == b"404"
        assert asked(b"POST /metrics", mine)[0] == b"405"
        assert done == [1]
        guard.left = 0
        assert asked(b"GET /metrics", mine)[0] == b"429"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
