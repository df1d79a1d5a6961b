"""What a client sent: the request line and header fields, parsed strictly. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

_REQUEST_LINE = re.compile(rb"([!-~]+) ([!-~]+) HTTP/(\d)\.(\d)")
_HEADER_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00\r\n]*)")
_GZIP_REFUSED = re.compile(r";\s*q=0(\.0*)?\s*$")


class HttpError(Exception):
    """The request is invalid; the connection must be closed, as the start of the next request is unknown."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class HttpRequest:
    method: str
    path: str
    fields: dict[str, str]
    #: Whether the client wants to reuse the connection.
    keep_alive: bool


def parse_http_request(head: bytes) -> HttpRequest:
    """Parse a request line and header fields, without the empty line that ends them. Raises HttpError."""
    line, *lines = head.replace(b"\r\n", b"\n").split(b"\n")
    request_line = _REQUEST_LINE.fullmatch(line)
    if not request_line:
        raise HttpError(400, "malformed request line; expected METHOD PATH HTTP/1.1")
    method, target, major, minor = (part.decode("ascii") for part in request_line.groups())
    if major != "1":
        raise HttpError(505, "HTTP version not supported; use HTTP/1.1")
    fields: dict[str, str] = {}
    for line in lines:
        field = _HEADER_FIELD.fullmatch(line)
        if not field:
            raise HttpError(400, "malformed header field; expected NAME: VALUE")
        name, value = field[1].decode("ascii").lower(), field[2].decode("latin-1").rstrip(" \t")
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    # A body would have to be read to find the next request, and no request here needs one.
    has_body = "transfer-encoding" in fields or fields.get("content-length", "0") != "0"
    if method not in ("GET", "HEAD") and (method != "POST" or has_body):
        raise HttpError(405, "method not allowed; use GET or HEAD")
    if has_body:
        raise HttpError(400, "request body not allowed")
    connection_options = fields.get("connection", "").lower()
    keep_alive = "close" not in connection_options and (minor != "0" or "keep-alive" in connection_options)
    return HttpRequest(method, _target_path(target), fields, keep_alive)


def _target_path(target: str) -> str:
    """The path of `/path?query`, or of an absolute URL, as clients send it to a proxy."""
    if target.lower().startswith(("http://", "https://")):
        target = "/" + target.partition("//")[2].partition("/")[2]
    return target.partition("?")[0]


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether the Accept-Encoding header accepts gzip."""
    codings = (coding.strip().lower() for coding in accept_encoding.split(","))
    return any(coding.startswith("gzip") and not _GZIP_REFUSED.search(coding) for coding in codings)
