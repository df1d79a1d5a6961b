"""Runs a WSGI application (PEP 3333) for one complete request."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable
from io import BytesIO
from typing import Any
from urllib.parse import unquote_to_bytes

from gpu_advisor.web.http.connection import INTERNAL_ERROR, HttpRequest, HttpResponse

log = logging.getLogger(__name__)

Environ = dict[str, Any]
WsgiApplication = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]


def build_environ(request: HttpRequest, client: str, server: tuple[str, int], scheme: str) -> Environ:
    """The WSGI environment. `client` and `server` are addresses."""
    target, host = request.target, ""
    if b"://" in target.partition(b"?")[0]:  # absolute form: its host replaces the field (RFC 9112, section 3.2.2)
        authority, slash, rest = target.partition(b"://")[2].partition(b"/")
        target, host = slash + rest or b"/", authority.partition(b"?")[0].decode("ascii")
    path, _, query = target.partition(b"?")
    environ: Environ = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query.decode("latin-1"),
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1]),
        "SERVER_PROTOCOL": f"HTTP/{request.version}",
        "REMOTE_ADDR": client,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scheme,
        "wsgi.input": BytesIO(request.body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for field, value in request.fields:
        if b"_" in field:  # would be the same key as the field with a hyphen
            continue
        key = "HTTP_" + field.decode("ascii").upper().replace("-", "_")
        text = value.decode("latin-1")
        environ[key] = f"{environ[key]},{text}" if key in environ else text
    for name in ("CONTENT_LENGTH", "TRANSFER_ENCODING"):
        environ.pop(f"HTTP_{name}", None)
    environ["CONTENT_LENGTH"] = str(len(request.body))
    environ["CONTENT_TYPE"] = environ.pop("HTTP_CONTENT_TYPE", "")
    if host:
        environ["HTTP_HOST"] = host
    return environ


def run_application(application: WsgiApplication, environ: Environ) -> HttpResponse:
    """Its whole response; 500 if it fails, with the traceback in the log."""
    started: list[tuple[str, list[tuple[str, str]]]] = []

    def start_response(status: str, fields: list[tuple[str, str]], _exc_info: Any = None) -> Callable[[bytes], object]:
        started[:] = [(status, fields)]
        return lambda _: None

    try:
        found = application(environ, start_response)
        try:
            chunks = [chunk for chunk in found if chunk]
        finally:
            close = getattr(found, "close", None)
            if close:
                close()
        [(status, fields)] = started
        return HttpResponse(int(status.partition(" ")[0]), fields, chunks)
    except Exception:
        log.exception("%s %s failed", environ["REQUEST_METHOD"], environ["PATH_INFO"])
        return INTERNAL_ERROR
