"""HTTP: a scrape is one write of prepared bytes.

The requests are read here and not by http.server, which brings the email package and ssl: without it the exporter
takes 28 MiB instead of 33, and a scrape a fifth less time (benchmarks/exporter.py, both in one run). What is understood
is what a scraper or a browser sends: GET, HEAD and a bare POST of HTTP/1.0 and 1.1, without a body; everything else is
answered with an error and the connection closed.
"""

from __future__ import annotations

import logging
import re
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import TYPE_CHECKING, Any, Protocol

from gpu_exporter import __version__
from gpu_exporter.exposition import CONTENT_TYPE

if TYPE_CHECKING:
    import ssl  # 4 MiB that a plain exporter does without

log = logging.getLogger(__name__)

#: How long a client may take to send a request that it has begun, and to take its answer.
CLIENT_TIMEOUT_SECONDS = 10.0
#: How long a client may keep its connection between requests: longer than the usual intervals of scraping.
IDLE_TIMEOUT_SECONDS = 75.0
#: Each has a thread. One more, and the connection that has been of no use for longest is closed.
MAX_CONNECTIONS = 256
MAX_HEADER_BYTES = 16 * 1024
#: What a client that is refused may still be sending: closing before it is read could destroy the answer.
LINGER_TIMEOUT_SECONDS = 1.0
MAX_LINGER_BYTES = 256 * 1024
#: Less is not worth compressing.
GZIP_MIN_BYTES = 1024
#: Level 9 costs 15 times as much for a tenth less.
GZIP_LEVEL = 1
#: zlib's way to say the largest window, in the gzip format.
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
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    505: "HTTP Version Not Supported",
}

_END_OF_HEADERS = re.compile(rb"\r?\n\r?\n")
_REQUEST_LINE = re.compile(rb"([!-~]+) ([!-~]+) HTTP/(\d)\.(\d)")
_HEADER_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00\r\n]*)")
_GZIP_REFUSED = re.compile(r";\s*q=0(\.0*)?\s*$")


class ListenError(Exception):
    """The address cannot be listened on; the message tells the mend."""


