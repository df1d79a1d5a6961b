"""`gpu-advisor init`: a settings file for what is found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from stat import S_ISREG
from urllib.parse import urljoin, urlsplit

import click
import requests

from gpu_advisor.commands.errors import CommandError
from gpu_advisor.commands.exporter_client import DEFAULT_EXPORTER, ExporterClient
from gpu_advisor.commands.node_snapshot import take_snapshot
from gpu_advisor.commands.settings_file import FoundFleet, settings_yaml
from gpu_advisor.rendering.escaping import one_line
from gpu_advisor.sources.prometheus.http_client import (
    BodyTooLargeError,
    DeadlineClient,
    DeadlineExceededError,
    connection_problem,
)
from gpu_advisor.storage.output_file import check_target, write_output

DEFAULT_PROMETHEUS = "http://127.0.0.1:9090"
TIMEOUT_SECONDS = 3.0
MAX_RESPONSE_BYTES = 2**20


@click.command("init")
@click.option(
    "--prometheus",
    metavar="URL",
    help=f"Read GPUs from this Prometheus.  [default: one at {DEFAULT_PROMETHEUS}, if there is one]",
)
@click.option(
    "--exporter",
    "exporters",
    multiple=True,
    metavar="URL",
    help=f"Scrape this exporter. Repeatable.  [default: {DEFAULT_EXPORTER}]",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("advisor.yml"),
    show_default=True,
    help="Settings file to write.",
)
@click.option("--force", is_flag=True, help="Replace an existing file.")
def command(prometheus: str | None, exporters: tuple[str, ...], output: Path, force: bool) -> None:
    """Write a settings file for the exporters and GPUs found. It starts nothing and changes nothing else.

    \b
      gpu-advisor init  what runs on this machine
      gpu-advisor init --prometheus http://prometheus:9090
      gpu-advisor init --exporter http://node-1:9816 --exporter http://node-2:9816
    """
    _refuse_logins(prometheus or "", *exporters)
    if _is_file(output) and not force:
        raise CommandError(f"{output} exists: choose another --output, or replace it with --force")
    if prometheus and exporters:
        raise click.UsageError("--prometheus has the exporters' data already: remove --exporter")
    found = _from_prometheus(prometheus) if prometheus else None if exporters else _from_prometheus(None)
    found = found or _from_exporters(exporters)
    try:
        write_output(output, settings_yaml(found))
    except OSError as error:
        raise CommandError(f"{output}: {error.strerror}; choose another --output") from error
    where = f"Prometheus at {found.prometheus}" if found.prometheus else f"exporters {', '.join(found.exporters)}"
    models = ", ".join(f"{count} x {model}" for model, count in sorted((found.gpus_by_model or {}).items()))
    click.echo(one_line(f"{output}: written, for {where}; GPUs: {models or 'none found yet'}"))
    click.echo(f"Next: gpu-advisor serve --config {output}")


def _refuse_logins(*urls: str) -> None:
    """The file is for all to read, and so is what is printed."""
    if any("@" in urlsplit(url if "://" in url else f"http://{url}").netloc for url in urls):
        raise CommandError(
            "a URL has a user name or a password: leave it out here, and set username and password in the file"
        )


def _is_file(output: Path) -> bool:
    """Whether something is there that would be lost. Raises CommandError for what cannot be written."""
    try:
        found = check_target(output)
    except OSError as error:
        raise CommandError(f"{output}: {error.strerror}; choose another --output") from error
    return found is not None and S_ISREG(found.st_mode)


def _from_prometheus(url: str | None) -> FoundFleet | None:
    """The fleet of a Prometheus; None if `url` is None and there is none at the usual address."""
    address = (url or DEFAULT_PROMETHEUS).rstrip("/")
    address = address if "://" in address else f"http://{address}"
    try:
        answer = DeadlineClient().fetch(
            "GET", urljoin(address + "/", "api/v1/query?query=1"), seconds=TIMEOUT_SECONDS, max_bytes=MAX_RESPONSE_BYTES
        )
        status, error = answer.status, f"HTTP {answer.status}"
    except (requests.RequestException, DeadlineExceededError, BodyTooLargeError, OSError, ValueError) as problem:
        status, error = 0, connection_problem(problem)
    if status != requests.codes.ok:
        if url is None:
            return None
        raise CommandError(f"no Prometheus API at {address} ({error}): check the URL, its path prefix and its login")
    return FoundFleet(prometheus=address, gpus_by_model=_models(address))


def _models(prometheus: str) -> Mapping[str, int]:
    """GPUs by model, through the mappings of the exporters that Prometheus scrapes."""
    from gpu_advisor.observation.evaluate import evaluate
    from gpu_advisor.runtime.wiring import one_shot_source
    from gpu_advisor.settings import PrometheusSourceSettings, Settings, SourceSettings
    from gpu_advisor.sources.base import SourceError

    settings = Settings(source=SourceSettings(prometheus=PrometheusSourceSettings(url=prometheus)))
    source = one_shot_source(settings)
    try:
        import time

        facts = evaluate(source, settings, round(time.time(), 3)).facts
    except SourceError as error:
        raise CommandError(str(error)) from error
    finally:
        source.close()
    return Counter(gpu.name for gpu in facts.gpus if gpu.name)


def _from_exporters(urls: tuple[str, ...]) -> FoundFleet:
    """Raises CommandError if one does not answer."""
    models: Counter[str] = Counter()
    addresses = []
    for url in urls or (DEFAULT_EXPORTER,):
        address = url if "://" in url else f"http://{url}"
        for gpu in take_snapshot(ExporterClient(address, None, None).scrape()).gpus:
            models[gpu.name] += 1
        addresses.append(urlsplit(address).netloc)
    return FoundFleet(exporters=addresses, gpus_by_model=models)
