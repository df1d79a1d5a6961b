"""HTTP server: a scrape is one write of prerendered bytes.

It does not use http.server, which imports email and ssl: without them the exporter takes 28 MiB instead of 33, and a
scrape a fifth less time (benchmarks/exporter.py, both in one run). It accepts what scrapers and browsers send: GET,
HEAD and POST without a body, over HTTP/1.0 and 1.1. Anything else gets an error response and closes the connection.
"""

from __future__ import annotations

import errno
import logging
import re
import socket
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import TYPE_CHECKING, Any, Protocol

from gpu_exporter import __version__, browser_guard, malloc
from gpu_exporter.exposition import CONTENT_TYPE
from gpu_exporter.http_request import HttpError, HttpRequest, accepts_gzip, parse_http_request

if TYPE_CHECKING:
    import ssl  # 4 MiB that plain HTTP does not need

log = logging.getLogger(__name__)

#: Time limit for sending one request, and for receiving its response.
CLIENT_TIMEOUT_SECONDS = 10.0
#: Keep-alive timeout: longer than the usual scrape intervals.
IDLE_TIMEOUT_SECONDS = 75.0
#: How often an idle server wakes to see whether it is to stop: on Linux, `shutdown` wakes it.
IDLE_POLL_SECONDS = 30.0 if sys.platform == "linux" else 0.5
#: Each connection has a thread. At the limit, the least recently used connection is closed.
MAX_CONNECTIONS = 256
#: After this many connections at once, memory is given back when most of them are closed.
MIN_CROWD = 16
MAX_HEADER_BYTES = 16 * 1024
#: Limits for draining a rejected request: closing with unread data would reset the connection and lose the response.
LINGER_TIMEOUT_SECONDS = 1.0
MAX_LINGER_BYTES = 256 * 1024
#: Smaller responses are not worth compressing.
GZIP_MIN_BYTES = 1024
#: Level 9 takes 15 times as long and saves a tenth.
GZIP_LEVEL = 1
#: zlib: 32 KiB window, gzip container.
_ZLIB_GZIP_WBITS = 31

_TEXT = "text/plain; charset=utf-8"
_HTML = "text/html; charset=utf-8"
_LANDING_PAGE = """<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>gpu-exporter</title></head>
<body><h1>gpu-exporter {version}</h1><p><a href="{path}">Metrics</a></p></body></html>
"""
_REASON_PHRASES = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    505: "HTTP Version Not Supported",
}

#: Open to everybody: the kubelet's probes send no password (kubernetes.io, "Configure Liveness, Readiness and Startup
#: Probes"), and the answer says nothing but that the program runs.
HEALTH_PATHS = ("/-/healthy", "/-/ready")

_END_OF_HEADERS = re.compile(rb"\r?\n\r?\n")


class ListenError(Exception):
    """Cannot listen on the address. The message says how to fix it."""


class ActionError(Exception):
    """An action that a POST request triggered failed. The message says how to fix it."""


class AccessPolicy(Protocol):
    """Authentication, TLS and rate limit."""

    @property
    def headers(self) -> Iterable[tuple[str, str]]:
        """Header fields added to every response."""
        ...

    def ssl_context(self) -> ssl.SSLContext | None:
        """The TLS context; None for plain HTTP."""
        ...

    def authorize(self, header: str | None) -> bool:
        """Whether a request with this Authorization header (None if it has none) is allowed."""
        ...

    def must_wait(self, header: str | None, address: str) -> bool:
        """Whether the password of this client is not checked now: it sent too many wrong ones, or many others wait."""
        ...

    def record_wrong(self, header: str | None, address: str) -> None:
        """Count a wrong password against the client's address."""
        ...

    def allow_request(self) -> bool:
        """Whether the rate limit allows one more request now."""
        ...


@dataclass(frozen=True)
class ServerConfig:
    """The metrics page, its path, and the actions that POST requests trigger."""

    path: str
    page: Callable[[], bytes]
    post_actions: Mapping[str, Callable[[], object]] = field(default_factory=dict)
    #: Called for each connection and request, so that the policy may change at any time.
    access: Callable[[], AccessPolicy] | None = None
    #: Names of this server, beside IP addresses and localhost: actions are refused under others (DNS rebinding).
    names: Sequence[str] = ()


