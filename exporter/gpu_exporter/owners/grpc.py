"""A minimal gRPC client: one unary call over a Unix socket.

grpcio would cost a compiled package of several megabytes on every node, for one call in ten seconds. This implements
the part of HTTP/2 (RFC 9113) that one request on one connection needs, as in "gRPC over HTTP2": request and response
are one message each, and the status is in the trailers.
"""

from __future__ import annotations

import socket
import struct
import time
from contextlib import closing, suppress
from urllib.parse import unquote

from gpu_exporter.owners import hpack

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PUSH, _PING, _GOAWAY, _CONTINUATION = 0, 1, 3, 4, 5, 6, 7, 9
_END_STREAM = _ACK = 0x1
_END_HEADERS, _PADDED, _PRIORITY = 0x4, 0x8, 0x20
_HEADER_TABLE_SIZE, _ENABLE_PUSH, _INITIAL_WINDOW = 1, 2, 4
#: Initial values of every HTTP/2 connection.
_MAX_FRAME_BYTES, _DEFAULT_WINDOW_BYTES = 16384, 65535
_STREAM = 1
#: The limit of the kubelet's own clients.
MAX_RESPONSE_BYTES = 16 * 1024 * 1024
_MAX_HEADER_BYTES = 64 * 1024
#: Stops a peer that keeps sending pings.
_MAX_FRAMES = 100_000


class GrpcError(Exception):
    """The call failed; the message says why."""


def unary_call(path: str, method: str, request: bytes, timeout_seconds: float) -> bytes:
    """The response to this request, both encoded messages. `method` is /package.Service/Method.

    Raises GrpcError; OSError if the socket cannot be connected; TimeoutError if the whole call takes too long.
    """
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as connection:
        call = _UnaryCall(connection, time.monotonic() + timeout_seconds)
        call.connect(path)
        call.send(_encode_request(method, request, timeout_seconds))
        return call.read_response()


def _encode_request(method: str, request: bytes, timeout_seconds: float) -> bytes:
    """Everything to send, in one write: a client need not wait for the server's settings."""
    if len(request) + 5 > _MAX_FRAME_BYTES:
        raise ValueError("request exceeds one frame")
    settings = ((_HEADER_TABLE_SIZE, 0), (_ENABLE_PUSH, 0), (_INITIAL_WINDOW, MAX_RESPONSE_BYTES))
    fields = hpack.encode(
        (
            (":method", "POST"),
            (":scheme", "http"),
            (":path", method),
            (":authority", "localhost"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("user-agent", "gpu-exporter"),
            ("grpc-timeout", f"{max(1, int(timeout_seconds * 1000))}m"),
        )
    )
    return b"".join(
        (
            _PREFACE,
            _frame(_SETTINGS, 0, 0, b"".join(struct.pack(">HI", *setting) for setting in settings)),
            _window_update(MAX_RESPONSE_BYTES - _DEFAULT_WINDOW_BYTES),
            _frame(_HEADERS, _END_HEADERS, _STREAM, fields),
            _frame(_DATA, _END_STREAM, _STREAM, b"\0" + struct.pack(">I", len(request)) + request),
        )
    )


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _window_update(increment: int) -> bytes:
    return _frame(8, 0, 0, struct.pack(">I", increment))


class _UnaryCall:
    """One call on its own connection."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._socket = connection
        self._deadline = deadline
        self._received = b""
        self._data = bytearray()
        self._fields: dict[str, str] = {}
        self._ended = False

    def connect(self, path: str) -> None:
        self._apply_deadline()
        self._socket.connect(path)

    def send(self, data: bytes) -> None:
        self._apply_deadline()
        self._socket.sendall(data)

    def read_response(self) -> bytes:
        """Process frames until the stream ends. Returns the message."""
        for _ in range(_MAX_FRAMES):
            kind, flags, stream, payload = self._frame()
            self._handle(kind, flags, stream, payload)
            if self._ended:
                return self._decode_message()
        raise GrpcError("too many frames without a response")

    def _apply_deadline(self) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("no response in time")
        self._socket.settimeout(left)

    def _frame(self) -> tuple[int, int, int, bytes]:
        length, kind, flags, stream = struct.unpack(">IBBI", b"\0" + self._read(9))
        if length > _MAX_FRAME_BYTES:
            raise GrpcError("frame too long; is the socket's protocol HTTP/2?")
        return kind, flags, stream & 0x7FFFFFFF, self._read(length)

    def _read(self, length: int) -> bytes:
        while len(self._received) < length:
            self._apply_deadline()
            try:
                data = self._socket.recv(65536)
            except ConnectionError:  # closed with unread data of ours
                data = b""
            if not data:
                raise GrpcError("connection closed before the response was complete")
            self._received += data
        chunk, self._received = self._received[:length], self._received[length:]
        return chunk

    def _handle(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _SETTINGS and not flags & _ACK:
            self._acknowledge(_SETTINGS, b"")
        elif kind == _PING and not flags & _ACK:
            self._acknowledge(_PING, payload)
        elif kind == _GOAWAY and int.from_bytes(payload[:4], "big") & 0x7FFFFFFF < _STREAM:
            raise GrpcError("connection refused by GOAWAY")
        elif kind == _PUSH:
            raise GrpcError("server push, which is disabled")
        elif stream == _STREAM and kind == _RST_STREAM:
            raise GrpcError(f"call reset with error {int.from_bytes(payload[:4], 'big')}")
        elif stream == _STREAM and kind == _DATA:
            self._data += _strip_padding(payload, flags)
            if len(self._data) > MAX_RESPONSE_BYTES:
                raise GrpcError(f"response exceeds {MAX_RESPONSE_BYTES} bytes")
            self._ended = bool(flags & _END_STREAM)
        elif stream == _STREAM and kind == _HEADERS:
            block = _strip_padding(payload, flags)[5 if flags & _PRIORITY else 0 :]
            self._read_header_block(block, flags)
            self._ended = bool(flags & _END_STREAM)

    def _acknowledge(self, kind: int, payload: bytes) -> None:
        # A peer that closed the connection needs no acknowledgement, and its response may have arrived.
        with suppress(ConnectionError):
            self.send(_frame(kind, _ACK, 0, payload))

    def _read_header_block(self, block: bytes, flags: int) -> None:
        while not flags & _END_HEADERS:
            kind, flags, stream, payload = self._frame()
            if kind != _CONTINUATION or stream != _STREAM:
                raise GrpcError("expected a CONTINUATION frame")
            block += payload
            if len(block) > _MAX_HEADER_BYTES:
                raise GrpcError(f"header exceeds {_MAX_HEADER_BYTES} bytes")
        try:
            self._fields.update(hpack.decode(block))
        except ValueError as error:
            raise GrpcError(str(error)) from error

    def _decode_message(self) -> bytes:
        status = self._fields.get("grpc-status")
        if status != "0":
            message = unquote(self._fields.get("grpc-message", "")) or "no message"
            raise GrpcError(f"gRPC status {status}, HTTP status {self._fields.get(':status')}: {message[:200]}")
        if len(self._data) < 5 or self._data[0] or len(self._data) - 5 != int.from_bytes(self._data[1:5], "big"):
            raise GrpcError("the response is not one uncompressed message")
        return bytes(self._data[5:])


def _strip_padding(payload: bytes, flags: int) -> bytes:
    if not flags & _PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise GrpcError("frame has more padding than payload")
    return payload[1 : len(payload) - payload[0]]
