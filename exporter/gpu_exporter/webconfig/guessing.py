"""Makes guessing passwords expensive for the guesser: a limit per address."""

from __future__ import annotations

import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

#: Wrong passwords that an address may send at once, and how soon it may send another one.
BURST = 10
SECONDS_PER_GUESS = 6.0
#: Addresses remembered; beyond, the one that guessed longest ago is forgotten.
MAX_ADDRESSES = 1_000
_MAPPED_IPV4 = bytes(10) + b"\xff\xff"


class GuessLimit:
    """A token bucket per address (per /64 network for IPv6, which one client has whole)."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._guesses: OrderedDict[str, tuple[float, float]] = OrderedDict()  # network -> guesses left, at

    def allows(self, address: str) -> bool:
        """Whether this address may try another password."""
        with self._lock:
            return self._left(network_of(address)) >= 1

    def record_wrong(self, address: str) -> None:
        network = network_of(address)
        with self._lock:
            left = self._left(network)
            self._guesses[network] = (max(0.0, left - 1), self._clock())
            self._guesses.move_to_end(network)
            if len(self._guesses) > MAX_ADDRESSES:
                self._guesses.popitem(last=False)

    def _left(self, network: str) -> float:
        left, at = self._guesses.get(network, (float(BURST), self._clock()))
        return min(float(BURST), left + (self._clock() - at) / SECONDS_PER_GUESS)


def network_of(address: str) -> str:
    """The address itself; for IPv6 its /64 network, and for a mapped IPv4 address that address."""
    plain = address.partition("%")[0]
    try:
        packed = socket.inet_pton(socket.AF_INET6, plain)
    except OSError:
        return plain
    if packed[:12] == _MAPPED_IPV4:
        return socket.inet_ntop(socket.AF_INET, packed[12:])
    return socket.inet_ntop(socket.AF_INET6, packed[:8] + bytes(8))
