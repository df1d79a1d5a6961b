"""HTTP requests that end: a limit on the whole exchange and on the size of the answer.

The time limits of `requests` restart with every byte, so a server that drips holds a caller for ever. Here a timer
shuts the socket down when the time is over, whatever the request was waiting for.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError

_CHUNK_BYTES = 1 << 16


class DeadlineExceededError(Exception):
    """The whole exchange took longer than it may."""


class BodyTooLargeError(Exception):
    """The answer is larger than it may be."""


@dataclass(frozen=True, slots=True)
class HttpResponse:
    status: int
    headers: Mapping[str, str]  # names in any case
    body: bytes


class NoAuth(AuthBase):
    """Keeps `requests` from sending what it finds in ~/.netrc, which would also replace an Authorization header."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


class DeadlineClient:
    """One connection kept open, one request at a time. Follows no redirects."""

    def __init__(self) -> None:
        self.session = requests.Session()
        self.session.auth = NoAuth()
        self._socket: socket.socket | None = None
        adapter = _SocketTrackingAdapter(self._track_socket)
        self.session.mount("http://", adapter)
        self.session.mount("https://", adapter)

    def fetch(self, method: str, url: str, *, seconds: float, max_bytes: int, **arguments: Any) -> HttpResponse:
        """Send a request (`arguments` as for requests.Session.request) and read all of the answer.

        Raises DeadlineExceededError, BodyTooLargeError, requests.RequestException, or OSError (unreadable TLS files).
        """
        expired = threading.Event()
        timer = threading.Timer(seconds, self._shut_down_socket, (expired,))
        timer.daemon = True
        timer.start()
        try:
            answer = self._fetch(method, url, seconds, max_bytes, arguments)
        except (requests.RequestException, HTTPError, OSError) as error:
            if expired.is_set():
                raise DeadlineExceededError(f"no complete answer within {seconds:g} s") from error
            # A body that breaks off has another name in requests, or none: to us the connection was lost.
            if isinstance(error, HTTPError | requests.exceptions.ChunkedEncodingError):
                raise requests.ConnectionError(str(error)) from error
            raise
        finally:
            timer.cancel()
            self._socket = None
        if expired.is_set():  # an answer without a length looks complete when its socket is cut
            raise DeadlineExceededError(f"no complete answer within {seconds:g} s")
        return answer

    def close(self) -> None:
        self.session.close()

    def _fetch(
        self, method: str, url: str, seconds: float, max_bytes: int, arguments: Mapping[str, Any]
    ) -> HttpResponse:
        with self.session.request(
            method, url, stream=True, timeout=(seconds, seconds), allow_redirects=False, **arguments
        ) as response:
            body = bytearray()
            for chunk in response.iter_content(_CHUNK_BYTES):
                body += chunk
                if len(body) > max_bytes:
                    raise BodyTooLargeError(f"the answer is larger than {max_bytes} bytes")
            return HttpResponse(response.status_code, response.headers, bytes(body))

    def _track_socket(self, connected: Any) -> None:
        self._socket = connected if isinstance(connected, socket.socket) else None

    def _shut_down_socket(self, expired: threading.Event) -> None:
        expired.set()
        connected = self._socket
        if connected is None:
            return
        try:
            # Not SSLSocket.shutdown, which takes the TLS state away from the thread that is reading.
            socket.socket.shutdown(connected, socket.SHUT_RDWR)
        except OSError:
            return  # closed already: that is what we want


class _SocketTrackingAdapter(HTTPAdapter):
    """Tells which socket the answer is awaited on."""

    def __init__(self, watch: Callable[[Any], None]) -> None:
        self._pools = {
            "http": _socket_tracking_pool(HTTPConnectionPool, watch),
            "https": _socket_tracking_pool(HTTPSConnectionPool, watch),
        }
        super().__init__(pool_connections=1, pool_maxsize=1)

    def init_poolmanager(self, *arguments: Any, **named: Any) -> None:
        super().init_poolmanager(*arguments, **named)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, *arguments: Any, **named: Any) -> Any:
        manager = super().proxy_manager_for(*arguments, **named)
        manager.pool_classes_by_scheme = self._pools
        return manager


def _socket_tracking_pool(pool: Any, watch: Callable[[Any], None]) -> Any:
    """The connection pool class, with connections that tell their socket before they wait for an answer on it."""

    class WatchedConnection(pool.ConnectionCls):  # type: ignore[misc]
        def getresponse(self, *arguments: Any, **named: Any) -> Any:
            watch(self.sock)
            return super().getresponse(*arguments, **named)

    class WatchedPool(pool):  # type: ignore[misc]
        ConnectionCls = WatchedConnection

    return WatchedPool
