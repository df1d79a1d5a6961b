"""HTTP/1.1 on one connection, without a socket: bytes in, requests out; responses in, bytes out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from email.utils import formatdate
from http import HTTPStatus

import h11

from gpu_advisor.web.http.head import RequestError, check_head
from gpu_advisor.web.http.limits import ServerLimits

_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")
_END_OF_HEAD_BYTES = 4
_HEAD = b"HEAD "
COPIED_BYTES = 1 << 14


@dataclass(frozen=True, slots=True)
class HttpRequest:
    method: str
    target: bytes
    version: str
    #: Names in lower case, in the order in which they were sent.
    fields: tuple[tuple[bytes, bytes], ...]
    body: bytes


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """`chunks` are sent as they are, not copied: a cached body is in memory once, however many clients take it."""

    status: int
    fields: Sequence[tuple[str, str]]
    chunks: Sequence[bytes] = ()


def text_response(status: int, message: str, fields: Sequence[tuple[str, str]] = ()) -> HttpResponse:
    body = f"{message}\n".encode("utf-8", "replace")
    return HttpResponse(status, [("Content-Type", "text/plain; charset=utf-8"), *fields], [body])


INTERNAL_ERROR = text_response(500, "internal error: see the advisor's log")


class HttpConnection:
    """h11 parses and frames, once check_head agrees. One request at a time: pipelined ones wait in the buffer."""

    def __init__(self, limits: ServerLimits, server_name: str) -> None:
        self._limits = limits
        self._server_name = server_name
        self._buffer = bytearray()
        self._searched = 0  # up to here the buffer holds no end of a head
        self._parser: h11.Connection | None = None  # of the present request
        self._request: h11.Request | None = None
        self._body = bytearray()
        self._interim = b""
        self._start = b""  # of the present request

    @property
    def begun(self) -> bool:
        """Whether part of a request has arrived."""
        return bool(self._buffer) or self._parser is not None

    @property
    def pending_bytes(self) -> int:
        return len(self._buffer) + len(self._body)

    def receive(self, data: bytes) -> HttpRequest | None:
        """The next request, once it is complete. Raises RequestError."""
        self._buffer += data
        try:
            if self._parser is None and not self._parse_head():
                return None
            return self._parse_body()
        except h11.RemoteProtocolError as error:
            raise RequestError(error.error_status_hint, str(error)) from error

    def take_interim(self) -> bytes:
        """`100 Continue`, if the client waits for it."""
        interim, self._interim = self._interim, b""
        return interim

    def respond(self, response: HttpResponse) -> tuple[list[bytes], bool]:
        """The bytes to send, and whether the connection can take another request."""
        parser, request = self._parser or h11.Connection(h11.SERVER), self._request
        # Also to a malformed one: a body after the answer to HEAD would look like another answer.
        head_only = request is not None and request.method == b"HEAD"
        if request is None and self._start == _HEAD:
            response = replace(response, chunks=())
        try:
            parts = self._frame(parser, response, head_only=head_only)
        except h11.LocalProtocolError:  # header fields of the application that would split the response
            parser = h11.Connection(h11.SERVER)
            parts = self._frame(parser, INTERNAL_ERROR, head_only=head_only)
        reusable = parser.our_state is h11.DONE and parser.their_state is h11.DONE
        self._parser, self._request, self._body = None, None, bytearray()
        return parts, reusable

    def _parse_head(self) -> bool:
        if not self._searched:
            del self._buffer[: len(self._buffer) - len(self._buffer.lstrip(b"\r\n"))]  # RFC 9112, section 2.2
        self._start = bytes(self._buffer[: len(_HEAD)])
        end = _END_OF_HEAD.search(self._buffer, self._searched)
        if (end.end() if end else len(self._buffer)) > self._limits.header_bytes:
            raise RequestError(431, f"the request's header exceeds {self._limits.header_bytes} bytes")
        if end is None:
            self._searched = max(0, len(self._buffer) - _END_OF_HEAD_BYTES + 1)
            return False
        head, self._searched = bytes(self._buffer[: end.end()]), 0
        del self._buffer[: end.end()]
        check_head(head[: end.start()])
        self._parser = h11.Connection(h11.SERVER, max_incomplete_event_size=self._limits.header_bytes)
        self._parser.receive_data(head)
        return True

    def _parse_body(self) -> HttpRequest | None:
        parser = self._parser
        assert parser is not None
        if self._buffer:
            parser.receive_data(bytes(self._buffer))
            self._buffer.clear()
        while True:
            event = parser.next_event()
            if event is h11.NEED_DATA:
                if parser.they_are_waiting_for_100_continue:
                    self._interim = parser.send(h11.InformationalResponse(status_code=100, headers=[])) or b""
                return None
            if isinstance(event, h11.Request):
                self._request = event
            elif isinstance(event, h11.Data):
                self._body += event.data
                if len(self._body) > self._limits.body_bytes:
                    raise RequestError(413, f"the request's body exceeds {self._limits.body_bytes} bytes")
            elif isinstance(event, h11.EndOfMessage):
                self._buffer += parser.trailing_data[0]
                return self._complete()

    def _complete(self) -> HttpRequest:
        request = self._request
        assert request is not None
        return HttpRequest(
            request.method.decode("ascii"),
            request.target,
            request.http_version.decode("ascii"),
            tuple((bytes(name), bytes(value)) for name, value in request.headers),
            bytes(self._body),
        )

    def _frame(self, parser: h11.Connection, response: HttpResponse, *, head_only: bool) -> list[bytes]:
        bodiless = response.status in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)
        fields = [
            (name, value)
            for name, value in response.fields
            if name.lower() not in ("connection", "content-length", "date", "server", "transfer-encoding")
        ]
        if not bodiless:
            fields.append(("Content-Length", str(sum(map(len, response.chunks)))))
        fields += [("Date", formatdate(usegmt=True)), ("Server", self._server_name)]
        if parser.their_state is not h11.DONE:  # the rest of the request is unknown
            fields.append(("Connection", "close"))
        encoded = [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in fields]
        head = h11.Response(
            status_code=response.status, headers=encoded, reason=HTTPStatus(response.status).phrase.encode("ascii")
        )
        parts: list[bytes] = list(parser.send_with_data_passthrough(head) or ())
        if not head_only and not bodiless:
            for chunk in response.chunks:
                parts += parser.send_with_data_passthrough(h11.Data(data=chunk)) or ()
        parts += parser.send_with_data_passthrough(h11.EndOfMessage()) or ()
        return _joined(parts)


def _joined(parts: Sequence[bytes]) -> list[bytes]:
    """Small parts as one, for one packet; large ones stay as they are, uncopied."""
    joined, small = [], bytearray()
    for part in parts:
        if len(part) <= COPIED_BYTES:
            small += part
            continue
        joined += [bytes(small), part]
        small.clear()
    return [part for part in (*joined, bytes(small)) if part]
