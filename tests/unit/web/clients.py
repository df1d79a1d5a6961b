"""Clients that misbehave, and a server with small limits to try them on. Loopback only."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from gpu_advisor.web.http.lanes import Lane
from gpu_advisor.web.http.limits import ServerLimits
from gpu_advisor.web.http.server import HttpServer

BODY = b"x" * 100_000


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """`/big` has a large body, `/echo` returns method, path and body, `/slow` waits for `release`."""
    path = environ["PATH_INFO"]
    if path == "/slow":
        release.wait(60)
    if path == "/broken":
        raise ValueError("broken on purpose")
    if path == "/split":
        start_response("200 OK", [("X-Evil", "a\r\nInjected: yes")])
        return [b""]
    if path == "/empty":
        start_response("204 No Content", [])
        return []
    body = BODY * 200 if path == "/big" else b"ok"
    if path == "/echo":
        text = f"{environ['REQUEST_METHOD']} {path}?{environ['QUERY_STRING']} {environ['HTTP_HOST']} "
        body = text.encode() + environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]


release = threading.Event()


@contextmanager
def serving(
    limits: ServerLimits | None = None, lanes: dict[str, Lane] | None = None, tls: ssl.SSLContext | None = None,
    app: Callable[..., Iterable[bytes]] = application,
) -> Iterator[tuple[str, int]]:  # fmt: skip
    """The address of a server. A request for /slow has a lane of its own."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    server = HttpServer(
        listener,
        app,
        server_name="test",
        lanes=lanes or {"quick": Lane(2, 100), "slow": Lane(1, 1)},
        choose_lane=lambda environ: "slow" if environ["PATH_INFO"] == "/slow" else "quick",
        tls=tls,
        limits=limits,
    )
    server.start()
    try:
        yield listener.getsockname()[:2]
    finally:
        release.set()
        server.stop()
        release.clear()


def connect(address: tuple[str, int], receive_buffer: int = 0) -> socket.socket:
    client = socket.socket()
    if receive_buffer:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.settimeout(60)
    client.connect(address)
    return client


def exchange(address: tuple[str, int], data: bytes) -> bytes:
    """Send these bytes; all that comes back until the server closes or 60 s pass."""
    with connect(address) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        return read_all(client)


def read_all(client: socket.socket) -> bytes:
    found = b""
    try:
        while data := client.recv(65536):
            found += data
    except ConnectionResetError:
        pass
    return found


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])
