"""HTTP requests with a deadline for the whole exchange and a limit on the response size.

The timeouts of `requests` restart with every byte, so a slow server can block a caller forever. Here a timer shuts the
socket down at the deadline, whatever the request is waiting for.
"""

from __future__ import annotations

import ctypes
import socket
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError

from gpu_advisor.loopback import proxies_for
from gpu_advisor.rendering.error_causes import system_messages

_CHUNK_BYTES = 1 << 16
_ZLIB_GZIP_WBITS = 31
_LARGE_BYTES = 8 << 20
_M_MMAP_THRESHOLD = -3  # mallopt(3)


class DeadlineExceededError(Exception):
    """The exchange did not complete before its deadline."""


class BodyTooLargeError(Exception):
    """The response exceeds the size limit."""


@dataclass(frozen=True, slots=True)
class HttpResponse:
    status: int
    headers: Mapping[str, str]  # names are case-insensitive
    body: bytes


def connection_problem(error: Exception) -> str:
    """Why there is no response, in the system's words (`Connection refused`) or ours, or the error's class."""
    if isinstance(error, (DeadlineExceededError, BodyTooLargeError)):
        return str(error)
    return next(system_messages(error), type(error).__name__)


class NoAuth(AuthBase):
    """Keeps `requests` from using ~/.netrc, which would also replace an Authorization header."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


class DeadlineClient:
    """One persistent connection, one request at a time. Follows no redirects.

    `ca_file` verifies servers; without it, REQUESTS_CA_BUNDLE of the environment does, or the CAs of certifi.
    """

    def __init__(self, ca_file: str | None = None) -> None:
        self.session = requests.Session()
        self._verify: str | bool = ca_file or True
        self.session.auth = NoAuth()
        self.session.headers["Accept-Encoding"] = "gzip"  # what _decoded can decode in bounded memory
        self._socket: socket.socket | None = None
        self._last_was_large = False
        _map_large_blocks()
        adapter = _SocketTrackingAdapter(self._track_socket)
        self.session.mount("http://", adapter)
        self.session.mount("https://", adapter)

    def fetch(self, method: str, url: str, *, seconds: float, max_bytes: int, **arguments: Any) -> HttpResponse:
        """Send a request (`arguments` as for requests.Session.request) and read the whole response.

        Raises DeadlineExceededError, BodyTooLargeError, requests.RequestException, or OSError (unreadable TLS files).
        """
        if self._last_was_large:
            _give_memory_back()
            self._last_was_large = False
        expired = threading.Event()
        timer = threading.Timer(seconds, self._shut_down_socket, (expired,))
        timer.daemon = True
        timer.start()
        try:
            response = self._fetch(method, url, seconds, max_bytes, arguments)
        except (requests.RequestException, HTTPError, OSError) as error:
            if expired.is_set() or isinstance(error, requests.ReadTimeout):
                raise DeadlineExceededError(f"no complete response within {seconds:g} s") from error
            # requests has other errors, or none, for a truncated body: treat it as a lost connection.
            if isinstance(error, HTTPError | requests.exceptions.ChunkedEncodingError):
                raise requests.ConnectionError(str(error)) from error
            raise
        finally:
            timer.cancel()
            self._socket = None
        if expired.is_set():  # a response without a length looks complete when its socket is shut down
            raise DeadlineExceededError(f"no complete response within {seconds:g} s")
        return response

    def close(self) -> None:
        self.session.close()

    def _fetch(
        self, method: str, url: str, seconds: float, max_bytes: int, arguments: Mapping[str, Any]
    ) -> HttpResponse:
        # Verification per request: the environment's REQUESTS_CA_BUNDLE overrides the session's.
        options = {"verify": self._verify, "proxies": proxies_for(url), **arguments}
        with self.session.request(
            method, url, stream=True, timeout=(seconds, seconds), allow_redirects=False, **options
        ) as response:
            body = bytearray()
            for part in _decoded(response):
                body += part
                self._last_was_large = len(body) > _LARGE_BYTES
                if len(body) > max_bytes:
                    body.clear()  # the traceback refers to it
                    raise BodyTooLargeError(f"the response is larger than {max_bytes} bytes")
            return HttpResponse(response.status_code, response.headers, bytes(body))

    def _track_socket(self, connected: Any) -> None:
        self._socket = connected if isinstance(connected, socket.socket) else None

    def _shut_down_socket(self, expired: threading.Event) -> None:
        expired.set()
        connected = self._socket
        if connected is None:
            return
        try:
            # Not SSLSocket.shutdown, which removes the TLS state from under the reading thread.
            socket.socket.shutdown(connected, socket.SHUT_RDWR)
        except OSError:
            return  # already closed


def _map_large_blocks() -> None:
    """Have glibc map large blocks, which it gives back when they are freed; by default it learns not to."""
    with suppress(OSError, AttributeError):  # another libc
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


def _give_memory_back() -> None:
    """Return what is free in the arenas of all threads, after a large response."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _decoded(response: requests.Response) -> Iterator[bytes]:
    """The body in pieces of bounded size, however well it is compressed. Raises requests.RequestException.

    urllib3 decompresses what it has read as a whole: 64 KiB of zeros are 64 MiB, compressed twice 64 GiB.
    """
    coding = response.headers.get("Content-Encoding", "").strip().lower()
    if coding not in ("", "identity", "gzip", "x-gzip"):
        raise requests.exceptions.ContentDecodingError(f"Content-Encoding {coding[:40]!r} was not asked for")
    chunks = iter(lambda: response.raw.read(_CHUNK_BYTES, decode_content=False), b"")
    return _gunzip(chunks) if "gzip" in coding else chunks


def _gunzip(chunks: Iterator[bytes]) -> Iterator[bytes]:
    member = zlib.decompressobj(_ZLIB_GZIP_WBITS)
    try:
        for chunk in chunks:
            rest = chunk
            while rest:
                if member.eof:  # several members in one body
                    member = zlib.decompressobj(_ZLIB_GZIP_WBITS)
                yield member.decompress(rest, _CHUNK_BYTES)
                rest = member.unused_data if member.eof else member.unconsumed_tail
        if not member.eof:
            yield member.flush()
            raise requests.ConnectionError("the compressed response is truncated")
    except zlib.error as error:
        raise requests.exceptions.ContentDecodingError(f"the response is not gzip: {error}") from error


class _SocketTrackingAdapter(HTTPAdapter):
    """Reports the socket on which a response is awaited."""

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
    """The connection pool class, with connections that report their socket before waiting for a response."""

    class WatchedConnection(pool.ConnectionCls):  # type: ignore[misc]
        def getresponse(self, *arguments: Any, **named: Any) -> Any:
            watch(self.sock)
            return super().getresponse(*arguments, **named)

    class WatchedPool(pool):  # type: ignore[misc]
        ConnectionCls = WatchedConnection

    return WatchedPool
