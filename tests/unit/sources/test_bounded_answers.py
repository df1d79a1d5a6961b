"""Answers of a Prometheus that would fill the memory: compressed, long, or with too many series."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
import requests
from gpu_advisor.sources.base import SourceError
from gpu_advisor.sources.prometheus import response_parser
from gpu_advisor.sources.prometheus.http_client import BodyTooLargeError, DeadlineClient, HttpResponse
from gpu_advisor.sources.prometheus.response_parser import read_matrix, read_vector
from hypothesis import given
from hypothesis import strategies as st

from tests.local_http import serve

HEAD = b'{"status":"success","data":{"resultType":"%s","result":['
MIB = 1 << 20


@contextmanager
def answering(body: Callable[[], Iterator[bytes]] | bytes, coding: str = "", status: int = 200) -> Iterator[str]:
    """The URL of a server with one answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            if coding:
                self.send_header("Content-Encoding", coding)
            self.end_headers()
            try:
                for part in (body,) if isinstance(body, bytes) else body():
                    self.wfile.write(part)
            except OSError:
                return

        def do_GET(self) -> None:
            if self.path.startswith("/api/"):  # what kind of server it is
                self.send_error(404)
            else:
                self.do_POST()

        def log_message(self, format: str, *args: object) -> None: ...

    with serve(Handler) as url:
        yield url


def fetch(url: str, max_bytes: int = MIB) -> bytes:
    client = DeadlineClient()
    try:
        return client.fetch("GET", url, seconds=60, max_bytes=max_bytes).body
    finally:
        client.close()


