"""The one-shot commands and the autoscalers' query, against real servers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.test_end_to_end import QUICK
from tests.own_processes import advisor, exporter
from tests.polling import wait_until
from tests.servers import free_port, prometheus

pytestmark = pytest.mark.servers

KEDA = Path(__file__).parents[2] / "examples/autoscaling/keda-scaledobject.yaml"


def gpu_advisor(*arguments: str) -> tuple[int, Any]:
    """Exit code and JSON of a command."""
    command = [sys.executable, "-m", "gpu_advisor", *arguments, "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_one_look_and_a_running_advisor_say_the_same_and_autoscalers_get_no_number_for_no_data(tmp_path: Path) -> None:
    exporter_address, address = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    [trigger] = yaml.safe_load(KEDA.read_text())["spec"]["triggers"]
    query = trigger["metadata"]["query"]
    scrape = {"gpu-exporter": [exporter_address], "gpu-advisor": [address]}
    with prometheus(tmp_path, scrape=scrape) as server:
        config: dict[str, Any] = {
            "source": {"prometheus": {"url": server.url, "timeout_seconds": 3, "retries": 0}},
            "evaluation": QUICK,
            "pools": [{"name": "chat", "kind": "serving", "match": {"name": ".*L4.*"}, "gpu": {"min": 1, "max": 8}}],
        }
        path = tmp_path / "once.yml"
        path.write_text(yaml.safe_dump(config))
        fleet = "4xH100-80GB:idle-hoarder,2xL4-24GB:saturated-serving"
        with advisor(tmp_path, address, config) as program:
            with exporter(tmp_path, exporter_address, "--simulate", fleet):
                wait_until(
                    lambda: (
                        {each["kind"] for each in program.get("/recommendations")["recommendations"]}
                        >= {"idle_reclaim", "scale_up"}
                    ),
                    "advice of both kinds",
                    program,
                )
                code, once = gpu_advisor("recommend", "--config", str(path), "--exit-code")
                _, running = gpu_advisor("recommend", "--advisor", program.url)
                assert code == 3
                ids = [{each["id"] for each in answer["recommendations"]} for answer in (once, running)]
                assert ids[0] == ids[1]
                _, sizes = gpu_advisor("autoscale", "--advisor", program.url, "--min-gpus", "1", "--max-gpus", "8")
                [chat] = sizes["pools"]
                assert (chat["replicas"], chat["action"], sizes["simulated"]) == (2, "grow", True)
                [reported] = wait_until(lambda: server.query(query), "the autoscaler's number", program)
                assert float(reported["value"][1]) > 2
            wait_until(lambda: server.query(query) == [], "no number for no data", program)
            assert server.query("gpu_advisor_recommendation_info") != []  # the advisor itself is there
