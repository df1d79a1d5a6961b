from __future__ import annotations

import contextlib
import logging
import re
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from gpu_advisor.sources.embedded.history import History
from gpu_advisor.sources.embedded.openmetrics_import import OpenMetricsError, import_openmetrics
from gpu_advisor.sources.embedded.scraper import Scraper, ScrapeTarget, _parse_exposition, _ScrapeError
from gpu_advisor.sources.prometheus.http_client import HttpResponse
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.polling import wait_until
from tests.unit.sources.fake_http import Responder, fake_http, reply

T = 1_700_000_000.0
TEXT = "text/plain; version=0.0.4"
PAGE = """# HELP gpu_up Whether the GPU answers.
# TYPE gpu_up gauge
gpu_up{uuid="A"} 1
gpu_up{uuid="B",job="training",note=""} 0
# TYPE gpu_busy_seconds_total counter
gpu_busy_seconds_total{uuid="A"} 12.5 1600000000000
gpu_other 1
"""


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    with_file = History(tmp_path / "h.db")
    yield with_file
    with_file.close()


def newest(history: History, metric: str) -> dict[tuple[tuple[str, str], ...], float]:
    return {series.labels: float(series.values[-1]) for series in history.read(metric, (), 0, 1e11)}


def test_a_scrape(history: History):
    with fake_http(reply(200, PAGE, TEXT)) as exporter:
        scraper = Scraper(history, [exporter.address], 5, {"gpu_up", "gpu_busy_seconds_total"}, clock=lambda: T)
        scraper.scrape_all()
    target = (("instance", exporter.address), ("job", "gpu-exporter"))
    assert newest(history, "gpu_up") == {
        (*target, ("uuid", "A")): 1,
        (("exported_job", "training"), *target, ("uuid", "B")): 0,
    }
    assert newest(history, "gpu_busy_seconds_total") == {(*target, ("uuid", "A")): 12.5}
    assert newest(history, "gpu_other") == {}
    assert newest(history, "up") == {target: 1}
    assert 0 < newest(history, "scrape_duration_seconds")[target] < 5
    assert history.span() == (T, T)  # one time for all, whatever the text says


def slow(handler: BaseHTTPRequestHandler, number: int) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", TEXT)
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(b"# slow\n")
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("answering", "message"),
    [
        pytest.param(reply(500, "x"), "HTTP status 500", id="500"),
        pytest.param(reply(401, "x"), "without a password", id="401"),
        pytest.param(reply(302, "", Location="/login"), "HTTP status 302", id="redirect"),
        pytest.param(reply(200, "<html>log in</html>", "text/html"), "not in Prometheus' text format", id="html"),
        pytest.param(reply(200, PAGE + 'gpu_up{uuid="C', TEXT), "not in Prometheus' text format", id="half"),
        pytest.param(reply(200, PAGE + "gpu_up x\n", TEXT), "not in Prometheus' text format", id="no-number"),
        pytest.param(reply(200, b"\xff\xfe", TEXT), "not in Prometheus' text format", id="not-utf8"),
        pytest.param(reply(200, PAGE * 100, TEXT), "larger than 4096 bytes", id="large"),
        pytest.param(slow, "within 0.3 s", id="slow"),
    ],
)
def test_failed_scrapes(history: History, caplog: pytest.LogCaptureFixture, answering: Responder, message: str):
    answers = [reply(200, PAGE, TEXT), answering, answering, reply(200, PAGE, TEXT)]
    times = iter([T, T + 5, T + 10, T + 15])
    caplog.set_level(logging.INFO)
    with fake_http(lambda handler, number: answers[number](handler, number)) as exporter:
        scraper = Scraper(
            history, [exporter.address], 0.3, lambda name: True, max_body_bytes=4096, clock=lambda: next(times)
        )
        for _ in range(4):
            scraper.scrape_all()
    (up,) = history.read("up", (), T, T + 15)
    assert up.values.tolist() == [1, 0, 0, 1]
    series = {dict(labels)["uuid"]: values for labels, values in sample_values(history, "gpu_up").items()}
    assert series == {"A": [1, None, 1], "B": [0, None, 0]}  # nothing invented, and marked as ended once
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1  # not with every scrape
    assert message in warnings[0]
    assert exporter.address in warnings[0]
    assert any("works again" in record.message for record in caplog.records)


def sample_values(history: History, metric: str) -> dict[tuple[tuple[str, str], ...], list[float | None]]:
    return {
        series.labels: [None if value != value else value for value in series.values.tolist()]
        for series in history.read(metric, (), 0, 1e11)
    }


def test_one_bad_target_does_not_hold_the_others(history: History):
    with fake_http(slow) as bad, fake_http(reply(200, PAGE, TEXT)) as good:
        scraper = Scraper(history, ["127.0.0.1:9", bad.address, good.address], 0.2, {"gpu_up"})
        scraper.start()
        wait_until(lambda: len(good.requests) >= 5, "five scrapes of the good target")
        scraper.stop()
        after = len(good.requests)
        time.sleep(0.3)
        assert len(good.requests) == after  # stopped is stopped
    up = {dict(labels)["instance"]: values for labels, values in sample_values(history, "up").items()}
    assert set(up["127.0.0.1:9"]) == set(up[bad.address]) == {0}
    assert set(up[good.address]) == {1}
    assert len(up[good.address]) >= 5


