"""Answers of Thanos, Mimir and VictoriaMetrics, which have more in them than those of Prometheus."""

from __future__ import annotations

import pytest
from gpu_advisor.promql.expressions import Labels, Selector
from gpu_advisor.sources.base import Samples, SourceError, SourceErrorKind
from gpu_advisor.sources.prometheus.connection import PrometheusClientConfig
from gpu_advisor.sources.prometheus.engine import Engine, EngineKind
from gpu_advisor.sources.prometheus.source import PrometheusSource

from tests.unit.sources.fake_http import Responder, fake_http, reply

UP, AT = Selector("up"), 1_700_000_000.0
BY_KIND = {"vector": '"value":[1700000000,"1"]', "matrix": '"values":[[1699999985,"0"],[1700000000,"1"]]'}
#: What surrounds the results, of the type KIND.
SHAPES = {
    "prometheus": '{"status":"success","data":{"resultType":"KIND","result":RESULTS}}',
    "prometheus-3": '{"status":"success","data":{"resultType":"KIND","result":RESULTS},"infos":["PromQL info: \\"x"]}',
    "thanos": '{"status":"success","data":{"resultType":"KIND","result":RESULTS,"analysis":{}}}\n',
    "thanos-stats": '{"status":"success","data":{"resultType":"KIND","result":RESULTS,"stats":{"timings":{}}}}',
    "mimir": '{"status":"success","data":{"resultType":"KIND","result":RESULTS},"warnings":[]}',
    "victoriametrics-cluster": '{"status":"success","isPartial":false,"data":{"resultType":"KIND","result":RESULTS},'
    '"stats":{"seriesFetched": "2","executionTimeMsec":3}}',
}
LABELS: list[Labels] = [(("cluster", "a"), ("replica", replica)) for replica in "12"]


def answer(shape: str, kind: str, **more: str) -> Responder:
    """Two replicas of one series."""
    results = [
        f'{{"metric":{{"__name__":"up","cluster":"a","replica":"{replica}"}},{BY_KIND[kind]}}}' for replica in "12"
    ]
    return reply(200, SHAPES[shape].replace("KIND", kind).replace("RESULTS", f"[{','.join(results)}]"))


@pytest.mark.parametrize("shape", SHAPES)
def test_results_are_read(shape: str) -> None:
    with fake_http(answer(shape, "vector")) as server:
        source = source_of(server.url)
        assert source.instant({"x": UP}, AT) == {"x": dict.fromkeys(LABELS, 1.0)}
        source.close()
    with fake_http(answer(shape, "matrix")) as server:
        source = source_of(server.url)
        assert source.range(UP, AT - 15, AT, 15) == dict.fromkeys(LABELS, ((AT - 15, 0.0), (AT, 1.0)))
        raw = source.samples({"x": Selector("up", "count", 60)}, AT)["x"]
        assert [plain(raw[labels]) for labels in LABELS] == [[(1_699_999_985_000, 0.0), (1_700_000_000_000, 1.0)]] * 2
        source.close()


def test_native_histograms_have_no_value_and_spoil_no_other() -> None:
    """A query may select them besides: a name that was a counter's is a histogram's after an upgrade."""
    whole = '{"count":"3","sum":"1.5","buckets":[[0,"0.5","1","3"]]}'
    name = '{"metric":{"__name__":"up","cluster":"a","replica":"0"},'
    for kind, histogram in (
        ("vector", f'"histogram":[1700000000,{whole}]'), ("matrix", f'"histograms":[[1700000000,{whole}]]')
    ):  # fmt: skip
        results = ",".join(
            f'{{"metric":{{"__name__":"up","cluster":"a","replica":"{replica}"}},{BY_KIND[kind]}}}' for replica in "12"
        )
        for every in (f"{name}{histogram}}},{results}", f"{results},{name}{histogram}}}"):
            body = SHAPES["prometheus-3"].replace("KIND", kind).replace("RESULTS", f"[{every}]")
            with fake_http(reply(200, body)) as server:
                source = source_of(server.url)
                if kind == "vector":
                    assert source.instant({"x": UP}, AT) == {"x": dict.fromkeys(LABELS, 1.0)}
                else:
                    assert set(source.range(UP, AT - 15, AT, 15)) == set(LABELS)
                    assert set(source.samples({"x": Selector("up", "count", 60)}, AT)["x"]) == set(LABELS)
                source.close()


def plain(samples: Samples) -> list[tuple[int, float]]:
    return list(zip(samples[0].tolist(), samples[1].tolist(), strict=True))


def source_of(url: str) -> PrometheusSource:
    return PrometheusSource(PrometheusClientConfig(url, retries=0), Engine(EngineKind.PROMETHEUS_3))


@pytest.mark.parametrize(
    ("answering", "kind", "says"),
    [
        pytest.param(
            reply(200, '{"status":"success","data":{"resultType":"vector","result":[]},"warnings":["receive series from'
                  ' Addr: 10.0.0.5:10901 MinTime: 1: rpc error: code = Unavailable"]}'),
            SourceErrorKind.PARTIAL, "10.0.0.5:10901", id="thanos-store-away",
        ),
        pytest.param(
            reply(200, '{"status":"success","isPartial":true,"data":{"resultType":"vector","result":[]}}'),
            SourceErrorKind.PARTIAL, "isPartial", id="vmstorage-away",
        ),
        pytest.param(
            reply(503, '{"status":"error","errorType":"503","error":"cannot fetch results from vmstorage nodes"}'),
            SourceErrorKind.UNREACHABLE, "vmstorage", id="all-vmstorage-away",
        ),
        pytest.param(
            reply(429, '{"status":"error","errorType":"too_many_requests","error":"too many outstanding requests"}',
                  **{"Retry-After": "30"}),
            SourceErrorKind.UNREACHABLE, "Too Many Requests and asks to wait 30 s. Query less often",
            id="mimir-queue-full",
        ),
        pytest.param(
            reply(429, "slow down", "text/plain", **{"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}),
            SourceErrorKind.UNREACHABLE, "Too Many Requests. Query less often", id="retry-after-a-date",
        ),
        pytest.param(
            reply(401, "no org id", "text/plain"), SourceErrorKind.UNAUTHORIZED, "X-Scope-OrgID", id="mimir-tenant"
        ),
        pytest.param(
            reply(422, '{"status":"error","errorType":"execution","error":"the query exceeded the maximum number of'
                  ' chunks (limit: 2000000 chunks) (err-mimir-max-chunks-per-query). Consider reducing the time range'
                  ' and/or number of series selected by the query. One way to reduce the number of selected series is'
                  ' to add more label matchers to the query. Otherwise, to adjust the related per-tenant limit,'
                  ' configure'
                  ' -querier.max-fetched-chunks-per-query, or contact your service administrator."}'),
            SourceErrorKind.QUERY_ERROR, "Raise -querier.max-fetched-chunks-per-query there", id="mimir-limit",
        ),
    ],
)  # fmt: skip
def test_failures(answering: Responder, kind: SourceErrorKind, says: str) -> None:
    with fake_http(answering) as server, pytest.raises(SourceError) as caught:
        source_of(server.url).instant({"x": UP}, AT)
    assert caught.value.kind is kind
    assert says in str(caught.value)
