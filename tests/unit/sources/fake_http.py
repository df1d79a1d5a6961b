"""A tiny HTTP server on 127.0.0.1 that answers as a test says."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class ReceivedRequest:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class FakeServer:
    address: str  # host:port
    requests: list[ReceivedRequest] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://{self.address}"


Responder = Callable[[BaseHTTPRequestHandler, int], None]


def reply(status: int, body: str | bytes, content_type: str = "application/json", **headers: str) -> Responder:
    """An answer that is always the same."""
    data = body.encode() if isinstance(body, str) else body

    def answer(handler: BaseHTTPRequestHandler, number: int) -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", content_type)
        handler.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(data)

    return answer


@contextmanager
def fake_http(answering: Responder, tls: ssl.SSLContext | None = None) -> Iterator[FakeServer]:
    """`answering` gets the handler and the number of the request, from 0."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fake.requests.append(ReceivedRequest(self.command, self.path, dict(self.headers), body))
            try:
                answering(self, len(fake.requests) - 1)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True  # the client gave up, as many tests want it to

        do_GET = do_POST = _answer  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, request: object, client_address: object) -> None:
            pass  # broken handshakes are part of the tests

    server = Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    fake = FakeServer(f"127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
