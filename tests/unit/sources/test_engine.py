"""Which engine a server has is found by what it answers, not by what it calls itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs

import pytest
from gpu_advisor.promql.expressions import Matcher, Selector
from gpu_advisor.sources.base import SourceError, SourceErrorKind
from gpu_advisor.sources.counting import count_queries
from gpu_advisor.sources.prometheus.connection import PrometheusClientConfig
from gpu_advisor.sources.prometheus.engine import NAN_PROBE, WINDOW_PROBE, Engine, EngineKind
from gpu_advisor.sources.prometheus.source import PrometheusSource

from tests.unit.sources.fake_http import FakeServer, ReceivedRequest, Responder, fake_http, reply

PROMETHEUS_2, PROMETHEUS_3, VICTORIAMETRICS = EngineKind
REFUSED = reply(400, '{"status":"error","errorType":"bad_data","error":"parse error"}')
NOT_FOUND = reply(404, "404 page not found", "text/plain")
AT = 1_700_000_000.0


def success(data: Any) -> Responder:
    return reply(200, json.dumps({"status": "success", "data": data}))


def vector(*values: int) -> Responder:
    return success({"resultType": "vector", "result": [{"metric": {}, "value": [AT, str(value)]} for value in values]})


def form(request: ReceivedRequest) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(request.body.decode()).items()}


@contextmanager
def served(
    build_info: Responder,
    windows: Responder,
    counted_nan: Responder,
    query: Callable[[FakeServer], Responder] = lambda _: vector(1),
) -> Iterator[tuple[PrometheusSource, FakeServer]]:
    """A server with these answers to the request for its version, to both probes, and to any other query."""

    def responder(request: ReceivedRequest) -> Responder:
        if "buildinfo" in request.path:
            return build_info
        return {WINDOW_PROBE: windows, NAN_PROBE: counted_nan}.get(form(request)["query"]) or query(server)

    with fake_http(lambda handler, number: responder(server.requests[number])(handler, number)) as server:
        source = PrometheusSource(PrometheusClientConfig(server.url, retries=0))
        yield source, server
        source.close()


@pytest.mark.parametrize(
    ("build_info", "windows", "counted_nan", "engine"),
    [
        pytest.param(
            success({"version": "2.42.0+ds"}), vector(3), vector(1),
            Engine(PROMETHEUS_2, "Prometheus", "2.42.0+ds"), id="prometheus-2.42",
        ),
        pytest.param(
            success({"version": "3.5.3"}), vector(2), vector(1),
            Engine(PROMETHEUS_3, "Prometheus", "3.5.3"), id="prometheus-3.5",
        ),
        pytest.param(
            success({"version": "2.24.0"}), vector(2), vector(),
            Engine(VICTORIAMETRICS, "VictoriaMetrics"), id="victoriametrics-1.145",
        ),
        pytest.param(
            success({}), vector(2), vector(), Engine(VICTORIAMETRICS, "VictoriaMetrics"), id="victoriametrics-1.79"
        ),
        pytest.param(
            success({"version": "0.34.1", "branch": "HEAD"}), vector(3), vector(1),
            Engine(PROMETHEUS_2, "Thanos", "0.34.1"), id="thanos-of-prometheus-2",
        ),
        pytest.param(
            success({"version": "0.39.2", "branch": "HEAD"}), vector(2), vector(1),
            Engine(PROMETHEUS_3, "Thanos", "0.39.2"), id="thanos-of-prometheus-3",
        ),
        pytest.param(
            success({"application": "Grafana Mimir", "version": "2.10.0", "features": {}}), vector(3), vector(1),
            Engine(PROMETHEUS_2, "Grafana Mimir", "2.10.0"), id="mimir",
        ),
        pytest.param(NOT_FOUND, vector(3), vector(1), Engine(PROMETHEUS_2), id="no-version"),
        pytest.param(reply(403, "queries only"), vector(2), vector(1), Engine(PROMETHEUS_3), id="queries-only"),
        pytest.param(success([]), vector(2), vector(1), Engine(PROMETHEUS_3), id="odd-version"),
        pytest.param(
            success({"version": "2.30.3"}), REFUSED, REFUSED,
            Engine(PROMETHEUS_2, "Prometheus", "2.30.3"), id="no-subqueries",
        ),
        pytest.param(success({"version": "3.1.0"}), vector(7), vector(1),
            Engine(PROMETHEUS_3, "Prometheus", "3.1.0"), id="odd-probe"),
        pytest.param(NOT_FOUND, NOT_FOUND, NOT_FOUND, Engine(PROMETHEUS_3), id="nothing-known"),
    ],
)  # fmt: skip
def test_engines(build_info: Responder, windows: Responder, counted_nan: Responder, engine: Engine) -> None:
    with served(build_info, windows, counted_nan) as (source, server):
        assert source.engine() == engine
        assert source.instant({"x": Selector("up")}, AT) == {"x": {(): 1.0}}
        assert len(server.requests) == 4  # detected once
        probe = next(form(each) for each in server.requests if each.body and form(each)["query"] == WINDOW_PROBE)
        assert probe["time"].endswith(":00.000Z")  # otherwise the start of the window is between two results


@pytest.mark.parametrize("status", [401, 403])
def test_a_server_that_refuses_all_is_no_unknown_engine(status: int) -> None:
    no = reply(status, "no")
    with served(no, no, no) as (source, _), pytest.raises(SourceError) as caught:
        source.engine()
    assert caught.value.kind is SourceErrorKind.UNAUTHORIZED


def test_the_engine_is_detected_again_after_the_server_was_away() -> None:
    """It may have been upgraded."""
    down = reply(503, "starting")
    with served(success({"version": "2.53.0"}), vector(3), vector(1), lambda _: down) as (source, server):
        for _ in range(2):
            with pytest.raises(SourceError, match="503"):
                source.instant({"x": Selector("up")}, AT)
        assert [each.path for each in server.requests].count("/api/v1/status/buildinfo") == 2


@pytest.mark.parametrize(
    ("kind", "windows", "counted_nan", "more"),
    [
        (PROMETHEUS_2, vector(3), vector(1), {"query": 'rate(x_total{a=~"(?s:b.*)"}[1m])'}),
        (PROMETHEUS_3, vector(2), vector(1), {"query": 'rate(x_total{a=~"b.*"}[1m])'}),
        (VICTORIAMETRICS, vector(2), vector(), {"nocache": "1", "time": "2023-11-14T22:13:20.0002Z"}),
    ],
)
def test_queries_are_written_for_the_engine(
    kind: EngineKind, windows: Responder, counted_nan: Responder, more: dict[str, str]
) -> None:
    rate = Selector("x_total", "rate", 60, matchers=(Matcher("a", "=~", "b.*"),))
    with served(success({}), windows, counted_nan) as (source, server):
        source.instant({"x": rate}, AT)
        assert source.engine().kind is kind
        assert form(server.requests[-1]).items() >= more.items()
        assert count_queries(source).query_language() is source.query_language()  # type: ignore[attr-defined]
    if kind is VICTORIAMETRICS:
        assert 'extrapolated_rate(x_total{a=~"(?s:b.*)"}[1m], 60, time())' in form(server.requests[-1])["query"]


def test_a_nan_of_victoriametrics_is_a_staleness_marker() -> None:
    series = {"metric": {"__name__": "x"}, "values": [[AT, "1"], [AT + 15, "NaN"]]}
    matrix = success({"resultType": "matrix", "result": [series]})
    for windows, counted_nan, samples in ((vector(2), vector(1), 2), (vector(2), vector(), 1)):
        with served(success({}), windows, counted_nan, lambda _: matrix) as (source, _):
            times, values = source.samples({"x": Selector("x", "count", 60)}, AT + 20)["x"][()]
            assert times.size == values.size == samples
