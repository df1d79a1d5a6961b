"""A fake pod-resources socket of the kubelet, with hand-written HTTP/2 frames like those of grpc-go."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PUSH, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 5, 6, 7, 8, 9
END_STREAM, END_HEADERS, PADDED, PRIORITY, ACK = 1, 4, 8, 32, 1

# :status 200; content-type application/grpc, the name indexed, the value Huffman-coded.
STARTED = bytes([0x88, 0x5F, 0x8B]) + bytes.fromhex("1d75d0620d263d4c4d6564")
# grpc-status 0 and grpc-message, the names Huffman-coded, with incremental indexing.
_STATUS, _MESSAGE = bytes.fromhex("9acac8b21234da8f"), bytes.fromhex("9acac8b5254207317f")


def trailers(status: str = "0", message: str = "") -> bytes:
    block = bytes([0x20, 0x40, 0x80 | len(_STATUS)]) + _STATUS + bytes([len(status)]) + status.encode()
    return block + bytes([0x40, 0x80 | len(_MESSAGE)]) + _MESSAGE + bytes([len(message)]) + message.encode()


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def message(body: bytes, compressed: int = 0) -> bytes:
    return struct.pack(">BI", compressed, len(body)) + body


def data(content: bytes, size: int = 16384) -> bytes:
    return b"".join(frame(DATA, 0, 1, content[i : i + size]) for i in range(0, len(content), size))


def answer(body: bytes) -> bytes:
    """Everything that grpc-go sends for a successful call, including connection frames."""
    return (
        frame(SETTINGS, 0, 0, struct.pack(">HI", 5, 16384))
        + frame(SETTINGS, ACK, 0, b"")
        + frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 5))
        + frame(PING, 0, 0, b"\2\4\20\20\t\16\7\7")
        + frame(HEADERS, END_HEADERS, 1, STARTED)
        + data(message(body))
        + frame(HEADERS, END_HEADERS | END_STREAM, 1, trailers())
    )


# Messages of the API.


def text(number: int, content: str | bytes) -> bytes:
    content = content.encode() if isinstance(content, str) else content
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def listing(pods: Mapping[str, Mapping[str, tuple[str, ...]]], resource: str = "nvidia.com/gpu") -> bytes:
    """`namespace/pod` -> container -> device ids."""
    out = b""
    for pod, containers in pods.items():
        namespace, _, name = pod.partition("/")
        body = text(1, name) + text(2, namespace)
        for container, ids in containers.items():
            devices = text(1, resource) + b"".join(text(2, id_) for id_ in ids) + text(3, text(1, b"\x08\x01"))
            # cpu_ids, packed and not, and a field of later versions
            body += text(3, text(1, container) + text(2, devices) + text(3, b"\1\2") + varint(4 << 3) + varint(300))
        out += text(1, body + varint(9 << 3 | 5) + b"abcd" + varint(10 << 3 | 1) + b"abcdefgh")
    return out


class FakeKubelet:
    """Sends every connection the same response; `received` has what it was sent."""

    def __init__(self, path: Path, reply: Callable[[socket.socket], None] | bytes) -> None:
        self.path = path
        self.reply = reply
        self.received: list[bytes] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                self.received.append(connection.recv(65536))
                try:
                    if callable(self.reply):
                        self.reply(connection)
                    else:
                        connection.sendall(self.reply)
                        while more := connection.recv(65536):
                            self.received[-1] += more
                except OSError:
                    pass

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.path.unlink(missing_ok=True)
        self._thread.join(60)


@contextmanager
def kubelet(path: Path, reply: Callable[[socket.socket], None] | bytes) -> Iterator[FakeKubelet]:
    server = FakeKubelet(path, reply)
    try:
        yield server
    finally:
        server.close()
