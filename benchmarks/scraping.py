"""Scrapes like Prometheus', with as little client work as possible, so that the server is what is timed.

http.client parses headers with the email package, which costs as much as some servers need for a response.
"""

from __future__ import annotations

import gzip
import socket
import threading
import time
from collections.abc import Callable
from io import BufferedReader

TIMEOUT_SECONDS = 10.0

#: The header that Prometheus 2.42 sends.
REQUEST = (
    "GET /metrics HTTP/1.1\r\n"
    "Host: {host}:{port}\r\n"
    "User-Agent: Prometheus/2.42.0\r\n"
    "Accept: application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1\r\n"
    "Accept-Encoding: {encoding}\r\n"
    "X-Prometheus-Scrape-Timeout-Seconds: 10\r\n"
    "\r\n"
)


class ScrapeError(Exception):
    """The response is not a page of metrics."""


class BenchmarkScraper:
    """One client. It keeps its connection as long as the server does, and reconnects if necessary."""

    def __init__(self, address: tuple[str, int], compressed: bool = True) -> None:
        self._address = address
        encoding = "gzip" if compressed else "identity"
        self._request = REQUEST.format(host=address[0], port=address[1], encoding=encoding).encode()
        self._socket: socket.socket | None = None
        self._reader: BufferedReader | None = None

    def scrape(self) -> bytes:
        """Return the page as sent, possibly compressed. Raises OSError or ScrapeError."""
        if self._socket is None or self._reader is None:
            self._socket = socket.create_connection(self._address, TIMEOUT_SECONDS)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._reader = BufferedReader(socket.SocketIO(self._socket, "r"), 65536)
        try:
            self._socket.sendall(self._request)
            body, keep = _read_answer(self._reader)
        except BaseException:
            self.close()
            raise
        if not keep:
            self.close()
        return body

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
        if self._socket is not None:
            self._socket.close()
        self._socket = self._reader = None


def scrape_once(address: tuple[str, int]) -> bytes:
    """Return the page, over a new connection. Raises OSError or ScrapeError."""
    scraper = BenchmarkScraper(address)
    try:
        return scraper.scrape()
    finally:
        scraper.close()


def fetch_page(address: tuple[str, int]) -> str:
    """Return the page as text."""
    body = scrape_once(address)
    return (gzip.decompress(body) if body.startswith(b"\x1f\x8b") else body).decode()


def time_scrapes(scrape: Callable[[], bytes], count: int) -> list[float]:
    """Return the seconds of each of `count` consecutive scrapes."""
    took = []
    for _ in range(count):
        begun = time.perf_counter()
        scrape()
        took.append(time.perf_counter() - begun)
    return took


def scrape_concurrently(address: tuple[str, int], scrapers: int, each: int) -> tuple[list[float], int]:
    """Scrape concurrently, each time over a new connection; return the seconds and the number of failures."""
    took: list[float] = []
    failures: list[Exception] = []
    begin = threading.Barrier(scrapers)

    def work() -> None:
        begin.wait()
        for _ in range(each):
            begun = time.perf_counter()
            try:
                scrape_once(address)
            except (OSError, ScrapeError) as error:
                failures.append(error)
            else:
                took.append(time.perf_counter() - begun)

    threads = [threading.Thread(target=work) for _ in range(scrapers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return took, len(failures)


def _read_answer(reader: BufferedReader) -> tuple[bytes, bool]:
    """Return the body, and whether the connection can be reused."""
    version, _, status = reader.readline().partition(b" ")
    if not status.startswith(b"200"):
        raise ScrapeError(f"answered {status.decode('latin-1').strip() or 'nothing'}")
    header: dict[bytes, bytes] = {}
    while (line := reader.readline().strip()) != b"":
        name, _, value = line.partition(b":")
        header[name.lower()] = value.strip().lower()
    keep = version == b"HTTP/1.1" and header.get(b"connection") != b"close"
    if header.get(b"transfer-encoding") == b"chunked":
        return _read_chunks(reader), keep
    if b"content-length" in header:
        length = int(header[b"content-length"])
        body = reader.read(length)
        if len(body) < length:
            raise ScrapeError(f"the page ended after {len(body)} of {length} bytes")
        return body, keep
    return reader.read(), False


def _read_chunks(reader: BufferedReader) -> bytes:
    chunks = []
    while size := int(reader.readline().partition(b";")[0], 16):
        chunks.append(reader.read(size))
        reader.readline()
    reader.readline()
    return b"".join(chunks)
