"""The connected clients: who is connected, in which phase, until when, and who has to go first."""

from __future__ import annotations

import enum
import socket
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from gpu_advisor.web.http.connection import HttpConnection


class Phase(enum.Enum):
    HANDSHAKE = "TLS handshake"
    RECEIVING = "waits for a request, or the rest of it"
    WORKING = "a worker has the request"
    SENDING = "takes its response"
    DRAINING = "got an error response, and may still be sending"


@dataclass(eq=False)
class Client:
    socket: socket.socket
    address: str
    connection: HttpConnection
    phase: Phase
    #: When the phase must have ended (monotonic clock); WORKING has no deadline of the client's.
    deadline: float
    output: deque[memoryview] = field(default_factory=deque)
    held: tuple[bytes, ...] = ()  # the response's chunks, while they are counted as pending
    keep_alive: bool = False
    urgent: bool = False  # of the response under way
    served: int = 0


class ClientTable:
    """Least recently served first."""

    def __init__(self) -> None:
        self._clients: dict[Client, None] = {}
        self._by_address: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._clients)

    def __iter__(self) -> Iterator[Client]:
        return iter(list(self._clients))

    def __contains__(self, client: Client) -> bool:
        return client in self._clients

    def add(self, client: Client) -> None:
        self._clients[client] = None
        self._by_address[client.address] += 1

    def remove(self, client: Client) -> None:
        del self._clients[client]
        self._by_address[client.address] -= 1
        if not self._by_address[client.address]:
            del self._by_address[client.address]

    def mark_served(self, client: Client) -> None:
        del self._clients[client]
        self._clients[client] = None

    def least_deserving(self) -> Client | None:
        """Of the address with the most connections, the one served longest ago that no worker works for."""
        for address, _ in self._by_address.most_common():
            for client in self._clients:
                if client.address == address and client.phase is not Phase.WORKING:
                    return client
        return None


class PendingResponses:
    """Bytes of responses that clients have not taken yet. A body that several take counts once."""

    def __init__(self) -> None:
        self._references: Counter[int] = Counter()
        self.bytes = 0

    def add(self, chunks: tuple[bytes, ...]) -> None:
        for chunk in chunks:
            self._references[id(chunk)] += 1
            if self._references[id(chunk)] == 1:
                self.bytes += len(chunk)

    def remove(self, chunks: tuple[bytes, ...]) -> None:
        for chunk in chunks:
            self._references[id(chunk)] -= 1
            if not self._references[id(chunk)]:
                del self._references[id(chunk)]
                self.bytes -= len(chunk)
