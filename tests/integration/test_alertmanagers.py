"""Two real Alertmanagers, of which one dies and comes back: nothing is lost, and the other one is not held up."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from tests.integration.test_end_to_end import config, firing, kinds
from tests.own_processes import advisor, exporter
from tests.polling import wait_until
from tests.servers import Alertmanager, alertmanager, free_port, prometheus

pytestmark = pytest.mark.servers


@contextmanager
def restart(server: Alertmanager) -> Iterator[None]:
    """The same server, restarted at the same address with the same data."""
    with server.log_path.open("ab") as log:
        server.process = subprocess.Popen(
            server.process.args, stdout=log, stderr=subprocess.STDOUT, cwd=server.log_path.parent
        )
    try:
        wait_until(lambda: _ready(server), "it is back")
        yield
    finally:
        server.stop()


def _ready(server: Alertmanager) -> bool:
    try:
        return requests.get(f"{server.url}/-/ready", timeout=10).status_code == 200
    except requests.RequestException:
        return False


def test_one_of_two_dies_and_comes_back(tmp_path: Path) -> None:
    exporter_address, advisor_address = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    alert = "GpuAdvisorIdleReclaim"
    with (
        alertmanager(tmp_path) as first,
        alertmanager(tmp_path) as second,
        prometheus(tmp_path, scrape={"gpu-exporter": [exporter_address]}) as server,
        advisor(tmp_path, advisor_address, config(server.url, first.url, second.url)) as program,
    ):

        def up(state: float) -> bool:
            return f'gpu_advisor_alertmanager_up{{alertmanager="{second.url}"}} {state}' in program.text("/metrics")

        with exporter(tmp_path, exporter_address, "--simulate", "16xH100-80GB:idle-hoarder"):
            for each in (first, second):
                wait_until(lambda s=each: firing(s) == [alert], "one alert for sixteen GPUs", program)  # type: ignore[misc]
            started = first.alerts()[0]["startsAt"]
            second.kill()
            wait_until(lambda: up(0.0), "it is known that it is away", program)
            assert firing(first) == [alert]
            with restart(second):
                wait_until(lambda: firing(second) == [alert], "it has again what it lost", program)
                wait_until(lambda: up(1.0), "it is known that it is back", program)
                assert second.alerts()[0]["startsAt"] == started
                second.kill()
        # While one is away, the cause ends.
        with exporter(tmp_path, exporter_address, "--simulate", "16xH100-80GB:training"):
            wait_until(lambda: firing(first) == [] and kinds(program) == [], "the alert is over", program)
            with restart(second):
                wait_until(lambda: up(1.0), "it is back", program)
                assert firing(second) == []


def test_a_snoozed_recommendation_is_not_alerted(tmp_path: Path) -> None:
    exporter_address, advisor_address = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    with (
        alertmanager(tmp_path) as alerts,
        prometheus(tmp_path, scrape={"gpu-exporter": [exporter_address]}) as server,
        exporter(tmp_path, exporter_address, "--simulate", "2xA100-80GB:idle"),
        advisor(tmp_path, advisor_address, config(server.url, alerts.url)) as program,
    ):
        wait_until(lambda: firing(alerts), "the alert is there", program)
        [advice] = program.get("/recommendations")["recommendations"]
        path = f"{program.url}/recommendations/{advice['id']}/snooze"
        body = {"reason": "known", "until": "2099-01-01T00:00:00Z"}
        assert requests.post(path, json=body, timeout=60).status_code == 422
        body["until"] = _in_an_hour(advice["since"])
        assert requests.post(path, json=body, timeout=60).status_code == 200
        wait_until(lambda: firing(alerts) == [], "the alert is over", program)
        assert program.get("/recommendations")["recommendations"][0]["snoozed"]["reason"] == "known"
        assert requests.delete(path, timeout=60).status_code == 204
        wait_until(lambda: firing(alerts), "the alert is back", program)


def _in_an_hour(since: str) -> str:
    from datetime import datetime, timedelta

    return (datetime.fromisoformat(since.replace("Z", "+00:00")) + timedelta(hours=1)).isoformat()
