"""The compose stack with `--profile demo`, as a user starts it: healthy, scraped, hardened, with recommendations."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.compose.docker_engine import DockerEngine, build_stub_images, engine, services
from tests.doc_blocks import all_blocks
from tests.polling import wait_until

CACHE = os.environ.get("GPU_ADVISOR_COMPOSE")
pytestmark = pytest.mark.skipif(not CACHE, reason="needs a private engine: make test-compose")

HEALTHY_TIMEOUT_SECONDS = 180.0
ADVICE_TIMEOUT_SECONDS = 240.0

ADVISOR, PROMETHEUS, ALERTMANAGER = (f"http://127.0.0.1:{port}" for port in (9817, 9090, 9093))
ONE_SHOT = {"demo-past"}
"""Services that run once and exit."""


@dataclass
class ComposeStack:
    engine: DockerEngine
    #: When `up` began, by the monotonic clock.
    started: float

    def inside(self, service: str, *command: str) -> str:
        return self.engine.compose("exec", "-T", service, *command)


@pytest.fixture(scope="module")
def stack() -> Iterator[ComposeStack]:
    folder = Path(tempfile.mkdtemp(prefix="c"))
    try:
        with engine(folder) as running:
            build_stub_images(running, Path(str(CACHE)))
            running.compose("config", "--quiet")
            running.compose("build", "exporter", "advisor")  # the simulated nodes use the exporter's image
            started = time.monotonic()
            running.compose("up", "--detach", "--no-build", *services())
            try:
                wait_until(
                    lambda: all(_is_healthy(running, name) for name in services()),
                    "all services are healthy",
                    timeout_seconds=HEALTHY_TIMEOUT_SECONDS,
                    interval_seconds=1,
                )
                yield ComposeStack(running, started)
            finally:
                print(running.compose("ps"))
                print(running.compose("logs", "--no-color", "--tail=20"))
                running.compose("down", "--volumes", "--timeout", "5")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_healthy(engine: DockerEngine, service: str) -> bool:
    state: dict[str, Any] = engine.inspect(service).get("State", {})
    if service in ONE_SHOT:
        return bool(state.get("Status") == "exited" and state["ExitCode"] == 0)
    return bool(state.get("Health", {}).get("Status") == "healthy")


def get(url: str) -> Any:
    answer = requests.get(url, timeout=10)
    assert answer.status_code == 200, f"{url}: {answer.status_code} {answer.text[:500]}"
    return answer.json()


def test_prometheus_reaches_every_target(stack: ComposeStack) -> None:
    def targets() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = get(f"{PROMETHEUS}/api/v1/targets")["data"]["activeTargets"]
        return found

    wait_until(lambda: all(each["health"] == "up" for each in targets()), "all targets are up")
    instances = {(each["labels"]["job"], each["labels"]["instance"]) for each in targets()}
    nodes = {("gpu-exporter", f"demo-node-{n}:9816") for n in (1, 2, 3)}
    own = {("gpu-exporter", "exporter:9816"), ("gpu-advisor", "advisor:9817"), ("alertmanager", "alertmanager:9093")}
    assert nodes | own <= instances


def test_recommendations_appear_at_once(stack: ComposeStack) -> None:
    """From the demo's history, not after half an hour; each kind of problem leads to one."""

    def kinds() -> set[str]:
        return {each["kind"] for each in get(f"{ADVISOR}/recommendations?per_page=200")["recommendations"]}

    wanted = {"idle_reclaim", "data_loading", "batch_size", "straggler", "cooling", "failing_gpu", "power_limit",
              "memory_saving", "mixed_precision", "communication", "profiling"}  # fmt: skip
    wait_until(
        lambda: wanted <= kinds(),
        f"recommendations {wanted}",
        timeout_seconds=ADVICE_TIMEOUT_SECONDS,
        interval_seconds=1,
    )