def test_scrapes_are_at_multiples_of_the_interval(history: History, monkeypatch: pytest.MonkeyPatch):
    scraper = Scraper(history, ["127.0.0.1:9"], 5, {"gpu_up"}, clock=lambda: T + 1.25)
    waits: list[float] = []

    def stop(seconds: float) -> None:
        waits.append(seconds)
        scraper._stop.set()

    monkeypatch.setattr(scraper._stop, "wait", stop)
    scraper.start()
    scraper._threads[0].join(60)
    assert waits == [3.75]


def test_a_history_that_cannot_store_is_reported_and_does_not_end_the_scraper(
    history: History, caplog: pytest.LogCaptureFixture
):
    with fake_http(reply(200, PAGE, TEXT)) as exporter:
        times = iter([T, T - 3, T + 5])
        scraper = Scraper(history, [exporter.address], 5, {"gpu_up"}, clock=lambda: next(times))
        for _ in range(3):
            scraper.scrape_all()
    assert [record.message for record in caplog.records if "clock went back" in record.message]
    assert [len(values) for values in sample_values(history, "gpu_up").values()] == [2, 2]


@pytest.mark.parametrize(
    ("address", "url", "instance"),
    [
        ("node-1:9400", "http://node-1:9400/metrics", "node-1:9400"),
        ("http://node-1:9400/", "http://node-1:9400/metrics", "node-1:9400"),
        ("https://node-1/probe", "https://node-1/probe", "node-1:443"),
        ("node-1", "http://node-1/metrics", "node-1:80"),
        ("[::1]:9400", "http://[::1]:9400/metrics", "[::1]:9400"),
    ],
)
def test_target(address: str, url: str, instance: str):
    assert (ScrapeTarget(address).url, ScrapeTarget(address).instance) == (url, instance)


@pytest.mark.parametrize("address", ["", "ftp://h/x", "h:port", "h:0", "h:99999", "[::1", "http://:1"])
def test_refused_target(address: str):
    with pytest.raises(ValueError, match=re.escape(f"{address!r} is no target: write host:port")):
        ScrapeTarget(address)


def test_a_target_with_a_password_is_refused_without_it():
    with pytest.raises(ValueError, match="no user and password") as refused:
        ScrapeTarget("http://me:pw@h:1")
    assert "pw" not in str(refused.value)


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet='gx_{}"=\\,# \n1.eNaI+-é', max_size=40) | st.text() | st.binary())
def test_any_body_is_read_or_refused(body: str | bytes):
    data = body if isinstance(body, bytes) else body.encode("utf-8", "replace")
    for kind in (TEXT, "application/openmetrics-text"):
        with contextlib.suppress(_ScrapeError):
            _parse_exposition(HttpResponse(200, {"Content-Type": kind}, data))


# --- a past in OpenMetrics text


def test_import(history: History):
    lines = [
        "# TYPE gpu_busy_seconds counter\n",
        'gpu_busy_seconds_total{uuid="A",note="a b } 1 2"} 1.5 1700000000.25\n',
        'gpu_busy_seconds_total{uuid="A",note="a b } 1 2"} 2.5 1700000005.25 # {trace="x"} 1 1700000005\n',
        'gpu_busy_seconds_total{uuid="q\\"\\\\\\n"} 3 1700000000\n',
        "\n",
        "plain NaN 1700000000",
        'mine{instance="other"}  4   1700000000  \n',
        "# EOF\n",
    ]
    assert import_openmetrics(history, lines, "n:1") == 5
    target = (("instance", "n:1"), ("job", "gpu-exporter"))
    assert sample_values(history, "gpu_busy_seconds_total") == {
        (*target, ("note", "a b } 1 2"), ("uuid", "A")): [1.5, 2.5],
        (*target, ("uuid", 'q"\\\n')): [3],
    }
    assert sample_values(history, "plain") == {target: [None]}
    assert sample_values(history, "mine") == {(("exported_instance", "other"), *target): [4]}
    assert import_openmetrics(history, lines, "n:1") == 5
    assert sample_values(history, "mine") == {(("exported_instance", "other"), *target): [4]}


@pytest.mark.parametrize(
    "line",
    [
        "x 1",
        "x 1 2 3",
        'x{a="1 2 3',
        "x",
        "x one 2",
        "x 1 two",
        'x{a="b"}y 1 2',
        'x{a="1} 2 3',
        "1x 1 2",
        "{} 1 2",
        'x{a="b" 1 2',
    ],
)
def test_import_names_the_bad_line(history: History, line: str):
    with pytest.raises(OpenMetricsError, match="line 2 "):
        import_openmetrics(history, ["good 1 1700000000\n", line + "\n"], "n:1")


def test_import_then_scrape_is_one_series(history: History):
    with fake_http(reply(200, PAGE, TEXT)) as exporter:
        import_openmetrics(history, ['gpu_up{uuid="A"} 0 1699999995\n'], exporter.address)
        Scraper(history, [exporter.address], 5, {"gpu_up"}, clock=lambda: T).scrape_all()
    found = {dict(s.labels)["uuid"]: s.values.tolist() for s in history.read("gpu_up", (), 0, T)}
    assert found == {"A": [0, 1], "B": [0]}
