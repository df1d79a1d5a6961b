"""unary_call against servers that are correct, faulty, slow or not HTTP/2."""

from __future__ import annotations

import socket
import struct
import time
from pathlib import Path

import pytest
from gpu_exporter.owners import grpc, hpack
from gpu_exporter.owners.grpc import GrpcError, unary_call

from tests.unit.owners import fake_kubelet as k
from tests.unit.owners.fake_kubelet import frame, kubelet

METHOD = "/v1.PodResourcesLister/List"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s"


def ask(path: Path, reply, limit: float = 5.0) -> bytes:
    with kubelet(path, reply):
        return unary_call(str(path), METHOD, b"", limit)


def frames(sent: bytes) -> list[tuple[int, int, int, bytes]]:
    found, at = [], 0
    while at < len(sent):
        length, kind, flags, stream = struct.unpack(">IBBI", b"\0" + sent[at : at + 9])
        found.append((kind, flags, stream, sent[at + 9 : at + 9 + length]))
        at += 9 + length
    return found


@pytest.mark.parametrize("body", [b"", b"x", bytes(range(256)) * 1024])
def test_response(path: Path, body: bytes) -> None:
    assert ask(path, k.answer(body)) == body


def test_request(path: Path) -> None:
    with kubelet(path, k.answer(b"ok")) as server:
        unary_call(str(path), METHOD, b"abc", 2.5)
        # Closing the server waits until everything was received.
    sent = server.received[0]
    assert sent.startswith(k.PREFACE)
    asked = frames(sent.removeprefix(k.PREFACE))
    assert (k.DATA, k.END_STREAM, 1, b"\0\0\0\0\3abc") in asked
    assert (k.SETTINGS, k.ACK, 0, b"") in asked
    assert (k.PING, k.ACK, 0, b"\2\4\20\20\t\16\7\7") in asked
    fields = dict(hpack.decode(next(payload for kind, _, _, payload in asked if kind == k.HEADERS)))
    assert fields == {
        ":method": "POST", ":scheme": "http", ":path": METHOD, ":authority": "localhost", "te": "trailers",
        "content-type": "application/grpc", "user-agent": "gpu-exporter", "grpc-timeout": "2500m",
    }  # fmt: skip


def test_response_byte_by_byte(path: Path) -> None:
    def reply(connection: socket.socket) -> None:
        for byte in k.answer(b"slow"):
            connection.sendall(bytes([byte]))

    assert ask(path, reply) == b"slow"


def test_padding_priority_continuation_and_unknown_frames(path: Path) -> None:
    block = k.trailers()
    reply = (
        frame(k.SETTINGS, 0, 0, b"")
        + frame(250, 9, 1, b"a kind of frame to come")
        + frame(k.GOAWAY, 0, 0, struct.pack(">II", 1, 0))  # GOAWAY after this stream
        + frame(k.HEADERS, k.END_HEADERS | k.PADDED | k.PRIORITY, 1, b"\3" + b"\0\0\0\0\7" + k.STARTED + b"\0\0\0")
        + frame(k.DATA, k.PADDED, 1, b"\2" + k.message(b"yes") + b"\0\0")
        + frame(k.DATA, 0, 3, b"of another stream")
        + frame(k.HEADERS, k.END_STREAM, 1, block[:5])
        + frame(k.CONTINUATION, 0, 1, block[5:7])
        + frame(k.CONTINUATION, k.END_HEADERS, 1, block[7:])
    )
    assert ask(path, reply) == b"yes"


