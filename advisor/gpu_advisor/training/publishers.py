"""Where a job's page goes: a file in a textfile directory, or a port of the job's own."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Protocol

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
REQUEST_TIMEOUT_SECONDS = 10.0

log = logging.getLogger(__name__)


class MonitorError(Exception):
    """The monitor cannot report as asked. The message tells the mend."""


class MetricsPublisher(Protocol):
    def publish(self) -> None:
        """Called once a window of reporting. Never raises: training goes on without its figures."""

    def close(self) -> None:
        """The job has ended."""


class TextfilePublisher:
    """A file of node_exporter's textfile convention: written beside and renamed, so that no reader sees half of it."""

    def __init__(self, directory: str, job: str, rank: int, page: Callable[[], str], keep: bool) -> None:
        """`keep`: whether the file stays when the job has ended. Raises MonitorError."""
        if not os.path.isdir(directory):
            raise MonitorError(
                f"{directory} is no directory; create it, and give it to the exporter with "
                f"--collector.textfile.directory={directory}"
            )
        if not os.access(directory, os.W_OK | os.X_OK):
            raise MonitorError(
                f"{directory} cannot be written by this user; make it writable for the job (mode 1777), "
                "or let the job serve its figures itself: TrainingMonitor(listen='0.0.0.0:9464')"
            )
        self.path = os.path.join(directory, textfile_name(job, rank))
        # Readers take *.prom alone. The pid keeps two that write by mistake under one name from one another's halves.
        self._temporary_path = os.path.join(directory, f".{os.path.basename(self.path)}.{os.getpid()}.tmp")
        self._page = page
        self._keep = keep
        self._last_error = ""

    def publish(self) -> None:
        try:
            # The exporter is another user: mkstemp's 0600 would hide the file from it.
            descriptor = os.open(self._temporary_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(self._page())
            os.replace(self._temporary_path, self.path)
        except OSError as error:
            if str(error) != self._last_error:
                self._last_error = str(error)
                log.warning("the figures of this job are not reported: %s; training goes on", error)
        else:
            self._last_error = ""

    def close(self) -> None:
        """Removes the file: what stays would be served as that of a job that stands still."""
        for path in (self._temporary_path,) if self._keep else (self._temporary_path, self.path):
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass
            except OSError as error:
                log.warning("%s stays behind: %s; remove it by hand", path, error)


def textfile_name(job: str, rank: int) -> str:
    """One name a job and rank, with nothing in it that a file system or a shell could mind."""
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", job)[:100]
    mark = "" if plain == job else "-" + hashlib.sha256(job.encode()).hexdigest()[:8]
    return f"training-{plain}{mark}-{rank}.prom"


class HttpPublisher:
    """Serves the page at /metrics, as of the moment of asking. For jobs that share no directory with an exporter."""

    def __init__(self, address: str, page: Callable[[], str]) -> None:
        """`address`: HOST:PORT; an empty host is all of them, port 0 any free one. Raises MonitorError."""
        host, colon, port = address.rpartition(":")
        if not colon or not port.isdigit() or int(port) > 65535:
            raise MonitorError(f"listen={address!r} is not HOST:PORT; for all interfaces: '0.0.0.0:9464'")
        try:
            self._server = _MetricsServer((host.strip("[]"), int(port)), _handler_class(page))
        except OSError as error:
            raise MonitorError(
                f"cannot listen on {address}: {error}; each rank of a machine needs a port of its own, "
                "such as 9464 + LOCAL_RANK"
            ) from error
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, name="training-metrics", daemon=True).start()

    def publish(self) -> None:
        """Nothing to do: the page is made when it is asked for."""

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _MetricsServer(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True  # a restarted job need not wait for its own port


def _handler_class(page: Callable[[], str]) -> type[BaseHTTPRequestHandler]:
    class MetricsHandler(BaseHTTPRequestHandler):
        timeout = REQUEST_TIMEOUT_SECONDS

        def do_GET(self) -> None:
            if self.path.partition("?")[0] != "/metrics":
                self.send_error(404, "the figures are at /metrics")
                return
            body = page().encode()
            self.send_response(200)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            log.debug(format, *arguments)

    return MetricsHandler
