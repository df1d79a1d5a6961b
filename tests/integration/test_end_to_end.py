"""No mocks: simulated fleet -> exporter -> real Prometheus -> advisor -> API and real Alertmanager."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.own_processes import Program, advisor, exporter
from tests.polling import wait_until
from tests.servers import Alertmanager, alertmanager, free_port, prometheus, require_binary
from tests.unit.sources.fake_http import Responder, fake_http, reply

pytestmark = pytest.mark.servers

#: The windows of hours, in seconds.
QUICK = {
    "interval_seconds": 1,
    "window_seconds": 5,
    "idle_window_seconds": 8,
    "step_seconds": 2,
    "scale_up_stabilization_seconds": 4,
    "scale_down_stabilization_seconds": 6,
    "cooldown_seconds": 4,
    "min_coverage_ratio": 0.6,
}


def config(source: str, *alertmanagers: str) -> dict[str, Any]:
    return {
        "source": {"prometheus": {"url": source, "timeout_seconds": 3, "retries": 0}},
        "evaluation": QUICK,
        "alertmanagers": [{"url": url} for url in alertmanagers],
    }


def firing(server: Alertmanager) -> list[str]:
    """Names of the alerts that amtool shows as active."""
    command = [require_binary("amtool"), "alert", "query", "--output=json", f"--alertmanager.url={server.url}"]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return [alert["labels"]["alertname"] for alert in found]


def kinds(program: Program) -> list[str]:
    return [each["kind"] for each in program.get("/recommendations")["recommendations"]]


def test_advice_reaches_alertmanager_and_ends_with_its_cause(tmp_path: Path) -> None:
    exporter_address, advisor_address = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    scrape = {"gpu-exporter": [exporter_address]}
    with (
        alertmanager(tmp_path) as alerts,
        prometheus(tmp_path, scrape=scrape) as server,
        advisor(tmp_path, advisor_address, config(server.url, alerts.url)) as program,
    ):
        with exporter(tmp_path, exporter_address, "--simulate", "4xH100-80GB:idle-hoarder"):
            wait_until(lambda: "GpuAdvisorIdleReclaim" in firing(alerts), "the alert is there", program)
            [advice] = program.get("/recommendations")["recommendations"]
            assert advice["kind"] == "idle_reclaim"
            assert (advice["current"], advice["recommended"]) == (4, 1)
            assert advice["diagnosis"] == "idle_holding_memory"
            [alert] = alerts.alerts()
            assert alert["labels"]["recommendation_id"] == advice["id"]
            assert alert["labels"]["scope"] == "NVIDIA H100 80GB HBM3"

        # The exporter is away: nothing is known, so nothing ends.
        wait_until(lambda: program.get("/recommendations")["abstentions"], "it abstains", program)
        assert firing(alerts) == ["GpuAdvisorIdleReclaim"]
        [held] = program.get("/recommendations")["recommendations"]
        assert held["id"] == advice["id"]
        assert held["held"] is True

        # The same GPUs, now at work: the cause is gone.
        with exporter(tmp_path, exporter_address, "--simulate", "4xH100-80GB:training"):
            wait_until(lambda: firing(alerts) == [], "the alert is gone", program)
            wait_until(lambda: kinds(program) == [], "the advice is gone", program)


def test_a_source_that_goes_away_makes_answers_stale_and_ends_nothing(tmp_path: Path) -> None:
    exporter_address, advisor_address = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    scrape = {"gpu-exporter": [exporter_address]}
    with (
        alertmanager(tmp_path) as alerts,
        prometheus(tmp_path, scrape=scrape) as server,
        exporter(tmp_path, exporter_address, "--simulate", "2xA100-80GB:idle"),
        advisor(tmp_path, advisor_address, config(server.url, alerts.url)) as program,
    ):
        wait_until(lambda: "GpuAdvisorIdleReclaim" in firing(alerts), "the alert is there", program)
        before = program.get("/recommendations")
        assert before["stale"] is False
        server.kill()
        after = wait_until(lambda: _stale(program), "answers are marked stale", program)
        assert [each["id"] for each in after["recommendations"]] == [each["id"] for each in before["recommendations"]]
        assert after["source"]["error"] == "unreachable"
        assert after["abstentions"][0]["reason"] == "stale"
        assert 'gpu_advisor_source_up{source="prometheus"} 0.0' in program.text("/metrics")
        assert "The data source is down" in program.text("/")
        assert firing(alerts) == ["GpuAdvisorIdleReclaim"]
        program.get("/recommendations/" + after["recommendations"][0]["id"])


def _stale(program: Program) -> dict[str, Any] | None:
    answer: dict[str, Any] = program.get("/recommendations")
    return answer if answer["stale"] else None


def test_without_any_source_it_says_so(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    with advisor(tmp_path, address, config(f"http://127.0.0.1:{free_port()}")) as program:
        answer = wait_until(
            lambda: (found := program.get("/recommendations"))["source"]["error"] == "unreachable" and found,
            "error",
        )
        assert answer["recommendations"] == []
        assert answer["at"] is None
        assert answer["abstentions"][0]["reason"] == "no_data"
        assert "No data from the source yet" in program.text("/")
        assert "gpu_advisor_evaluation_last_success_timestamp_seconds" not in program.text("/metrics")


EMPTY = '{"status":"success","data":{"resultType":"vector","result":[]}'


@pytest.mark.parametrize(
    ("error", "answering"),
    [
        ("bad_answer", reply(200, "<html>Please log in</html>", "text/html")),
        ("query_error", reply(400, '{"status":"error","errorType":"bad_data","error":"no such thing"}')),
        ("timeout", lambda handler, number: time.sleep(4)),
        ("partial", reply(200, EMPTY + ',"warnings":["store x is away"]}')),
        ("unauthorized", reply(401, "who are you?")),
    ],
)
def test_a_prometheus_that_answers_badly_is_reported_everywhere(
    tmp_path: Path, error: str, answering: Responder
) -> None:
    address = f"127.0.0.1:{free_port()}"
    with fake_http(answering) as server, advisor(tmp_path, address, config(server.url)) as program:
        answer = wait_until(
            lambda: (found := program.get("/recommendations"))["source"]["error"] == error and found, error, program
        )
        assert answer["recommendations"] == []
        assert answer["abstentions"][0]["message"] == answer["source"]["message"] != ""
        assert f'gpu_advisor_evaluation_failures_total{{kind="{error}"}}' in program.text("/metrics")
        assert "Prometheus down" in program.text("/")
        assert program.text("/-/ready") == "ok\n"