HEAD = frame(k.HEADERS, k.END_HEADERS, 1, k.STARTED)
RATE_LIMITED = k.trailers("8", "rejected by rate%20limit")
END = frame(k.HEADERS, k.END_HEADERS | k.END_STREAM, 1, k.trailers())
FAILURES = {
    "refused with a reason": (
        # A table size update may only start a block.
        frame(k.HEADERS, k.END_HEADERS | k.END_STREAM, 1, RATE_LIMITED[:1] + k.STARTED + RATE_LIMITED[1:]),
        "status 8.*rejected by rate limit",
    ),
    "a message and then an error": (
        HEAD + k.data(k.message(b"x")) + frame(k.HEADERS, 5, 1, k.trailers("13")),
        "status 13",
    ),
    "no trailers": (HEAD + frame(k.DATA, k.END_STREAM, 1, k.message(b"x")), "status None"),
    "no message": (HEAD + END, "not one uncompressed message"),
    "two messages": (HEAD + k.data(k.message(b"a") + k.message(b"b")) + END, "not one uncompressed message"),
    "half a message": (HEAD + k.data(k.message(b"abc")[:-1]) + END, "not one uncompressed message"),
    "a compressed message": (HEAD + k.data(k.message(b"abc", compressed=1)) + END, "not one uncompressed message"),
    "the stream reset": (HEAD + frame(k.RST_STREAM, 0, 1, struct.pack(">I", 11)), "reset with error 11"),
    "going away before": (frame(k.GOAWAY, 0, 0, struct.pack(">II", 0, 0)), "refused"),
    "a push": (frame(k.PUSH, 0, 1, b"\0\0\0\2"), "server push"),
    "too long a frame": (frame(k.DATA, 0, 1, b"x" * 16385), "too long"),
    "another protocol": (b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n" + b"x" * 100, "HTTP/2"),
    "too much padding": (HEAD + frame(k.DATA, k.PADDED, 1, b"\4abc"), "padding"),
    "a header without its end": (frame(k.HEADERS, 0, 1, b"") + frame(k.PING, 0, 0, b"12345678"), "CONTINUATION"),
    "a header without bounds": (
        frame(k.HEADERS, 0, 1, b"") + frame(k.CONTINUATION, 0, 1, b"\0" * 16000) * 5,
        "exceeds 65536",
    ),
    "a field of a table that we do not have": (
        frame(k.HEADERS, k.END_HEADERS, 1, b"\xff\x00"),
        "not in the static table",
    ),
}


@pytest.mark.parametrize("name", FAILURES)
def test_failures(path: Path, name: str) -> None:
    reply, why = FAILURES[name]
    with pytest.raises(GrpcError, match=why):
        ask(path, reply)


def test_response_size_is_limited(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc, "MAX_RESPONSE_BYTES", 100_000)
    with pytest.raises(GrpcError, match="exceeds 100000"):
        ask(path, HEAD + k.data(b"x" * 200_000))


def test_number_of_frames_is_limited(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc, "_MAX_FRAMES", 100)
    with pytest.raises(GrpcError, match="too many frames"):
        ask(path, frame(k.PING, k.ACK, 0, b"12345678") * 200)


def test_connection_closed_early(path: Path) -> None:
    with pytest.raises(GrpcError, match="closed"):
        ask(path, lambda connection: connection.sendall(k.answer(b"abc")[:-4]))


def test_connection_closed_right_after_the_response(path: Path) -> None:
    """Pending acknowledgements cannot be sent; the response has arrived."""
    assert ask(path, lambda connection: connection.sendall(k.answer(b"abc"))) == b"abc"


@pytest.mark.parametrize("drip", [False, True])
def test_hung_server_times_out(path: Path, drip: bool) -> None:
    """A server that sends single bytes must not block longer than one that sends nothing."""

    def reply(connection: socket.socket) -> None:
        for _ in range(20):
            if drip:
                connection.sendall(frame(k.PING, k.ACK, 0, b"12345678"))
            time.sleep(0.02)

    with pytest.raises(TimeoutError):  # without a limit for the whole call it would fail as closed early
        ask(path, reply, limit=0.15)


def test_missing_socket(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        unary_call(str(path), METHOD, b"", 1)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.close()
    with pytest.raises(ConnectionRefusedError):
        unary_call(str(path), METHOD, b"", 1)


def test_oversized_request(path: Path) -> None:
    with kubelet(path, b""), pytest.raises(ValueError, match="exceeds one frame"):
        unary_call(str(path), METHOD, b"x" * 16384, 1)