class HttpError(Exception):
    """The request cannot be answered, nor can what follows it on its connection be understood."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class HttpRequest:
    method: str
    path: str
    fields: dict[str, str]
    #: Whether the client wants to use the connection again.
    keep_alive: bool


class AccessPolicy(Protocol):
    """Who may come in, and how."""

    @property
    def headers(self) -> Iterable[tuple[str, str]]:
        """Sent with every answer."""
        ...

    def ssl_context(self) -> ssl.SSLContext | None:
        """None for plain HTTP."""
        ...

    def authorize(self, header: str | None) -> bool:
        """Whether a request with this Authorization header (None: without one) is served."""
        ...

    def allow_request(self) -> bool:
        """Whether one more request is served now."""
        ...


@dataclass(frozen=True)
class ServerConfig:
    """What is served: the page of metrics at a path, and what can be asked to be done, by POST."""

    path: str
    page: Callable[[], bytes]
    post_actions: Mapping[str, Callable[[], object]] = field(default_factory=dict)
    #: Asked anew for each connection and request, so that it may change at any time.
    access: Callable[[], AccessPolicy] | None = None


class MetricsServer(ThreadingTCPServer):
    """Serves a site until `shutdown`."""

    daemon_threads = True
    allow_reuse_address = True
    # The default of 5 makes concurrent scrapers wait for a retransmitted SYN: a second and more.
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], site: ServerConfig) -> None:
        self.site = site
        self.landing = _LANDING_PAGE.format(version=__version__, path=site.path).encode()
        self._connections: dict[Any, None] = {}  # the one that was used last comes last
        self._lock = threading.Lock()
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        try:
            super().__init__(address, _Connection)
        except OSError as error:
            raise ListenError(
                f"cannot listen on {address[0]}:{address[1]}: {error.strerror or error}; "
                "stop what listens there, or choose another with --web.listen-address"
            ) from error

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            if len(self._connections) >= MAX_CONNECTIONS:
                least_recent = next(iter(self._connections))
                del self._connections[least_recent]
                with suppress(OSError):  # it may have gone just now
                    least_recent.shutdown(socket.SHUT_RDWR)  # wakes its thread, which then ends
            self._connections[request] = None
        super().process_request(request, client_address)

    def replace_socket(self, plain: Any, secure: Any) -> None:
        """The connection goes on over another socket."""
        with self._lock:
            self._connections.pop(plain, None)
            self._connections[secure] = None

    def mark_used(self, request: Any) -> None:
        """The connection has just been of use."""
        with self._lock:
            if request in self._connections:
                del self._connections[request]
                self._connections[request] = None

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        log.exception("request from %s failed", client_address)


class _Connection(BaseRequestHandler):
    """One client, from its first request to its last, in a thread of its own."""

    server: MetricsServer
    request: socket.socket

    def setup(self) -> None:
        self._buffer = b""
        self._has_responded = False
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def finish(self) -> None:
        self.server.shutdown_request(self.request)

    def handle(self) -> None:
        try:
            self._tls_handshake()
            while (head := self._read_headers()) is not None:
                request = parse_http_request(head)
                self._respond(request)
                self._has_responded = True
                self.server.mark_used(self.request)
                if not request.keep_alive:
                    return
        except HttpError as http_error:
            log.debug("%s: %d %s", self.client_address, http_error.status, http_error)
            with suppress(OSError):  # whoever sends rubbish may not wait for the answer
                self._send(http_error.status, _TEXT, f"{http_error}\n".encode(), keep_alive=False)
                self._drain()
        except OSError as error:
            log.debug("%s went away: %s", self.client_address, error)

    def _tls_handshake(self) -> None:
        """The TLS handshake, if there is to be one: in this thread, where a slow client delays nobody else."""
        site = self.server.site
        context = site.access().ssl_context() if site.access else None
        if context:
            plain = self.request
            plain.settimeout(CLIENT_TIMEOUT_SECONDS)
            self.request = context.wrap_socket(plain, server_side=True)
            self.server.replace_socket(plain, self.request)

    def _read_headers(self) -> bytes | None:
        """A request line and its header fields; None if the client has gone, or asks nothing more.

        What comes after it is kept for the next time: a client need not wait for an answer before it asks again.
        """
        started = bool(self._buffer)
        timeout = CLIENT_TIMEOUT_SECONDS if started or not self._has_responded else IDLE_TIMEOUT_SECONDS
        deadline = time.monotonic() + timeout
        while True:
            self._buffer = self._buffer.lstrip(b"\r\n")  # empty lines before a request are to be ignored
            if end := _END_OF_HEADERS.search(self._buffer):
                head, self._buffer = self._buffer[: end.start()], self._buffer[end.end() :]
                if len(head) <= MAX_HEADER_BYTES:
                    return head
            if end or len(self._buffer) > MAX_HEADER_BYTES:
                raise HttpError(431, f"the header is longer than {MAX_HEADER_BYTES} bytes")
            try:
                # The time left and not a time for each read: a client may send a byte now and then for ever.
                self.request.settimeout(max(deadline - time.monotonic(), 0.001))
                data = self.request.recv(65536)
            except TimeoutError:
                if not self._buffer:
                    return None
                raise HttpError(408, "the request did not arrive in time") from None
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
        site, path = self.server.site, request.path
        if site.access:
            access = site.access()
            if not access.allow_request():
                return 429, _TEXT, b"too many requests; ask less often\n"
            if not access.authorize(request.fields.get("authorization")):
                return 401, _TEXT, b"a user name and its password are needed\n"
        if request.method == "POST":
            return self._run_action(path)
        if path == site.path:
            try:
                return 200, CONTENT_TYPE, site.page()
            except Exception:
                log.exception("the page could not be made")
                return 500, _TEXT, b"the page could not be made; see the exporter's log\n"
        if path in ("/-/healthy", "/-/ready"):
            return 200, _TEXT, b"ok\n"
        if path == "/":
            return 200, _HTML, self.server.landing
        return 404, _TEXT, f"not found; metrics are at {site.path}\n".encode()

    def _run_action(self, path: str) -> tuple[int, str, bytes]:
        action = self.server.site.post_actions.get(path)
        if not action:
            return 405, _TEXT, b"only GET and HEAD are served here\n"
        action()
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
        self.request.settimeout(CLIENT_TIMEOUT_SECONDS)  # for all of it together
        # One write: two would wake the client twice.
        self.request.sendall(head if head_only else head + body)

    def _extra_headers(self) -> list[tuple[str, str]]:
        access = self.server.site.access
        return list(access().headers) if access else []

    def _drain(self) -> None:
        """Reads what a refused client is still sending, within limits."""
        self.request.shutdown(socket.SHUT_WR)
        deadline = time.monotonic() + LINGER_TIMEOUT_SECONDS
        remaining = MAX_LINGER_BYTES
        while remaining > 0 and (seconds := deadline - time.monotonic()) > 0:
            self.request.settimeout(seconds)
            data = self.request.recv(65536)
            if not data:
                return
            remaining -= len(data)


def parse_http_request(head: bytes) -> HttpRequest:
    """The request of this head, without the empty line at its end. Raises HttpError."""
    line, *lines = head.replace(b"\r\n", b"\n").split(b"\n")
    request_line = _REQUEST_LINE.fullmatch(line)
    if not request_line:
        raise HttpError(400, "the first line is not METHOD PATH HTTP/1.1")
    method, target, major, minor = (part.decode("ascii") for part in request_line.groups())
    if major != "1":
        raise HttpError(505, "this server speaks HTTP/1.1")
    fields: dict[str, str] = {}
    for line in lines:
        field = _HEADER_FIELD.fullmatch(line)
        if not field:
            raise HttpError(400, "a header field is not NAME: VALUE")
        name, value = field[1].decode("ascii").lower(), field[2].decode("latin-1").rstrip(" \t")
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    # The body would have to be read to find the next request, and nothing here needs one.
    has_body = "transfer-encoding" in fields or fields.get("content-length", "0") != "0"
    if method not in ("GET", "HEAD") and (method != "POST" or has_body):
        raise HttpError(405, "only GET and HEAD are served")
    if has_body:
        raise HttpError(400, "a request here has no body")
    connection_options = fields.get("connection", "").lower()
    keep_alive = "close" not in connection_options and (minor != "0" or "keep-alive" in connection_options)
    return HttpRequest(method, _target_path(target), fields, keep_alive)


def _target_path(target: str) -> str:
    """The path of `/path?query`, or of the whole URL that clients send to a proxy."""
    if target.lower().startswith(("http://", "https://")):
        target = "/" + target.partition("//")[2].partition("/")[2]
    return target.partition("?")[0]


def compress_gzip(body: bytes) -> bytes:
    """The same in the gzip format; the module gzip does it by way of a file."""
    compressor = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, _ZLIB_GZIP_WBITS)
    return compressor.compress(body) + compressor.flush()


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether the client takes gzip, by its Accept-Encoding."""
    codings = (coding.strip().lower() for coding in accept_encoding.split(","))
    return any(coding.startswith("gzip") and not _GZIP_REFUSED.search(coding) for coding in codings)
