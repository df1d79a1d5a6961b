"""`gpu-advisor check-config`: whether a settings file is valid, and what it says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gpu_advisor.rendering.escaping import one_line

if TYPE_CHECKING:
    from gpu_advisor.settings import Settings


@click.command("check-config")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--quiet", is_flag=True, help="Print errors only.")
def command(file: Path, quiet: bool) -> None:
    """Check a settings file. Exit code 2, with file, line and fix of each problem, if it is not valid.

    \b
      gpu-advisor check-config advisor.yml
    """
    from gpu_advisor.settings import load_settings

    settings = load_settings(file)
    if not quiet:
        for line in (f"{file}: valid", *summary(settings)):
            click.echo(one_line(line))


def summary(settings: Settings) -> Iterator[str]:
    """What the settings choose, a line each; what is left at its default has none."""
    source = settings.source
    if source.prometheus:
        yield f"source        Prometheus at {source.prometheus.url}"
    elif source.embedded:
        yield f"source        embedded history, scraping {', '.join(source.embedded.targets) or 'nothing yet'}"
    else:
        yield "source        none: set source.prometheus.url, or use `gpu-advisor up`"
    if settings.pools:
        yield f"pools         {', '.join(f'{pool.name} ({pool.kind})' for pool in settings.pools)}"
    if settings.teams:
        yield f"teams         {', '.join(team.name for team in settings.teams)}"
    if settings.cost.gpu_price_per_hour:
        yield f"prices        {', '.join(settings.cost.gpu_price_per_hour)}"
    for each in settings.alertmanagers:
        yield f"Alertmanager  {each.url}"
    yield f"page          {settings.web.listen_address}"
