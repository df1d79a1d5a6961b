"""The compose file and the images: complete, hardened, pinned."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
import yaml
from gpu_exporter.config import load_settings
from gpu_exporter.devices import DRIVERS
from gpu_exporter.devices.simulated import SCENARIOS, SimulatedGpu, parse_fleet
from gpu_exporter.host import COLLECTORS

from tests.certificates import self_signed

ROOT = Path(__file__).resolve().parents[2]


def substitute_variables(text: str, variables: dict[str, str]) -> str:
    """Substitute `${NAME:-default}`, as compose does."""
    return re.sub(r"\$\{(\w+):-([^}]*)\}", lambda m: variables.get(m[1]) or m[2], text)


def compose(name: str = "docker-compose.yml", **variables: str) -> dict[str, Any]:
    loaded = yaml.safe_load(substitute_variables((ROOT / name).read_text(), variables))
    assert isinstance(loaded, dict)
    return loaded


SERVICES = compose()["services"]
OWN = {"exporter": 9816, "advisor": 9817}
DEMO = [name for name in SERVICES if name.startswith("demo-node-")]


def mounts() -> Iterator[tuple[str, str, str]]:
    for name, service in SERVICES.items():
        for volume in service.get("volumes", []):
            source, target, *options = volume.split(":")
            yield name, source, ",".join(options)
            assert target.startswith("/")


def test_all_services_exist():
    demo = {"demo-node-1", "demo-node-2", "demo-node-3", "demo-past"}
    assert set(SERVICES) == {"exporter", "advisor", "prometheus", "alertmanager", "grafana"} | demo


def test_old_and_new_compose_accept_the_file():
    for name in ("docker-compose.yml", "docker-compose.nvidia.yml"):
        assert not {"name", "version"} & compose(name).keys(), "rejected by 1.29, or deprecated"


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_hardened(name):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service["user"].startswith(("0:", "root"))
    assert service["mem_limit"]
    assert service["pids_limit"]
    assert service["tmpfs"]


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_bound_to_localhost(name):
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))
    assert "network_mode" not in SERVICES[name]


@pytest.mark.parametrize("name", SERVICES)
def test_an_image_is_pinned_or_built_here(name):
    service = SERVICES[name]
    if "build" in service:
        assert service["image"].endswith(":local")
        assert f" AS {service['build']['target']}\n" in (ROOT / "Dockerfile").read_text()
    else:
        assert re.search(r":v?\d+\.\d+\.\d+$", service["image"])


@pytest.mark.parametrize("name", sorted(SERVICES.keys() - {"exporter", "advisor", "demo-past", *DEMO}))
def test_third_party_images_have_health_checks(name):
    assert SERVICES[name]["healthcheck"]["test"][-1].startswith("http://127.0.0.1:")


def test_dependencies_on_health_have_a_health_check():
    for service in SERVICES.values():
        for other, how in service.get("depends_on", {}).items():
            assert other in SERVICES
            if how["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[other] or other in OWN or other in DEMO


def test_mounted_files_exist_and_are_read_only():
    volumes = compose()["volumes"]
    for name, source, options in mounts():
        if source.startswith("./"):
            assert (ROOT / source).exists(), f"{name}: {source}"
        if source.startswith(("./", "/")):
            assert "ro" in options.split(","), f"{name}: {source}"
        else:
            assert source in volumes, f"{name}: {source}"


def test_the_file_contains_no_secrets():
    for name, service in compose(GRAFANA_ADMIN_PASSWORD="")["services"].items():
        for key, value in service.get("environment", {}).items():
            assert not (re.search("PASSWORD|TOKEN|SECRET|KEY", key) and value), f"{name}: {key}"


@pytest.mark.parametrize("fleet", ["", "8xH100-80GB:training"])
def test_the_exporter_accepts_its_command(fleet):
    command = compose(SIMULATE=fleet)["services"]["exporter"]["command"]
    settings = load_settings(command, ("host", *DRIVERS, *COLLECTORS))
    assert settings.simulate == fleet
    assert settings.address == ("0.0.0.0", OWN["exporter"])
    targets = [volume.split(":")[1] for volume in SERVICES["exporter"]["volumes"]]
    assert {settings.path_procfs, settings.path_sysfs, settings.path_rootfs} == set(targets)


def demo_fleets() -> Iterator[tuple[str, tuple[SimulatedGpu, ...], str]]:
    for name in DEMO:
        settings = load_settings(SERVICES[name]["command"], ("host", *DRIVERS, *COLLECTORS))
        yield name, parse_fleet(settings.simulate, settings.simulate_seed), settings.simulate


def test_the_demo_has_every_scenario():
    groups = [part for _, _, text in demo_fleets() for part in text.split(",")]
    assert {group.split(":")[1] for group in groups} == SCENARIOS.keys()
    assert not [name for name in (*DEMO, "demo-past") if SERVICES[name]["profiles"] != ["demo"]]


def test_gpus_of_the_demo_are_distinct():
    uuids = [gpu.identity.uuid for _, fleet, _ in demo_fleets() for gpu in fleet]
    assert len(uuids) == len(set(uuids))


def test_all_ranks_of_a_synchronous_job_are_on_one_node():
    """A straggler is detected by comparison with its peers."""
    [fleet] = [text for _, _, text in demo_fleets() if "straggler" in text]
    assert "held-up" in fleet


def test_the_demos_history_is_readable_for_the_group_that_imports_it(tmp_path):
    """The image creates the folder for its user only: 0700."""
    service, (user, _, group) = SERVICES["demo-past"], SERVICES[DEMO[0]]["user"].partition(":")
    assert group in service["group_add"]
    assert not service["user"].startswith(f"{user}:")
    program, folder = tmp_path / "bin/gpu-exporter", tmp_path / "past"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 'gpu_up{uuid=\"a\"} 1 5'\n")
    program.chmod(0o755)
    folder.mkdir(mode=0o700)
    command = [sys.executable, str(ROOT / "docker/demo_node.py"), str(folder), "--simulate=1xT4-16GB"]
    old = os.umask(0o077)
    try:
        subprocess.run(command, env={**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}, check=True)
    finally:
        os.umask(old)
    (history,) = folder.iterdir()
    assert history.suffix == ".om"
    assert folder.stat().st_mode & 0o777 == 0o750
    assert history.stat().st_mode & 0o777 == 0o640


def demo_node() -> Any:
    spec = spec_from_file_location("demo_node", ROOT / "docker" / "demo_node.py")
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_demos_jobs_report_their_steps():
    """One waits for its data, one is healthy; counters, on the GPUs that the exporter simulates."""
    module, at = demo_node(), 1_790_000_000.0
    reporting = set()
    for service, fleet, _ in demo_fleets():
        arguments = SERVICES[service]["command"]
        gpus = {gpu.identity.uuid: gpu for gpu in fleet}
        now, then = (parse_reports(module.job_reports(arguments, each)) for each in (at, at - 600))
        assert now.keys() == then.keys()
        for (name, uuid), value in now.items():
            increase = value - then[name, uuid]
            reporting.add(gpus[uuid].scenario.job)
            if name == "training_data_wait_seconds_total":
                assert (increase / 600 > 0.3) == (gpus[uuid].scenario.job == "data-bound")
            elif name == "training_step_seconds_total":
                assert increase == pytest.approx(600)
        [*past] = module.past_reports(arguments, at)
        assert len(past) == len(now) * module.HISTORY_SECONDS // module.STEP_SECONDS
    assert reporting == {"train", "data-bound"}


def parse_reports(found: dict[str, list[str]]) -> dict[tuple[str, str], float]:
    """By name and uuid."""
    lines = [line for lines in found.values() for line in lines]
    matches = [re.fullmatch(r'(\w+)\{uuid="([^"]+)",[^}]*\} ([\d.]+)', line) for line in lines]
    return {(each[1], each[2]): float(each[3]) for each in matches if each}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("# HELP gpu_up Whether.\n", "# HELP gpu_up Whether.\n"),
        ("up 1 2\n", 'up{job="j"} 1 2\n'),
        ('gpu_up{uuid="{a b}"} 1 2\n', 'gpu_up{job="j",uuid="{a b}"} 1 2\n'),
    ],
)
def test_the_demos_history_has_target_labels(line, expected):
    assert demo_node().add_target_labels(line, 'job="j"') == expected


@pytest.mark.parametrize("name", ["advisor.yml", "advisor-demo.yml"])
def test_the_advisor_accepts_its_settings(name):
    settings = pytest.importorskip("gpu_advisor.settings")
    loaded = settings.load_settings(ROOT / "docker" / name)
    prometheus = yaml.safe_load((ROOT / "prometheus" / "prometheus.yml").read_text())
    assert loaded.cluster == prometheus["global"]["external_labels"]["cluster"]
    assert loaded.web.listen_address == f"0.0.0.0:{OWN['advisor']}"
    assert any(source == "advisor-data" for name, source, _ in mounts() if name == "advisor")


def test_prometheus_scrapes_existing_services():
    prometheus = yaml.safe_load((ROOT / "prometheus" / "prometheus.yml").read_text())
    for job in prometheus["scrape_configs"]:
        hosts = [t.split(":")[0] for static in job.get("static_configs", []) for t in static["targets"]]
        hosts += [host for found in job.get("dns_sd_configs", []) for host in found["names"]]
        assert set(hosts) <= SERVICES.keys() | {"127.0.0.1"}


def test_the_nvidia_override_is_for_an_existing_service():
    override = compose("docker-compose.nvidia.yml")["services"]
    assert override.keys() <= SERVICES.keys()
    (device,) = override["exporter"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["driver"] == "nvidia"
    assert "gpu" in device["capabilities"]


def test_the_images_are_small_and_not_root():
    text = (ROOT / "Dockerfile").read_text()
    assert not re.search(r"^RUN --mount", text, re.MULTILINE), "the legacy builder does not support it"
    assert re.search(r"^ARG PYTHON_IMAGE=python:\d+\.\d+\.\d+-slim", text, re.MULTILINE)
    assert not re.search(r"\b(apt-get|curl|gcc)\b", text)
    runtime = text.split(" AS runtime\n")[1]
    assert re.search(r"^USER 10001:10001$", runtime, re.MULTILINE)
    for target, port in OWN.items():
        image = runtime.split(f" AS {target}\n")[1].split("\nFROM ")[0]
        assert "HEALTHCHECK" in image
        assert f"EXPOSE {port}" in image
        assert f"http://127.0.0.1:{port}/-/healthy" in image


def test_the_images_install_the_extras_of_their_commands():
    text = (ROOT / "Dockerfile").read_text()
    for name in OWN:  # what these files have, by extras: tests/unit/test_release.py
        stage = text.split(f" AS {name}-environment\n")[1].split("\nFROM ")[0]
        assert f"COPY docker/requirements-{name}.txt ./" in stage
        assert f"--require-hashes -r requirements-{name}.txt" in stage
    assert "for part in exporter:web advisor:advisor,web,kubernetes;" in (ROOT / "Makefile").read_text()


def test_the_build_context_has_all_inputs():
    sent = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert sorted(" ".join(copied).split()) == sorted(sent)
    assert all((ROOT / path).exists() for path in sent)


class _HealthServer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response({"/good": 200, "/login": 401}.get(self.path, 503))
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _HealthServer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(("path", "healthy"), [("/good", True), ("/bad", False)])
def test_the_health_check_distinguishes_good_from_bad(address, path, healthy):
    # An unreachable proxy must not matter.
    done = _check(address + path, http_proxy="http://127.0.0.1:1")
    assert (done.returncode == 0) is healthy, done.stderr
    assert "Traceback" not in done.stderr


def test_the_health_check_works_with_a_login(address):
    assert _check(f"{address}/login").returncode == 0


def test_the_health_check_works_with_tls(address, tmp_path):
    server = HTTPServer(("127.0.0.1", 0), _HealthServer)
    server.socket = self_signed(tmp_path).wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        assert _check(f"{url}/good").returncode == 0
        assert _check(f"{url}/login").returncode == 0
        assert _check(f"{url}/bad").returncode == 1
    finally:
        server.shutdown()
        server.server_close()


def test_changes_need_the_token_that_the_advisor_creates(tmp_path):
    command = SERVICES["advisor"]["command"]
    [token] = [each.partition("=")[2] for each in command if each.startswith("--write-token-file=")]
    [folder] = [each.split(":")[1] for each in SERVICES["advisor"]["volumes"] if each.startswith("advisor-data:")]
    assert token.startswith(f"{folder}/")
    assert "--allowed-host=advisor" in command  # as Prometheus scrapes it
    assert "advisor:9817" in (ROOT / "prometheus/prometheus.yml").read_text()


def test_the_health_check_fails_without_a_server():
    assert _check("http://127.0.0.1:1/").returncode == 1


def _check(url: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", str(ROOT / "docker" / "healthcheck.py"), url]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
