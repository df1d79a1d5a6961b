"""HTTP: a scrape is one write of prepared bytes."""

from __future__ import annotations

import gzip
import logging
import socket
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from gpu_exporter import __version__
from gpu_exporter.exposition import CONTENT_TYPE

log = logging.getLogger(__name__)

#: How long a client may take to send its request, in seconds.
CLIENT_TIMEOUT_SECONDS = 10.0

_LANDING = """<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>gpu-exporter</title></head>
<body><h1>gpu-exporter {version}</h1><p><a href="{path}">Metrics</a></p></body></html>
"""


class BadAddress(Exception):
    """The address cannot be listened on; the message tells the mend."""


class MetricsServer(ThreadingHTTPServer):
    """Serves `page()` at `path`, until `shutdown`."""

    daemon_threads = True
    # The default of 5 makes concurrent scrapers wait for a retransmitted SYN: a second and more.
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], path: str, page: Callable[[], bytes]) -> None:
        self.path = path
        self.page = page
        self.landing = _LANDING.format(version=__version__, path=path).encode()
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        try:
            super().__init__(address, _Handler)
        except OSError as error:
            raise BadAddress(
                f"cannot listen on {address[0]}:{address[1]}: {error.strerror or error}; "
                "stop what listens there, or choose another with --web.listen-address"
            ) from error

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away in the middle of its answer is nothing to print a traceback for."""
        log.debug("request from %s ended early", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = f"gpu-exporter/{__version__}"
    sys_version = ""
    timeout = CLIENT_TIMEOUT_SECONDS
    disable_nagle_algorithm = True
    server: MetricsServer

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == self.server.path:
            self._answer(200, CONTENT_TYPE, self.server.page())
        elif path in ("/-/healthy", "/-/ready"):
            self._answer(200, "text/plain; charset=utf-8", b"ok\n")
        elif path == "/":
            self._answer(200, "text/html; charset=utf-8", self.server.landing)
        else:
            self._answer(404, "text/plain; charset=utf-8", f"not found; metrics are at {self.server.path}\n".encode())

    do_HEAD = do_GET  # noqa: N815 - the library's name

    def _answer(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        if len(body) > 1024 and "gzip" in self.headers.get("Accept-Encoding", ""):
            body = gzip.compress(body, compresslevel=1)  # level 9 costs 15 times as much for a tenth less
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        log.debug("%s %s", self.address_string(), format % args)
