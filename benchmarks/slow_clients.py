"""Clients that hold connections: idle, reading slowly, or sending a byte at a time."""

from __future__ import annotations

import socket
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

SLOW_PATH = "/recommendations?per_page=1000"
CONNECT_SECONDS = 30.0


@dataclass(frozen=True)
class Load:
    idle: int
    slow_readers: int
    one_byte_writers: int
    seconds: float

    @property
    def clients(self) -> int:
        return self.idle + self.slow_readers + self.one_byte_writers


def client_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@dataclass
class _Attacker:
    kind: str
    socket: socket.socket
    next_at: float = 0.0


def attack(port: int, load: Load, secure: bool, ready: Any) -> None:
    """Open the connections, keep them busy, and open again what the server closes, until killed."""
    context = client_context() if secure else None
    kinds = ["idle"] * load.idle + ["slow reader"] * load.slow_readers + ["one-byte writer"] * load.one_byte_writers
    attackers, deadline = [], time.monotonic() + CONNECT_SECONDS
    for kind in kinds:
        if time.monotonic() < deadline:  # a server that is busy with slow handshakes lets nobody else in
            attackers.append(_attacker(kind, port, context))
    ready.send(sum(_is_open(each) for each in attackers))
    reopened = 0
    while True:
        now = time.monotonic()
        for index, each in enumerate(attackers):
            if each.next_at > now:
                continue
            if ready.poll(0):
                break
            each.next_at = now + 1.0
            if not _act(each):
                with suppress(OSError, KeyError):
                    each.socket.close()
                attackers[index] = _attacker(each.kind, port, context)
                reopened += 1
        if ready.poll(0.05):
            ready.recv()
            ready.send((sum(_is_open(each) for each in attackers), reopened))


def _attacker(kind: str, port: int, context: ssl.SSLContext | None) -> _Attacker:
    plain = socket.socket()
    if kind == "slow reader":
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    plain.settimeout(1)
    try:
        plain.connect(("127.0.0.1", port))
        # Half of the idle ones do not even begin their handshake.
        client = context.wrap_socket(plain) if context and (kind != "idle" or plain.fileno() % 2) else plain
        if kind == "slow reader":
            client.sendall(f"GET {SLOW_PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        elif kind == "one-byte writer":
            client.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ")
    except OSError:
        plain.close()
        return _Attacker(kind, plain)
    client.settimeout(0.05)
    return _Attacker(kind, client)


def _act(each: _Attacker) -> bool:
    """Whether the connection is still open."""
    try:
        if each.kind == "one-byte writer":
            each.socket.send(b"x")
        elif each.kind == "slow reader":
            each.socket.setblocking(False)
            return each.socket.recv(100) != b""
        return _is_open(each)
    except (BlockingIOError, TimeoutError, ssl.SSLWantReadError):
        return True
    except (OSError, ValueError):
        return False


def _is_open(each: _Attacker) -> bool:
    try:
        each.socket.setblocking(False)
        if isinstance(each.socket, ssl.SSLSocket):
            return each.socket.fileno() >= 0
        return each.socket.recv(1, socket.MSG_PEEK) != b""
    except (BlockingIOError, ssl.SSLWantReadError):
        return True
    except (OSError, ValueError):
        return False
