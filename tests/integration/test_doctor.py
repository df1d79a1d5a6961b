"""`gpu-advisor doctor` against real servers: right and wrong ports, a login, a certificate of one's own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import unquote_plus

import pytest
import requests
import yaml

from tests.certificates import self_signed
from tests.own_processes import exporter
from tests.polling import wait_until
from tests.servers import Prometheus, alertmanager, free_port, prometheus
from tests.unit.advisor.test_commands import Call, call
from tests.unit.sources.fake_http import fake_http, reply

__all__ = ["call"]  # a fixture

pytestmark = pytest.mark.servers


@dataclass(frozen=True)
class Servers:
    prometheus: Prometheus
    alertmanager: str
    exporter: str


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    folder = tmp_path_factory.mktemp("doctor")
    address = f"127.0.0.1:{free_port()}"
    with (
        exporter(folder, address, "--simulate", "2xH100-80GB:training"),
        alertmanager(folder) as alerts,
        prometheus(folder, scrape={"gpu": [address]}) as source,
    ):
        wait_until(lambda: source.query("gpu_info"), "the first scrape")
        yield Servers(source, alerts.url, f"http://{address}")


def examine(call: Call, *arguments: str) -> Mapping[str, tuple[str, str]]:
    """Status and fix by part."""
    _, out, _ = call("doctor", *arguments, "--format", "json")
    return {each["part"]: (each["status"], each["fix"]) for each in json.loads(out)}


def test_right_addresses(call: Call, servers: Servers) -> None:
    found = examine(
        call, "--prometheus", servers.prometheus.url, "--alertmanager", servers.alertmanager,
        "--exporter", servers.exporter,
    )  # fmt: skip
    assert {part: status for part, (status, _) in found.items()} == {
        "exporter": "ok", "GPUs": "ok", "Prometheus": "ok", "scrape targets": "ok", "recording rules": "warning",
        "Alertmanager": "ok", "Grafana": "skipped",
    }  # fmt: skip


@pytest.mark.parametrize("part", ["Prometheus", "Alertmanager", "Grafana", "exporter"])
@pytest.mark.parametrize("there", ["prometheus", "alertmanager", "exporter", "nothing"])
def test_another_server_at_the_address_is_found(call: Call, servers: Servers, part: str, there: str) -> None:
    """Also one that is ready: Prometheus and Alertmanager both answer on /-/ready."""
    urls = {
        "prometheus": servers.prometheus.url, "alertmanager": servers.alertmanager, "exporter": servers.exporter,
        "nothing": f"http://127.0.0.1:{free_port()}",
    }  # fmt: skip
    status, fix = examine(call, f"--{part.lower()}", urls[there])[part]
    assert status == ("ok" if part.lower() == there else "failed")
    assert bool(fix) == (status == "failed")


def test_a_login_and_a_certificate_of_the_settings(call: Call, servers: Servers, tmp_path: Path) -> None:
    """A proxy before the real Prometheus: with TLS, and for Ada only."""
    tls = self_signed(tmp_path)

    def proxy(handler: BaseHTTPRequestHandler, number: int) -> None:
        ada = requests.auth._basic_auth_str("ada", "lovelace")
        if handler.headers.get("Authorization") != ada:
            return reply(401, "Unauthorized", "text/plain")(handler, number)
        return reply(200, requests.get(servers.prometheus.url + handler.path, timeout=60).content)(handler, number)

    with fake_http(proxy, tls) as server:
        url = f"https://{server.address}"
        assert "--ca-file" in examine(call, "--prometheus", url)["Prometheus"][1]
        ca = str(tmp_path / "cert.pem")
        assert "login" in examine(call, "--prometheus", url, "--ca-file", ca)["Prometheus"][1]
        settings = {"url": url, "username": "ada", "password": "lovelace", "ca_file": ca}
        file = tmp_path / "advisor.yml"
        file.write_text(yaml.safe_dump({"source": {"prometheus": settings}}))
        found = examine(call, "--config", str(file))
        assert [found[part][0] for part in ("Prometheus", "scrape targets")] == ["ok", "ok"]
        asked = len(server.requests)
        other = servers.prometheus.url.replace("127.0.0.1", "localhost")
        examine(call, "--config", str(file), "--prometheus", other)
        assert len(server.requests) == asked
    assert any("count by" in unquote_plus(each.path) for each in server.requests)


def test_a_login_goes_only_to_its_server(call: Call, tmp_path: Path) -> None:
    settings = {"url": "https://127.0.0.1:9", "username": "ada", "password": "lovelace"}
    file = tmp_path / "advisor.yml"
    file.write_text(yaml.safe_dump({"source": {"prometheus": settings}}))
    with fake_http(reply(200, "{}")) as server:
        examine(call, "--config", str(file), "--prometheus", server.url)
        assert server.requests
        assert not any("Authorization" in each.headers for each in server.requests)
