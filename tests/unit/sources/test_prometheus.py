from __future__ import annotations

import json
import logging
import socket
import ssl
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler
from math import inf, nan
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from gpu_advisor.promql.expressions import Matcher, Selector
from gpu_advisor.sources.base import SourceError, SourceErrorKind
from gpu_advisor.sources.prometheus.connection import PrometheusClientConfig
from gpu_advisor.sources.prometheus.engine import Engine, EngineKind
from gpu_advisor.sources.prometheus.source import PrometheusSource

from tests.unit.sources.fake_http import Responder, fake_http, reply

UP = Selector("up")
SECRET = "s3cr3t-token"
ENGINE = Engine(EngineKind.PROMETHEUS_3)  # a known engine is not detected: the requests are those of the queries


def ok(result: Any = (), kind: str = "vector", **more: Any) -> Responder:
    return reply(200, json.dumps({"status": "success", "data": {"resultType": kind, "result": result}, **more}))


def item(value: str, **labels: str) -> dict[str, Any]:
    return {"metric": {"__name__": "up", **labels}, "value": [1700000000, value]}


def failure(answering: Responder, **settings: Any) -> SourceError:
    with fake_http(answering) as server:
        return failure_of(server.url, **settings)


def failure_of(url: str, **settings: Any) -> SourceError:
    source = PrometheusSource(PrometheusClientConfig(url, **{"timeout_seconds": 5, "retries": 0, **settings}), ENGINE)
    try:
        with pytest.raises(SourceError) as caught:
            source.instant({"x": UP}, 1700000000)
    finally:
        source.close()
    assert url.rstrip("/") in str(caught.value) or "cannot be asked" in str(caught.value)
    return caught.value


def error(status: int, kind: str, text: str) -> Responder:
    return reply(status, json.dumps({"status": "error", "errorType": kind, "error": text}))


