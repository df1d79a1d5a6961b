"""`gpu-advisor serve`: the advisor with an existing Prometheus."""

from __future__ import annotations

from pathlib import Path

import click

from gpu_advisor.commands.run_service import log_to_stderr, run_service
from gpu_advisor.settings import Settings, load_settings


@click.command("serve")
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), help="Settings (YAML). Required.")
@click.option(
    "--write-token-file", type=click.Path(dir_okay=False), metavar="FILE",
    help="File with the bearer token required for write requests, if web.write_token_file is not set.",
)  # fmt: skip
@click.option(
    "--allowed-host", multiple=True, metavar="NAME",
    help="Additional Host header to accept, besides web.allowed_hosts. Repeatable.",
)  # fmt: skip
def command(config: Path | None, write_token_file: str | None, allowed_host: tuple[str, ...]) -> None:
    """Run the advisor with an existing Prometheus. SIGHUP reads the settings again.

    \b
      gpu-advisor init --prometheus http://prometheus:9090  writes advisor.yml
      gpu-advisor serve --config advisor.yml
    """
    if config is None:
        raise click.UsageError("--config is missing: `gpu-advisor init` writes a settings file for what runs here")
    log_to_stderr()

    def load() -> Settings:
        return _with_options(load_settings(config), write_token_file, allowed_host)

    run_service(load(), load=load)


def _with_options(settings: Settings, write_token_file: str | None, allowed_hosts: tuple[str, ...]) -> Settings:
    web = settings.web.model_copy(
        update={
            "write_token_file": settings.web.write_token_file or write_token_file or "",
            "allowed_hosts": [*settings.web.allowed_hosts, *allowed_hosts],
        }
    )
    return settings.model_copy(update={"web": web})
