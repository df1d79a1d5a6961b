"""The helpers of the integration tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.polling import wait_until
from tests.servers import alertmanager, prometheus, require_binary
from tests.unit.sources.fake_http import fake_http, reply


def test_a_missing_program_skips(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("GPU_ADVISOR_REQUIRE_SERVERS", raising=False)
    with pytest.raises(pytest.skip.Exception, match="apt-get install prometheus-alertmanager"):
        require_binary("amtool")


def test_a_missing_program_fails_where_it_must_be_there(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("GPU_ADVISOR_REQUIRE_SERVERS", "1")
    with pytest.raises(pytest.fail.Exception, match=r"apt-get install prometheus$"):
        require_binary("promtool")


@pytest.mark.servers
def test_prometheus_scrapes_evaluates_alerts_and_ends(tmp_path: Path):
    rules = tmp_path / "rules.yml"
    rules.write_text('groups: [{name: g, rules: [{alert: A, expr: "up == 1"}]}]')
    with fake_http(reply(200, "x 1\n", "text/plain")) as target, alertmanager(tmp_path) as receiver:
        with prometheus(
            tmp_path,
            scrape={"j": [target.address]},
            scrape_interval="200ms",
            rule_files=[rules],
            alertmanagers=[receiver.url],
        ) as server:
            wait_until(receiver.alerts, "an alert", receiver)
            assert [alert["labels"]["alertname"] for alert in receiver.alerts()] == ["A"]
            assert server.query("x")[0]["metric"]["job"] == "j"
            assert server.alerts()[0]["state"] == "firing"
            os.kill(server.pid, 0)
        with pytest.raises(ProcessLookupError):
            os.kill(server.pid, 0)


@pytest.mark.servers
def test_a_server_that_does_not_start_shows_its_log(tmp_path: Path):
    rules = tmp_path / "rules.yml"
    rules.write_text("nonsense: [")
    starting = prometheus(tmp_path, rule_files=[rules])
    with pytest.raises(pytest.fail.Exception, match=r"(?s)exited at startup.*rules\.yml"), starting:
        pass