def missing_from_the_story() -> set[str]:
    """What the demo does not show yet."""
    advice = get(f"{ADVISOR}/recommendations?per_page=200")["recommendations"]
    metrics = requests.get(f"{ADVISOR}/metrics", timeout=10).text
    teams: dict[str, dict[str, float]] = {}
    series = r'gpu_advisor_team_gpus\{namespace="[^"]*",state="(\w+)",team="([^"]+)"\} (\S+)'
    for state, team, value in re.findall(series, metrics):
        teams.setdefault(team, {})[state] = float(value)
    by_kind = {each["kind"]: each for each in advice}

    def evidence(kind: str) -> set[str]:
        return {each["signal"] for each in by_kind.get(kind, {}).get("evidence", ())}

    shown_by = {
        "a lost GPU": "lost_gpu" in by_kind,
        "a price": any(each["savings_per_hour"] for each in advice),
        "idle GPUs": "idle_reclaim" in by_kind,
        "an owner": any("data-bound" in name for name in by_kind.get("data_loading", {}).get("owners", ())),
        "a data-bound job with reports": any("data_wait" in signal for signal in evidence("data_loading")),
        "a healthy team": any(each.get("busy", 0) >= 0.9 * each.get("measured", 1e9) for each in teams.values()),
        "two teams": len(teams.keys() - {"no team"}) >= 2,
    }
    return {what for what, shown in shown_by.items() if not shown}


def test_the_demo_shows_every_kind_of_trouble(stack: ComposeStack) -> None:
    try:
        wait_until(
            lambda: not missing_from_the_story(), "the story", timeout_seconds=ADVICE_TIMEOUT_SECONDS,
            interval_seconds=1,
        )  # fmt: skip
    finally:
        print(f"{time.monotonic() - stack.started:.0f} s after `up`, missing: {missing_from_the_story() or 'nothing'}")


def test_alertmanager_has_alerts_of_both_kinds(stack: ComposeStack) -> None:
    """One from a Prometheus rule on the lost GPU, and one from the advisor."""

    def names() -> set[str]:
        return {each["labels"]["alertname"] for each in get(f"{ALERTMANAGER}/api/v2/alerts")}

    wanted = {"GpuDown", "GpuAdvisorIdleReclaim"}
    wait_until(lambda: wanted <= names(), f"alerts {wanted}", timeout_seconds=ADVICE_TIMEOUT_SECONDS)


@pytest.mark.parametrize("service", sorted({*services()} - ONE_SHOT))
def test_a_container_has_minimal_privileges(stack: ComposeStack, service: str) -> None:
    found = stack.engine.inspect(service)
    host = found["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert host["Memory"] > 0
    assert host["PidsLimit"] > 0
    assert not host["Privileged"]
    assert {binding["HostIp"] for ports in host["PortBindings"].values() for binding in ports} <= {"127.0.0.1"}
    output = stack.inside(service, "sh", "-c", "id -u; grep CapEff /proc/self/status; touch /nowhere 2>&1 || true")
    assert not output.startswith("0\n")
    assert "CapEff:\t0000000000000000" in output
    assert "Read-only file system" in output


def test_the_advisors_image_has_its_optional_packages(stack: ComposeStack) -> None:
    stack.inside("advisor", "python", "-c", "import bcrypt, kubernetes")


def _requests_in_pages() -> list[str]:
    """Including continuation lines."""
    texts = [block.text for block in all_blocks("sh") if block.page in ("docs/api.md", "docs/faq.md")]
    return [found for text in texts for found in re.findall(r"^curl (?:.*\\\n)*.*$", text, re.MULTILINE)]


@pytest.mark.parametrize("command", _requests_in_pages())
def test_requests_in_the_pages_succeed(stack: ComposeStack, command: str) -> None:
    assert len(stack.engine.run("sh", "-c", command.replace("curl -s", "curl -sS --fail"))) > 100


@pytest.mark.parametrize("query", [block.text for block in all_blocks("promql") if block.page == "docs/faq.md"])
def test_queries_in_the_pages_return_data(stack: ComposeStack, query: str) -> None:
    answer = requests.get(f"{PROMETHEUS}/api/v1/query", params={"query": query}, timeout=10).json()
    assert answer["data"]["result"]


def test_recommendations_survive_a_restart(stack: ComposeStack) -> None:
    def ids() -> set[str]:
        return {each["id"] for each in get(f"{ADVISOR}/recommendations?per_page=200")["recommendations"]}

    before = ids()
    stack.engine.compose("restart", "--timeout", "10", "advisor")
    wait_until(
        lambda: _is_healthy(stack.engine, "advisor"),
        "the advisor is healthy",
        timeout_seconds=HEALTHY_TIMEOUT_SECONDS,
        interval_seconds=1,
    )
    assert before <= wait_until(ids, "recommendations")