def drip(handler: BaseHTTPRequestHandler, number: int) -> None:
    """One byte at a time, each well within a time limit for reading."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.05)


def drip_headers(handler: BaseHTTPRequestHandler, number: int) -> None:
    for byte in b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * 200:
        handler.wfile.write(bytes([byte]))
        handler.wfile.flush()
        time.sleep(0.05)


def drip_without_length(handler: BaseHTTPRequestHandler, number: int) -> None:
    """What was read before the end of the time is whole JSON: still not a complete answer."""
    handler.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n")
    handler.wfile.write(b'{"status":"success","data":{"resultType":"vector","result":[]}}')
    for _ in range(100):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.05)


def hang(handler: BaseHTTPRequestHandler, number: int) -> None:
    time.sleep(2)


def cut_off(handler: BaseHTTPRequestHandler, number: int) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"status":')
    handler.wfile.flush()
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


K = SourceErrorKind


@pytest.mark.parametrize(
    ("answering", "kind", "fix"),
    [
        pytest.param(reply(401, "no"), K.UNAUTHORIZED, "Set bearer_token", id="401"),
        pytest.param(reply(403, "no"), K.UNAUTHORIZED, "tenant header", id="403"),
        pytest.param(reply(407, "no"), K.UNAUTHORIZED, "HTTPS_PROXY", id="407"),
        pytest.param(reply(200, "<html>Log in</html>", "text/html"), K.BAD_RESPONSE, "login page", id="html"),
        pytest.param(reply(200, "  <!doctype html>", "text/plain"), K.BAD_RESPONSE, "login page", id="html-as-text"),
        pytest.param(
            reply(302, "", Location="https://sso.example/?state=hidden"),
            K.BAD_RESPONSE,
            "https://sso.example",
            id="302",
        ),
        pytest.param(reply(404, "404 page not found", "text/plain"), K.BAD_RESPONSE, "base URL", id="404"),
        pytest.param(reply(500, "oops"), K.BAD_RESPONSE, "500", id="500"),
        pytest.param(reply(429, "slow down"), K.UNREACHABLE, "less often", id="429"),
        pytest.param(reply(503, "Service Unavailable"), K.UNREACHABLE, "Is it running", id="503"),
        pytest.param(reply(200, "hello", "text/plain"), K.BAD_RESPONSE, "not JSON", id="text"),
        pytest.param(reply(200, b"\xff\xfe"), K.BAD_RESPONSE, "not JSON", id="not-utf8"),
        pytest.param(reply(200, "[" * 100_000), K.BAD_RESPONSE, "not JSON", id="nested"),
        pytest.param(reply(200, "[]"), K.BAD_RESPONSE, "status: success", id="list"),
        pytest.param(reply(200, '{"status":"success"}'), K.BAD_RESPONSE, "status: success", id="no-data"),
        pytest.param(
            reply(200, '{"status":"success","data":null}'), K.BAD_RESPONSE, "shape of a vector", id="null-data"
        ),
        pytest.param(ok(kind="matrix"), K.BAD_RESPONSE, "expected a vector", id="matrix"),
        pytest.param(ok([{"metric": {}}]), K.BAD_RESPONSE, "shape of a vector", id="no-value"),
        pytest.param(ok([{"value": [1, "1"]}]), K.BAD_RESPONSE, "shape of a vector", id="no-metric"),
        pytest.param(ok([item("many")]), K.BAD_RESPONSE, "shape of a vector", id="not-a-number"),
        pytest.param(
            ok([{"metric": {"a": 1}, "value": [1, "1"]}]), K.BAD_RESPONSE, "shape of a vector", id="bad-label"
        ),
        pytest.param(ok([item("1"), item("2")]), K.BAD_RESPONSE, "same labels", id="duplicates"),
        pytest.param(error(400, "bad_data", "parse error"), K.QUERY_ERROR, "Fix the PromQL", id="bad-query"),
        pytest.param(error(422, "execution", "many-to-many"), K.QUERY_ERROR, "many-to-many", id="422"),
        pytest.param(
            error(422, "422", "too long query; got 20000 bytes; mustn't exceed `-search.maxQueryLen=16384` bytes"),
            K.QUERY_ERROR,
            "Raise -search.maxQueryLen there.",
            id="victoria-limit",
        ),
        pytest.param(
            error(422, "execution", "query processing would load too many samples into memory in query execution"),
            K.QUERY_ERROR,
            "Raise --query.max-samples there.",
            id="sample-limit",
        ),
        pytest.param(error(503, "timeout", "query timed out"), K.TIMEOUT, "--query.timeout", id="query-timeout"),
        pytest.param(error(503, "unavailable", "TSDB not ready"), K.UNREACHABLE, "not ready", id="not-ready"),
        pytest.param(ok(warnings=["store-3 is away"]), K.PARTIAL, "store-3 is away", id="warnings"),
        pytest.param(
            ok(warnings=["PromQL info: not a counter", "store-3 is away"]), K.PARTIAL, ": store-3 is away", id="mixed"
        ),
        pytest.param(ok(warnings=["PromQL warning: x"]), K.PARTIAL, "PromQL warning: x", id="promql-warning"),
        pytest.param(ok(warnings="store-3 is away"), K.PARTIAL, "store-3 is away", id="warnings-as-text"),
        pytest.param(ok(isPartial=True), K.PARTIAL, "isPartial", id="victoria-partial"),
        pytest.param(cut_off, K.UNREACHABLE, "Check that it is running", id="cut-off"),
    ],
)
def test_failures(answering: Responder, kind: SourceErrorKind, fix: str):
    caught = failure(answering)
    assert caught.kind is kind
    assert fix in str(caught)
    assert "hidden" not in str(caught)


@pytest.mark.parametrize("answering", [drip, drip_headers, drip_without_length, hang])
def test_timeout_is_over_all_of_it(answering: Responder):
    caught = failure(answering, timeout_seconds=0.4)
    assert caught.kind is K.TIMEOUT
    assert "timeout_seconds" in str(caught)


def test_a_cut_off_thread_is_free_again():
    """Five queries that drip, two at a time: were the threads still stuck, the later ones would not come to it."""
    with fake_http(lambda handler, number: drip(handler, number) if number < 4 else ok()(handler, number)) as server:
        source = PrometheusSource(PrometheusClientConfig(server.url, timeout_seconds=0.2, retries=0), ENGINE)
        for _ in range(4):
            with pytest.raises(SourceError, match="timeout_seconds"):
                source.instant({"x": UP}, 0)
        assert source.instant({"x": UP}, 0) == {"x": {}}
        source.close()


def test_unreachable():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening
        caught = failure_of(f"http://127.0.0.1:{taken.getsockname()[1]}")
    assert caught.kind is K.UNREACHABLE
    assert "Connection refused" in str(caught)
    assert "port" in str(caught)


def test_unknown_host(monkeypatch: pytest.MonkeyPatch):
    def fail(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    caught = failure_of("http://prometheus.nowhere:9090", retries=0)
    assert caught.kind is K.UNREACHABLE
    assert "unknown host name" in str(caught)


def test_name_lookup_that_hangs(monkeypatch: pytest.MonkeyPatch):
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait(10) and [])
    try:
        caught = failure_of("http://slow-dns:9090", timeout_seconds=0.1)
    finally:
        over.set()
    assert caught.kind is K.TIMEOUT


@pytest.mark.filterwarnings("ignore:Unverified HTTPS")
def test_tls_certificate(tmp_path: Path):
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    command += f" -addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {certificate}"
    subprocess.run(command.split(), check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with fake_http(
        lambda handler, number: drip(handler, number) if number == 2 else ok()(handler, number), context
    ) as server:
        url = server.url.replace("http:", "https:")
        caught = failure_of(url)
        assert caught.kind is K.UNREACHABLE
        assert "ca_file" in str(caught)
        assert "self-signed" in str(caught) or "self signed" in str(caught)
        for trusted in ({"ca_file": str(certificate)}, {"insecure_skip_verify": True}):
            source = PrometheusSource(PrometheusClientConfig(url, **trusted), ENGINE)
            assert source.instant({"x": UP}, 0) == {"x": {}}
            source.close()
        assert failure_of(url, insecure_skip_verify=True, timeout_seconds=0.3).kind is K.TIMEOUT  # drips through TLS
        caught = failure_of(url, ca_file=str(tmp_path / "nothing.pem"))
        assert caught.kind is K.UNREACHABLE
        assert "ca_file" in str(caught)
    with fake_http(ok()) as plain:
        caught = failure_of(plain.url.replace("http:", "https:"))
        assert caught.kind is K.UNREACHABLE
        assert "does not use TLS" in str(caught)


def test_answers():
    result = [item("1", b="2", a="1", empty=""), item("NaN", a="2"), item("+Inf", a="3"), item("-0.5e-3", a="4")]
    with fake_http(ok(result, infos=["not a counter"], warnings=[])) as server:
        source = PrometheusSource(PrometheusClientConfig(server.url + "/prometheus/"), ENGINE)
        answer = source.instant({"x": UP}, 1700000000.567)
        source.close()
    wanted = {(("a", "1"), ("b", "2")): 1.0, (("a", "2"),): nan, (("a", "3"),): inf, (("a", "4"),): -0.0005}
    assert answer["x"] == pytest.approx(wanted, nan_ok=True)
    (request,) = server.requests
    assert (request.method, request.path) == ("POST", "/prometheus/api/v1/query")
    assert parse_qs(request.body.decode()) == {
        "query": ["up"],
        "time": ["2023-11-14T22:13:20.567Z"],
        "timeout": ["30000ms"],
    }


def test_hints_on_the_style_of_a_query_are_no_partial_result():
    """Prometheus up to 2.53 has them among the warnings."""
    hint = 'PromQL info: metric might not be a counter, name does not end in _total/_sum/_count/_bucket: "c" (1:10)'
    with fake_http(ok([item("1")], warnings=[hint])) as server:
        source = PrometheusSource(PrometheusClientConfig(server.url), ENGINE)
        assert source.instant({"x": UP}, 0) == {"x": {(): 1.0}}
        source.close()


def test_range():
    series = {"metric": {"a": "1"}, "values": [[1.5, "1"], [2.5, "NaN"], [3.5, "3"]]}
    with fake_http(ok([series, {"metric": {"a": "2"}, "values": [[1, "NaN"]]}], kind="matrix")) as server:
        source = PrometheusSource(PrometheusClientConfig(server.url), ENGINE)
        assert source.range(UP, 1.5, 3.5, 0.5) == {(("a", "1"),): ((1.5, 1.0), (3.5, 3.0))}
        source.close()
    form = parse_qs(server.requests[0].body.decode())
    assert server.requests[0].path == "/api/v1/query_range"
    assert form["start"] == ["1970-01-01T00:00:01.500Z"]
    assert form["step"] == ["500ms"]


def test_at_most_two_in_flight():
    lock, now, most = threading.Lock(), 0, 0

    def slow(handler: BaseHTTPRequestHandler, number: int) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.03)
        with lock:
            now -= 1
        ok([item(str(number))])(handler, number)

    with fake_http(slow) as server:
        source = PrometheusSource(PrometheusClientConfig(server.url), ENGINE)
        answers = source.instant({str(number): Selector(f"x{number}") for number in range(8)}, 0)
        source.close()
    assert most == 2
    assert list(answers) == [str(number) for number in range(8)]
    assert sorted(next(iter(vector.values())) for vector in answers.values()) == list(range(8))


def test_one_failure_is_the_whole_failure():
    def second_fails(handler: BaseHTTPRequestHandler, number: int) -> None:
        (error(400, "bad_data", "no") if number == 1 else ok())(handler, number)

    with fake_http(second_fails) as server:
        source = PrometheusSource(PrometheusClientConfig(server.url), ENGINE)
        with pytest.raises(SourceError) as caught:
            source.instant({str(number): UP for number in range(50)}, 0)
        source.close()
    assert caught.value.kind is K.QUERY_ERROR
    assert len(server.requests) < 50  # the rest is not asked


@pytest.mark.parametrize("status", [502, 503, 504])
def test_retries(status: int):
    with fake_http(
        lambda handler, number: (reply(status, "x") if number < 2 else ok([item("1")]))(handler, number)
    ) as server:
        source = PrometheusSource(PrometheusClientConfig(server.url, retries=2), ENGINE)
        assert source.instant({"x": UP}, 0) == {"x": {(): 1.0}}
        source.close()
    assert len(server.requests) == 3


def test_retry_after_a_broken_connection():
    def first_breaks(handler: BaseHTTPRequestHandler, number: int) -> None:
        if number == 0:
            handler.close_connection = True
        else:
            ok()(handler, number)

    with fake_http(first_breaks) as server:
        source = PrometheusSource(PrometheusClientConfig(server.url, retries=1), ENGINE)
        assert source.instant({"x": UP}, 0) == {"x": {}}
        source.close()


@pytest.mark.parametrize(
    "answering", [reply(500, "x"), reply(401, "x"), error(503, "timeout", "x"), error(400, "bad_data", "x")]
)
def test_no_retry(answering: Responder):
    with fake_http(answering) as server:
        failure_of(server.url, retries=3)
    assert len(server.requests) == 1


def test_retries_end_with_the_time():
    with fake_http(reply(503, "x")) as server:
        caught = failure_of(server.url, retries=100, timeout_seconds=1)
    assert caught.kind is K.UNREACHABLE
    assert len(server.requests) < 100


@pytest.mark.parametrize(
    ("settings", "header"),
    [
        ({"bearer_token": SECRET + "\n"}, f"Bearer {SECRET}"),
        ({"username": "me", "password": "pä"}, "Basic bWU6cMOk"),
        ({}, None),
    ],
)
def test_credentials(settings: dict[str, Any], header: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login other password other\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    with fake_http(ok()) as server:
        source = PrometheusSource(
            PrometheusClientConfig(server.url, headers={"X-Scope-OrgID": "team"}, **settings), ENGINE
        )
        source.instant({"x": UP}, 0)
        source.close()
    assert server.requests[0].headers.get("Authorization") == header
    assert server.requests[0].headers["X-Scope-OrgID"] == "team"


def test_secrets_stay_inside(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    for secret in ({"bearer_token": SECRET}, {"username": "me", "password": SECRET}, {"headers": {"X-Key": SECRET}}):
        settings = PrometheusClientConfig("http://127.0.0.1:9", **secret)
        source = PrometheusSource(settings, ENGINE)
        assert SECRET not in repr(settings) + repr(source) + repr(vars(source)) + source.address
        assert SECRET not in str(failure(reply(401, SECRET), **secret))
        source.close()
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    ("settings", "fix"),
    [
        ({"url": "localhost:9090"}, "http://"),
        ({"url": "http://"}, "http://"),
        ({"url": f"http://h/?token={SECRET}"}, "nothing after the path"),
        ({"url": f"http://me:{SECRET}@h"}, "set username and password"),
        ({"bearer_token": "x", "username": "y"}, "not both"),
        ({"password": SECRET}, "username"),
        ({"key_file": "k"}, "cert_file"),
        ({"bearer_token": SECRET + "\nx"}, "right file"),
        ({"headers": {"X": SECRET + "\r\nInjected: 1"}}, "not allowed in HTTP"),
        ({"timeout_seconds": 0}, "greater than 0"),
        ({"retries": -1}, "retries"),
    ],
)
def test_refused_settings(settings: dict[str, Any], fix: str):
    with pytest.raises(ValueError) as caught:
        PrometheusClientConfig(**{"url": "http://h:9090", **settings})
    assert fix in str(caught.value)
    assert SECRET not in str(caught.value)


def test_what_promql_cannot_say():
    caught = failure_of("http://127.0.0.1:9")
    source = PrometheusSource(PrometheusClientConfig("http://127.0.0.1:9"), ENGINE)
    with pytest.raises(SourceError) as refused:
        source.instant({"x": Selector("x", matchers=(Matcher("a", "=", "\ud800"),))}, 0)
    source.close()
    assert caught.kind is K.UNREACHABLE
    assert refused.value.kind is K.QUERY_ERROR
