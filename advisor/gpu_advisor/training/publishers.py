"""Publishers of a job's metrics: a file in a textfile directory, or an HTTP server in the job."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Protocol

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
REQUEST_TIMEOUT_SECONDS = 10.0

log = logging.getLogger(__name__)


class MonitorError(Exception):
    """The monitor cannot do what it was asked to. The message says how to fix it."""


class MetricsPublisher(Protocol):
    def publish(self) -> None:
        """Called at the end of each reporting window. Never raises: training continues without metrics."""

    def close(self) -> None:
        """Called when the job ends."""


class TextfilePublisher:
    """A file for a textfile collector, replaced atomically: written to a temporary file, then renamed."""

    def __init__(self, directory: str, job: str, rank: int, page: Callable[[], str], keep: bool) -> None:
        """`keep`: whether to keep the file when the job ends. Raises MonitorError."""
        if not os.path.isdir(directory):
            raise MonitorError(
                f"{directory} is not a directory; create it, and start the exporter with "
                f"--collector.textfile.directory={directory}"
            )
        if not os.access(directory, os.W_OK | os.X_OK):
            raise MonitorError(
                f"{directory} is not writable for this user; make it writable for the job (mode 1777), "
                "or serve the metrics from the job: TrainingMonitor(listen='0.0.0.0:9464')"
            )
        self.path = os.path.join(directory, textfile_name(job, rank))
        # Exporters read *.prom only. The pid separates two jobs that share a name by mistake.
        self._temporary_path = os.path.join(directory, f".{os.path.basename(self.path)}.{os.getpid()}.tmp")
        self._page = page
        self._keep = keep
        self._last_error = ""

    def publish(self) -> None:
        try:
            _refuse_other_files(self.path)
            with suppress(FileNotFoundError):
                os.unlink(self._temporary_path)  # left by a crash, or put there by somebody else
            # The exporter runs as another user and could not read a file with mkstemp's mode 0600.
            descriptor = os.open(self._temporary_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(self._page())
            os.replace(self._temporary_path, self.path)
        except OSError as error:
            if str(error) != self._last_error:
                self._last_error = str(error)
                log.warning("cannot write the metrics of this job: %s; training continues", error)
        else:
            self._last_error = ""

    def close(self) -> None:
        """Remove the file: it would be exposed as the metrics of a job that makes no progress."""
        for path in (self._temporary_path,) if self._keep else (self._temporary_path, self.path):
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass
            except OSError as error:
                log.warning("cannot remove %s: %s; remove it by hand", path, error)


def _refuse_other_files(path: str) -> None:
    """Raises OSError if there is something else than a regular file. Links too: the folder may be everybody's."""
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise OSError(errno.EINVAL, "is not a regular file; remove it", path)


def textfile_name(job: str, rank: int) -> str:
    """A unique file name for a job and rank, of characters that are safe in file systems and shells."""
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", job)[:100]
    mark = "" if plain == job else "-" + hashlib.sha256(job.encode()).hexdigest()[:8]
    return f"training-{plain}{mark}-{rank}.prom"


class HttpPublisher:
    """Serves current metrics at /metrics, for jobs that share no directory with an exporter."""

    def __init__(self, address: str, page: Callable[[], str]) -> None:
        """`address`: HOST:PORT; an empty host means all interfaces, port 0 any free port. Raises MonitorError."""
        host, colon, port = address.rpartition(":")
        if not colon or not port.isdigit() or int(port) > 65535:
            raise MonitorError(f"listen={address!r} is not HOST:PORT; for all interfaces: '0.0.0.0:9464'")
        try:
            self._server = _MetricsServer((host.strip("[]"), int(port)), _handler_class(page))
        except OSError as error:
            raise MonitorError(
                f"cannot listen on {address}: {error}; each rank of a machine needs its own port, "
                "such as 9464 + LOCAL_RANK"
            ) from error
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, name="training-metrics", daemon=True).start()

    def publish(self) -> None:
        """Nothing to do: each scrape reads the current metrics."""

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _MetricsServer(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True  # a restarted job binds its port at once


def _handler_class(page: Callable[[], str]) -> type[BaseHTTPRequestHandler]:
    class MetricsHandler(BaseHTTPRequestHandler):
        timeout = REQUEST_TIMEOUT_SECONDS

        def do_GET(self) -> None:
            if self.path.partition("?")[0] != "/metrics":
                self.send_error(404, "metrics are at /metrics")
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
