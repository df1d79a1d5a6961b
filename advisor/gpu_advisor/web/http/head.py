"""The head of a request, checked more strictly than h11 does, by RFC 9112.

Where a request ends must not be a matter of opinion: a proxy in front that disagrees would take the rest of one
client's request for the next one's. What the RFC lets a server repair (folded lines, lines that end with LF alone,
equal lengths sent twice) is refused too: no client sends it by mistake.
"""

from __future__ import annotations

import re

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") ([!-~]+) HTTP/([0-9])\.([0-9])")
_FIELD = re.compile(rb"(" + _TOKEN + rb"):([\t\x20-\x7e\x80-\xff]*)")
_LENGTH = re.compile(rb"[0-9]{1,15}")
_HOST = re.compile(rb"(?:[A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")


class RequestError(Exception):
    """A request that cannot be served; the connection must be closed, as its end is unknown."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def check_head(head: bytes) -> None:
    """Check a request line and header fields, without the empty line that ends them. Raises RequestError."""
    lines = head.split(b"\r\n")
    if any(b"\n" in line or b"\r" in line for line in lines):
        raise RequestError(400, "a line ends with CR or LF alone: end lines with CR LF")
    request_line = _REQUEST_LINE.fullmatch(lines[0])
    if request_line is None:
        raise RequestError(400, "malformed request line: expected METHOD TARGET HTTP/1.1")
    _, target, major, minor = request_line.groups()
    if major != b"1":
        raise RequestError(505, "HTTP version not supported: use HTTP/1.1")
    if not target.startswith(b"/") and target != b"*" and b"://" not in target:
        raise RequestError(400, "malformed request target: expected /PATH")
    values: dict[bytes, list[bytes]] = {}
    for line in lines[1:]:
        field = _FIELD.fullmatch(line)
        if field is None:
            raise RequestError(400, "malformed header field: expected NAME: VALUE on one line")
        values.setdefault(field[1].lower(), []).append(field[2].strip(b" \t"))
    _check_framing(values, minor)
    hosts = values.get(b"host", [])
    if len(hosts) > 1 or (not hosts and minor != b"0") or not all(map(_HOST.fullmatch, hosts)):
        raise RequestError(400, "send one Host field with a name or an address")


def _check_framing(values: dict[bytes, list[bytes]], minor: bytes) -> None:
    lengths, codings = values.get(b"content-length", []), values.get(b"transfer-encoding", [])
    if len(lengths) > 1 or any(not _LENGTH.fullmatch(each) for each in lengths):
        raise RequestError(400, "send one Content-Length with one number")
    if not codings:
        return
    if lengths:
        raise RequestError(400, "send Content-Length or Transfer-Encoding, not both")
    if minor == b"0":
        raise RequestError(400, "HTTP/1.0 has no Transfer-Encoding: send Content-Length, or use HTTP/1.1")
    if len(codings) > 1:
        raise RequestError(400, "send one Transfer-Encoding")
    if codings[0].lower() != b"chunked":
        raise RequestError(501, "transfer coding not supported: use chunked")