class MetricsServer(ThreadingTCPServer):
    """Serves the metrics page until `shutdown`."""

    daemon_threads = True
    allow_reuse_address = True
    # With the default of 5, concurrent scrapers wait a second or more for a retransmitted SYN.
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], config: ServerConfig) -> None:
        self.config = config
        self.landing = _LANDING_PAGE.format(version=__version__, path=config.path).encode()
        self._connections: dict[Any, None] = {}  # least recently used first
        self._crowd = 0  # the most connections at once, since the last crowd has left
        self._lock = threading.Lock()
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        try:
            super().__init__(address, _Connection)
        except OSError as error:
            raise ListenError(
                f"cannot listen on {format_address(*address)}: {error.strerror or error}; {_listen_fix(error)}"
            ) from error

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            if len(self._connections) >= MAX_CONNECTIONS:
                least_recent = next(iter(self._connections))
                del self._connections[least_recent]
                with suppress(OSError):  # the client may have closed it meanwhile
                    least_recent.shutdown(socket.SHUT_RDWR)  # wakes its thread, which then exits
            self._connections[request] = None
            self._crowd = max(self._crowd, len(self._connections))
        super().process_request(request, client_address)

    def replace_socket(self, plain: Any, secure: Any) -> None:
        """Track the TLS socket instead of the plain one that it wraps."""
        with self._lock:
            self._connections.pop(plain, None)
            self._connections[secure] = None

    def mark_used(self, request: Any) -> None:
        """Move the connection to the end of the least-recently-used order."""
        with self._lock:
            if request in self._connections:
                del self._connections[request]
                self._connections[request] = None

    def serve_forever(self, poll_interval: float = IDLE_POLL_SECONDS) -> None:
        super().serve_forever(poll_interval)

    def shutdown(self) -> None:
        """Stop serving, at once: an idle server wakes rarely. Must not be called from its own thread."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)  # on Linux, this wakes who waits for a connection
        super().shutdown()

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.pop(request, None)
            remaining = len(self._connections)
            has_left = self._crowd >= MIN_CROWD and remaining <= self._crowd // 4
            if has_left:
                self._crowd = remaining
        super().shutdown_request(request)
        if has_left:
            malloc.trim()

    def handle_error(self, request: object, client_address: object) -> None:
        log.exception("request from %s failed", client_address)


class _Connection(BaseRequestHandler):
    """One client connection, in its own thread."""

    server: MetricsServer
    request: socket.socket

    def setup(self) -> None:
        self._buffer = b""
        self._has_responded = False
        self._start = b""  # of the present request
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def finish(self) -> None:
        self.server.shutdown_request(self.request)

    def handle(self) -> None:
        try:
            self._tls_handshake()
            while (head := self._read_headers()) is not None:
                request = parse_http_request(head)
                self.server.mark_used(self.request)
                self._respond(request)
                self._has_responded = True
                if not request.keep_alive:
                    return
        except HttpError as http_error:
            log.debug("%s: %d %s", self.client_address, http_error.status, http_error)
            with suppress(OSError):  # the client may not wait for the response
                # No body after the answer to HEAD, however malformed: it would look like another answer.
                body = f"{http_error}\n".encode()
                self._send(http_error.status, _TEXT, body, keep_alive=False, head_only=self._start == b"HEAD ")
                self._drain()
        except OSError as error:
            log.debug("%s disconnected: %s", self.client_address, error)

    def _tls_handshake(self) -> None:
        """Do the TLS handshake, if TLS is enabled: in this thread, so that a slow client delays no other."""
        access = self.server.config.access
        context = access().ssl_context() if access else None
        if context:
            plain = self.request
            plain.settimeout(CLIENT_TIMEOUT_SECONDS)
            self.request = context.wrap_socket(plain, server_side=True)
            self.server.replace_socket(plain, self.request)

    def _read_headers(self) -> bytes | None:
        """A request line and its header fields; None if the client closed the connection or sent nothing more.

        Data after them stays in the buffer: a client may pipeline requests.
        """
        started = bool(self._buffer)
        timeout = CLIENT_TIMEOUT_SECONDS if started or not self._has_responded else IDLE_TIMEOUT_SECONDS
        deadline = time.monotonic() + timeout
        while True:
            self._buffer = self._buffer.lstrip(b"\r\n")  # RFC 9112, section 2.2: ignore empty lines before a request
            self._start = self._buffer[:5]
            if end := _END_OF_HEADERS.search(self._buffer):
                head, self._buffer = self._buffer[: end.start()], self._buffer[end.end() :]
                if len(head) <= MAX_HEADER_BYTES:
                    return head
            if end or len(self._buffer) > MAX_HEADER_BYTES:
                raise HttpError(431, f"request header exceeds {MAX_HEADER_BYTES} bytes")
            try:
                # The time left, not a timeout per read: a client could send one byte at a time forever.
                self.request.settimeout(max(deadline - time.monotonic(), 0.001))
                data = self.request.recv(65536)
            except TimeoutError:
                if not self._buffer:
                    return None
                raise HttpError(408, "request timed out") from None
            if not data:
                return None
            self._buffer += data
            if not started:
                started = True
                deadline = time.monotonic() + CLIENT_TIMEOUT_SECONDS

    def _respond(self, request: HttpRequest) -> None:
        status, content_type, body = self._route(request)
        log.debug("%s: %s %s: %d", self.client_address, request.method, request.path, status)
        compressed = len(body) >= GZIP_MIN_BYTES and accepts_gzip(request.fields.get("accept-encoding", ""))
        if compressed:
            body = compress_gzip(body)
        self._send(status, content_type, body, request.keep_alive, compressed, request.method == "HEAD")

    def _route(self, request: HttpRequest) -> tuple[int, str, bytes]:
        config, path = self.server.config, request.path
        if path in HEALTH_PATHS and request.method != "POST":
            return 200, _TEXT, b"ok\n"
        if config.access:
            access = config.access()
            if not access.allow_request():
                return (
                    429,
                    _TEXT,
                    b"too many requests; reduce the scrape rate, or raise rate_limit in the web configuration file\n",
                )
            header, address = request.fields.get("authorization"), str(self.client_address[0])
            if access.must_wait(header, address):
                return 429, _TEXT, b"too many wrong passwords; retry in a minute\n"
            if not access.authorize(header):
                access.record_wrong(header, address)
                return 401, _TEXT, b"unauthorized; send a user name and password (basic auth)\n"
        if request.method == "POST":
            return self._run_action(request)
        if path == config.path:
            try:
                return 200, CONTENT_TYPE, config.page()
            except Exception:
                log.exception("failed to render metrics")
                return 500, _TEXT, b"failed to render metrics; see the exporter's log\n"
        if path == "/":
            return 200, _HTML, self.server.landing
        return 404, _TEXT, f"not found; metrics are at {config.path}\n".encode()

    def _run_action(self, request: HttpRequest) -> tuple[int, str, bytes]:
        action = self.server.config.post_actions.get(request.path)
        if not action:
            return 405, _TEXT, b"method not allowed; use GET or HEAD\n"
        if why := browser_guard.refusal(request.fields, self.server.config.names):
            return 403, _TEXT, f"refused: {why}\n".encode()
        try:
            action()
        except ActionError as error:
            return 400, _TEXT, f"{error}\n".encode()
        return 200, _TEXT, b"ok\n"

    def _send(
        self,
        status: int,
        content_type: str,
        body: bytes,
        keep_alive: bool,
        compressed: bool = False,
        head_only: bool = False,
    ) -> None:
        head = (
            f"HTTP/1.1 {status} {_REASON_PHRASES[status]}\r\n"
            f"Server: gpu-exporter/{__version__}\r\n"
            f"Date: {time.strftime('%a, %d %b %Y %H:%M:%S GMT', time.gmtime())}\r\n"
            f"Content-Type: {content_type}\r\n"
            f"Content-Length: {len(body)}\r\n"
            "Vary: Accept-Encoding\r\n"
            f"Connection: {'keep-alive' if keep_alive else 'close'}\r\n"
            + ("Content-Encoding: gzip\r\n" if compressed else "")
            + ("Allow: GET, HEAD\r\n" if status == 405 else "")
            + ('WWW-Authenticate: Basic realm="gpu-exporter"\r\n' if status == 401 else "")
            + "".join(f"{name}: {value}\r\n" for name, value in self._extra_headers())
            + "\r\n"
        ).encode("ascii")
        self.request.settimeout(CLIENT_TIMEOUT_SECONDS)  # for the whole response
        # One write, not two, which would wake the client twice.
        self.request.sendall(head if head_only else head + body)

    def _extra_headers(self) -> list[tuple[str, str]]:
        access = self.server.config.access
        return list(access().headers) if access else []

    def _drain(self) -> None:
        """Read and discard what a rejected client is still sending, within limits."""
        self.request.shutdown(socket.SHUT_WR)
        deadline = time.monotonic() + LINGER_TIMEOUT_SECONDS
        remaining = MAX_LINGER_BYTES
        while remaining > 0 and (seconds := deadline - time.monotonic()) > 0:
            self.request.settimeout(seconds)
            data = self.request.recv(65536)
            if not data:
                return
            remaining -= len(data)


_LISTEN_FIXES = {
    errno.EADDRINUSE: "stop the process that uses it, or choose another address with --web.listen-address",
    errno.EADDRNOTAVAIL: "no interface has this address: choose one of `ip address`, or 0.0.0.0 for all",
    errno.EACCES: "choose a port above 1023 with --web.listen-address, or give the exporter CAP_NET_BIND_SERVICE",
}


def _listen_fix(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return "the name has no address: check --web.listen-address"
    return _LISTEN_FIXES.get(error.errno or 0, "choose another address with --web.listen-address")


def format_address(host: str, port: int) -> str:
    """`HOST:PORT`, with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def compress_gzip(body: bytes) -> bytes:
    """Compress to gzip format, without the file object that the module gzip would need."""
    compressor = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, _ZLIB_GZIP_WBITS)
    return compressor.compress(body) + compressor.flush()
