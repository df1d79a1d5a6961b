"""`gpu-advisor serve`: the advisor with an existing Prometheus."""

from __future__ import annotations

from pathlib import Path

import click

from gpu_advisor.commands.run_service import log_to_stderr, run_service
from gpu_advisor.settings import load_settings


@click.command("serve")
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), required=True, help="Settings (YAML).")
def command(config: Path) -> None:
    """Run the advisor with an existing Prometheus. SIGHUP reads the settings again."""
    log_to_stderr()
    run_service(load_settings(config), load=lambda: load_settings(config))
