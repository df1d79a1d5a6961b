"""A running advisor's report: the API in all formats, and the command that asks it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests
from gpu_advisor.observation.evaluate import evaluate
from gpu_advisor.promql.expressions import Expression, Labels, TimeSeries
from gpu_advisor.sources.base import SourceError, SourceErrorKind
from gpu_advisor.sources.embedded.history import History
from gpu_advisor.sources.embedded.openmetrics_import import import_openmetrics
from gpu_advisor.sources.embedded.source import EmbeddedSource
from gpu_advisor.state.view import View

from benchmarks.week_generator import HOUR, generate_samples
from tests.browser.view_server import serve_view
from tests.unit.report.builders import END, PRICE_SETTINGS, outcome, view_of
from tests.unit.report.test_report_queries import TARGET, plain


class FlakyHistory:
    """A history that may be out of reach."""

    def __init__(self, source: EmbeddedSource) -> None:
        self.source, self.fails = source, False

    def range(self, expression: Expression, start: float, end: float, step: float) -> Mapping[Labels, TimeSeries]:
        if self.fails:
            raise SourceError(SourceErrorKind.UNREACHABLE, "refused by the test")
        return self.source.range(expression, start, end, step)


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlakyHistory]:
    found = History(tmp_path_factory.mktemp("served") / "history.db")
    import_openmetrics(found, plain(generate_samples(4, END, 6 * HOUR, 60)), *TARGET)
    yield FlakyHistory(EmbeddedSource(found))
    found.close()


@pytest.fixture
def url(past: FlakyHistory, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An advisor whose clock stands at the end of the history."""
    monkeypatch.setattr("gpu_advisor.web.api.report_handler.generate_report", _at_the_end)
    evaluation = evaluate(past.source, PRICE_SETTINGS, END)
    past.fails = False
    view: View = replace(view_of(outcome(0.4, 0.8, 0.7)), evaluation=evaluation)
    with serve_view(view, PRICE_SETTINGS, past.range) as found:
        yield found


def _at_the_end(ask: Any, view: View, settings: Any, since_seconds: float, _now: float, samples: Any) -> Any:
    from gpu_advisor.report.generate import generate_report

    return generate_report(ask, view, settings, since_seconds, END, samples=samples)


def test_one_report_in_three_formats(url: str) -> None:
    answer = requests.get(f"{url}/report?since_seconds=21600", timeout=60)
    assert answer.headers["Content-Type"] == "application/json"
    document = answer.json()
    assert document["groups"][0]["gpus"] == 4
    assert document["outcomes"][0]["utilization_after_ratio"] == 0.7
    text = f"{document['groups'][0]['gpu_hours']['unused']:,.1f}"
    html = requests.get(f"{url}/report?since_seconds=21600&format=html", timeout=60)
    assert html.headers["Content-Type"].startswith("text/html")
    assert "default-src 'none'" in html.headers["Content-Security-Policy"]
    assert f'data-path="/groups/0/gpu_hours/unused">{text}<' in html.text
    assert "before and after the change" in html.text
    assert '<a href="./">Overview</a>' in html.text
    markdown = requests.get(f"{url}/report?since_seconds=21600&format=md", timeout=60)
    assert markdown.headers["Content-Type"].startswith("text/markdown")
    assert f"| {text} |" in markdown.text


def test_a_served_report_compares_with_the_period_before(url: str) -> None:
    """Of six hours of history: three and the three before; nothing is known of the six before."""
    document = requests.get(f"{url}/report?since_seconds=10800", timeout=60).json()
    unused = document["comparison"]["fleet"]["unused_per_day"]
    assert unused["difference"] == pytest.approx(unused["now"] - unused["before"])
    html = requests.get(f"{url}/report?since_seconds=10800&format=html", timeout=60).text
    assert "Against the 3 hours before" in html
    assert f'data-path="/comparison/fleet/unused_per_day/before">{unused["before"]:,.1f}<' in html
    markdown = requests.get(f"{url}/report?since_seconds=21600&format=md", timeout=60).text
    assert "There is no data for the 6 hours before." in markdown


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ("since_seconds=10", 400, "since_seconds"),
        ("since_seconds=7d", 400, "integer"),
        ("format=pdf", 400, "'json', 'html' or 'md'"),
        ("since=7d", 400, "unknown parameter"),
    ],
)
def test_what_cannot_be_asked_is_reported(url: str, query: str, status: int, words: str) -> None:
    answer = requests.get(f"{url}/report?{query}", timeout=60)
    assert answer.status_code == status
    assert words in answer.json()["detail"]


def test_a_source_that_is_away_is_reported(url: str, past: FlakyHistory) -> None:
    past.fails = True
    answer = requests.get(f"{url}/report", timeout=60)
    assert answer.status_code == 503
    assert "refused by the test" in answer.json()["detail"]


def test_without_an_evaluation_nothing_is_known(past: FlakyHistory) -> None:
    with serve_view(view_of(), PRICE_SETTINGS, past.range) as url:
        assert requests.get(f"{url}/report", timeout=60).status_code == 503


def test_the_command_asks_the_advisor(url: str, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    command = [sys.executable, "-m", "gpu_advisor", "report", "--advisor", url, "--since", "6h", "-o", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(file.read_text()) == requests.get(f"{url}/report?since_seconds=21600", timeout=60).json()