def bomb(size: int) -> bytes:
    compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join(compressor.compress(bytes(MIB)) for _ in range(size // MIB)) + compressor.flush()


@pytest.mark.parametrize("parts", [1, 2])
def test_gzip_is_decoded_also_in_several_members(parts: int) -> None:
    with answering(b"".join(gzip.compress(b"x" * 200_000) for _ in range(parts)), "gzip") as url:
        assert fetch(url) == b"x" * 200_000 * parts


@pytest.mark.parametrize(
    ("coding", "body", "error"),
    [
        ("gzip", bomb(64 * MIB), BodyTooLargeError),
        ("gzip", gzip.compress(bomb(64 * MIB), mtime=0), None),  # compressed twice, declared once: small, and no JSON
        ("gzip, gzip", gzip.compress(bomb(64 * MIB), mtime=0), requests.RequestException),
        ("br", b"x", requests.RequestException),
        ("deflate", zlib.compress(b"x"), requests.RequestException),
        ("gzip", b"no gzip", requests.RequestException),
        ("gzip", gzip.compress(b"x" * 1000, mtime=0)[:-9], requests.RequestException),
        ("", bytes(2 * MIB), BodyTooLargeError),
    ],
)
def test_what_is_too_long_or_compressed_otherwise_is_refused(
    coding: str, body: bytes, error: type[Exception] | None
) -> None:
    with answering(body, coding) as url:
        if error is None:
            assert len(fetch(url)) < MIB
            return
        with pytest.raises(error):
            fetch(url)


MEASURE = """
import resource, sys, time
from gpu_advisor.sources.base import SourceError
from gpu_advisor.sources.prometheus.connection import PrometheusClientConfig
from gpu_advisor.sources.prometheus.source import PrometheusSource

from tests.local_http import serve

def rss():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 2**20

source = PrometheusSource(PrometheusClientConfig(sys.argv[1], timeout_seconds=60, retries=0))
before = rss()
try:
    source.range_promql("x", 0, 3600, 60)
    result = "read"
except SourceError as error:
    result = str(error)
while source._clients.qsize() < 2:  # another query that failed with it is still being read
    time.sleep(0.05)
for _ in range(2):  # each of the connections
    source._request_with_retries("GET", "/api/small", None)
# Not ru_maxrss, which begins with what the parent had.
status = open("/proc/self/status").read()
most = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024
print(round(most - before), round(rss() - before), result)
"""


def long_matrix(size: int) -> Iterator[bytes]:
    yield HEAD % b"matrix"
    values = ",".join(f'[{1_700_000_000 + 15 * n},"0.{n}"]' for n in range(5000))
    one, number = len(values), 0
    while number * one < size:
        yield f'{"," if number else ""}{{"metric":{{"uuid":"GPU-{number}"}},"values":[{values}]}}'.encode()
        number += 1
    yield b"]}}"


def many_series(count: int) -> Iterator[bytes]:
    yield HEAD % b"matrix"
    for first in range(0, count, 1000):
        yield ",".join(
            f'{{"metric":{{"uuid":"GPU-{n}"}},"values":[[1,"1"]]}}' for n in range(first, first + 1000)
        ).encode() + (b"," if first + 1000 < count else b"")
    yield b"]}}"


BODIES: dict[str, Callable[[], Any]] = {
    "bomb": lambda: bomb(64 * MIB) * 32, "250 MiB": lambda: lambda: long_matrix(250 * MIB),
    "20 MiB": lambda: lambda: long_matrix(20 * MIB), "many series": lambda: lambda: many_series(200_000),
    "large nonsense": lambda: b"[" + b"0," * (10 * MIB) + b"0]",
}  # fmt: skip


@pytest.mark.parametrize("kind", BODIES)
def test_an_answer_costs_at_most_300_mib_and_gives_it_back(
    kind: str, record_property: Callable[[str, object], None]
) -> None:
    body = BODIES[kind]()
    with answering(body, "gzip" if kind == "bomb" else "") as url:
        command = [sys.executable, "-c", MEASURE, url]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=200)
    most, kept, result = done.stdout.split(" ", 2)
    record_property("seen", f"{kind}: {most} MiB at most, {kept} MiB kept")
    assert int(most) <= 300, done.stdout
    assert int(kept) <= 60, done.stdout
    assert ("read" in result) == (kind == "20 MiB"), done.stdout


WARNED = b']},"warnings":["a store is down"]}'
RESULT = {"metric": {"uuid": "GPU-0", "x": 'ü\u2028"]}'}, "value": [1, "2.5"]}


def vector(results: list[Any], tail: bytes = b"]}}", ascii_: bool = False) -> HttpResponse:
    return HttpResponse(200, {}, HEAD % b"vector" + json.dumps(results, ensure_ascii=ascii_)[1:-1].encode() + tail)


@pytest.mark.parametrize("ascii_", [False, True])
@pytest.mark.parametrize("count", [0, 1, 2, 700])
def test_results_are_read_whatever_the_window_cuts(monkeypatch: pytest.MonkeyPatch, count: int, ascii_: bool) -> None:
    monkeypatch.setattr(response_parser, "_WINDOW_BYTES", 50)
    results = [{**RESULT, "metric": {**RESULT["metric"], "n": str(n)}} for n in range(count)]  # type: ignore[dict-item]
    found = read_vector(vector(results, ascii_=ascii_), "it")
    assert len(found) == count
    assert all(dict(labels)["x"] == 'ü\u2028"]}' for labels in found)


@pytest.mark.parametrize(
    "body",
    [
        HEAD % b"vector", HEAD % b"vector" + b'{"metric":{}', HEAD % b"vector" + b'{"metric":{},"value":[1,"1"]}]',
        HEAD % b"vector" + b'{"metric":{},"value":[1,"1"]}]}}garbage', HEAD % b"matrix" + b"]}}",
        HEAD % b"vector" + b"nonsense]}}", HEAD % b"vector" + b'{"metric":{},"value":[1,"1"]}]}' + b"\xff",
        HEAD % b"vector" + b"[" * 5000, HEAD % b"vector" + b'{"metric":{"a":"\xff"},"value":[1,"1"]}]}}', b"",
        HEAD % b"vector" + b'{"metric":{},"value":[1,"1"]},{"metric":{},"value":[1,"1"]}]}}',
        b'{"status":"error","data":{"resultType":"vector","result":[]}}',
    ],
)  # fmt: skip
def test_what_is_cut_off_or_no_result_is_an_error(body: bytes) -> None:
    with pytest.raises(SourceError):
        read_vector(HttpResponse(200, {}, body), "it")


def test_warnings_behind_the_results_count() -> None:
    with pytest.raises(SourceError, match="a store is down"):
        read_vector(vector([RESULT], WARNED), "it")


def test_series_and_samples_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response_parser, "MAX_SERIES", 3)
    monkeypatch.setattr(response_parser, "MAX_SAMPLES", 3)
    several = [{**RESULT, "metric": {"n": str(n)}} for n in range(4)]
    with pytest.raises(SourceError, match="more than 3 series"):
        read_vector(vector(several), "it")
    series = b'{"metric":{},"values":[[1,"1"],[2,"1"],[3,"1"],[4,"1"]]}]}}'
    with pytest.raises(SourceError, match="more than 3 samples"):
        read_matrix(HttpResponse(200, {}, HEAD % b"matrix" + series), "it")


@given(
    results=st.lists(
        st.tuples(st.text(max_size=8), st.floats(allow_nan=False)), max_size=20, unique_by=lambda each: each[0]
    ),
    window=st.integers(20, 200),
    indent=st.sampled_from([None, 1]),
)
def test_as_json_loads_reads_them(results: list[tuple[str, float]], window: int, indent: int | None) -> None:
    items = [{"metric": {"label": f"x{name}"}, "value": [1, repr(value)]} for name, value in results]
    document = {"status": "success", "data": {"resultType": "vector", "result": items}}
    before = response_parser._WINDOW_BYTES
    response_parser._WINDOW_BYTES = window
    try:
        found = read_vector(HttpResponse(200, {}, json.dumps(document, indent=indent).encode()), "it")
    finally:
        response_parser._WINDOW_BYTES = before
    assert found == {(("label", f"x{name}"),): value for name, value in results}
