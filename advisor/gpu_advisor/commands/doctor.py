"""`gpu-advisor doctor`: whether each part of the way from the driver to the dashboard works, and how to fix it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urljoin

import click
import requests

from gpu_advisor.commands import common_options
from gpu_advisor.commands import doctor_findings as findings
from gpu_advisor.commands.doctor_findings import DeviceFile, Finding, Reply
from gpu_advisor.commands.errors import CommandError
from gpu_advisor.commands.exporter_client import DEFAULT_EXPORTER, ExporterClient
from gpu_advisor.commands.node_snapshot import take_snapshot
from gpu_advisor.rendering.escaping import hide_logins, one_line
from gpu_advisor.sources.prometheus.http_client import (
    BodyTooLargeError,
    DeadlineClient,
    DeadlineExceededError,
    connection_problem,
)
from gpu_advisor.storage.secret_file import SecretFile, reveal

if TYPE_CHECKING:
    from gpu_advisor.settings import Settings
    from gpu_advisor.settings.source import PrometheusSourceSettings

#: Arguments of requests: headers, auth, cert, verify.
Login = dict[str, Any]

TIMEOUT_SECONDS = 5.0
MAX_RESPONSE_BYTES = 64 * 2**20

#: Device files of the drivers of NVIDIA, AMD, Intel and Ascend.
DEVICE_FILES = ("/dev/nvidia[0-9]*", "/dev/kfd", "/dev/dri/renderD*", "/dev/davinci[0-9]*")

#: A metric that each of the common exporters has once per GPU.
GPU_SERIES = 'count by (__name__) ({__name__=~"gpu_info|DCGM_FI_DEV_GPU_TEMP|nvidia_smi_index|amd_gpu_gfx_activity"})'

_MARKS = {"ok": "ok     ", "warning": "WARNING", "failed": "FAILED ", "skipped": "-      "}
_STYLES = {"ok": "green", "warning": "yellow", "failed": "red", "skipped": "bright_black"}


@click.command("doctor")
@click.option(
    "--config", type=click.Path(dir_okay=False, path_type=Path), help="Check the servers of this file (YAML)."
)
@click.option("--exporter", metavar="URL", help=f"[default: {DEFAULT_EXPORTER}, unless Prometheus is checked]")
@click.option("--prometheus", metavar="URL", help="Check this Prometheus and what it scrapes.")
@click.option("--alertmanager", metavar="URL", help="Check this Alertmanager.")
@click.option("--grafana", metavar="URL", help="Check this Grafana.")
@common_options.ca_file
@common_options.output_format("table", "json")
def command(
    config: Path | None, exporter: str | None, prometheus: str | None, alertmanager: str | None, grafana: str | None,
    ca_file: str | None, format_: str,
) -> int:  # fmt: skip
    """Check driver, exporter, Prometheus and Alertmanager, with a fix for each. Exit code 1 if something failed.

    \b
      gpu-advisor doctor                       this machine
      gpu-advisor doctor --config advisor.yml  the servers of a settings file
      gpu-advisor doctor --prometheus http://prometheus:9090 \\
          --grafana http://grafana:3000
    """
    from gpu_advisor.settings import Settings, load_settings

    settings = load_settings(config) if config else Settings()
    http = _Http(ca_file)
    found = []
    for each in _examine(settings, exporter, prometheus, alertmanager, grafana, http):
        found.append(each)
        if format_ == "table":
            _print(each)
    if format_ == "json":
        click.echo(hide_logins(json.dumps([
            {"part": each.part, "status": each.status, "message": each.message, "fix": each.fix} for each in found
        ], indent=2)))  # fmt: skip
    return 1 if any(each.status == "failed" for each in found) else 0


def _print(each: Finding) -> None:
    """Printed as they come: a server that does not answer takes seconds."""
    mark = click.style(_MARKS[each.status], fg=_STYLES[each.status])
    click.echo(f"{mark}  {hide_logins(one_line(f'{each.part}: {each.message}'))}")
    if each.fix:
        click.echo(f"         {hide_logins(one_line(each.fix))}")


def _examine(
    settings: Settings, exporter: str | None, prometheus: str | None, alertmanager: str | None, grafana: str | None,
    http: _Http,
) -> Iterator[Finding]:  # fmt: skip
    source = settings.source.prometheus
    prometheus = prometheus or (source.url if source else None)
    if exporter or not prometheus:
        if not exporter:
            yield findings.devices(_device_files())
        yield from _exporter(exporter or DEFAULT_EXPORTER, http)
    if prometheus:
        yield from _prometheus(prometheus, http, _source_login(source) if source and prometheus == source.url else {})
    else:
        yield Finding("Prometheus", "skipped", "not checked: give --prometheus URL or --config FILE")
    logins: dict[str, Login] = {
        each.url: {"auth": (each.username, each.password.get_secret_value())} if each.username else {}
        for each in settings.alertmanagers
    }
    for url in [alertmanager] if alertmanager else logins or [""]:
        status = http.get(url, "api/v2/status", logins.get(url, {}))
        yield findings.server("Alertmanager", url, status, "--alertmanager", "versionInfo")
    yield findings.server("Grafana", grafana or "", http.get(grafana or "", "api/health"), "--grafana", "database")


def _device_files() -> list[DeviceFile]:
    paths = sorted(path for pattern in DEVICE_FILES for path in glob(pattern))
    return [DeviceFile(path, os.access(path, os.R_OK | os.W_OK)) for path in paths]


def _exporter(url: str, http: _Http) -> Iterator[Finding]:
    try:
        now = take_snapshot(ExporterClient(url, http.ca_file, None).scrape())
    except CommandError as error:
        yield from findings.exporter(url, Reply(None, error=error.message.split(": ")[0]), {}, 0)
        return
    yield from findings.exporter(url, Reply(200), now.drivers, sum(1 for gpu in now.gpus if gpu.up))
    for gpu in now.gpus:
        if not gpu.up:
            why = gpu.why_down.replace("_", " ") or "no reason given"
            yield Finding(f"GPU {gpu.index or gpu.uuid}", "failed", f"down: {why}", "gpu-advisor runbook GpuDown")


def _prometheus(url: str, http: _Http, login: Login) -> Iterator[Finding]:
    status = http.get(url, "api/v1/query?query=1", login)
    yield findings.prometheus(url, status)
    if status.ok:
        yield findings.targets(http.get(url, f"api/v1/query?query={quote(GPU_SERIES)}", login))
        yield findings.rules(findings.rule_names(http.get(url, "api/v1/rules", login)))


def _source_login(source: PrometheusSourceSettings) -> Login:
    """Headers, login and TLS of the settings: only for the server that they are set for."""
    headers = {name: value.get_secret_value() for name, value in source.headers.items()}
    token = source.bearer_token.get_secret_value()
    if source.bearer_token_file:
        try:
            token = reveal(SecretFile(Path(source.bearer_token_file)))
        except (OSError, ValueError) as error:
            message = f"source.prometheus.bearer_token_file: {error}; set the path of a readable file"
            raise CommandError(message) from error
    found: Login = {"headers": {**headers, **({"Authorization": f"Bearer {token}"} if token else {})}}
    if source.username:
        found["auth"] = (source.username, source.password.get_secret_value())
    if source.cert_file:
        found["cert"] = (source.cert_file, source.key_file)
    if source.insecure_skip_verify or source.ca_file:
        found["verify"] = not source.insecure_skip_verify and source.ca_file
    return found


class _Http:
    def __init__(self, ca_file: str | None) -> None:
        self.ca_file = ca_file
        self._client = DeadlineClient(ca_file)

    def get(self, base: str, path: str, login: Login | None = None) -> Reply:
        """Never raises: an error is a finding."""
        if not base:
            return Reply(None, error="no URL")
        url = urljoin((base if "://" in base else f"http://{base}").rstrip("/") + "/", path)
        try:
            answer = self._client.fetch(
                "GET", url, seconds=TIMEOUT_SECONDS, max_bytes=MAX_RESPONSE_BYTES, **(login or {}),
            )  # fmt: skip
        except (requests.RequestException, DeadlineExceededError, BodyTooLargeError, OSError, ValueError) as error:
            return Reply(None, error=connection_problem(error))
        try:
            return Reply(answer.status, json.loads(answer.body))
        except (ValueError, RecursionError):
            return Reply(answer.status)
