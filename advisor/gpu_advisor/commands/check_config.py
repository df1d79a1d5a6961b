"""`gpu-advisor check-config`: whether a settings file and the files that it names are valid, and what it says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
    """Check a settings file. The mappings, prices and inventory that it names are checked, too. Exit code 2, with file,
    line and fix of each problem, if one is not valid.

    \b
      gpu-advisor check-config advisor.yml
    """
    from gpu_advisor.settings import load_settings

    settings = load_settings(file)
    unchecked = tuple(check_files(settings))
    if not quiet:
        for line in (f"{file}: valid", *summary(settings), *unchecked):
            click.echo(one_line(line))


def check_files(settings: Settings) -> Iterator[str]:
    """Those that are not here, as for the settings of another machine. Raises ConfigError for one that is invalid."""
    from gpu_advisor.allocation.inventory_file import read_inventory
    from gpu_advisor.cost.catalogue import read_catalogue
    from gpu_advisor.cost.errors import CostError
    from gpu_advisor.settings import ConfigError
    from gpu_advisor.sources.exporters.mapping_files import MappingError, read_mappings

    def inventory(path: Path) -> object:
        return read_inventory(path, 0.0, settings.allocation.gpu_memory_specs)

    named: tuple[tuple[str, str, Callable[[Path], object]], ...] = (
        ("source.mappings_dir", settings.source.mappings_dir, lambda path: read_mappings(str(path))),
        ("cost.catalogue", settings.cost.catalogue, read_catalogue),
        ("allocation.inventory_file", settings.allocation.inventory_file, inventory),
    )
    for key, name, read in named:
        if name and not Path(name).exists():
            yield f"not checked   {key}: {name} is not on this machine"
        elif name:
            try:
                read(Path(name))
            except (ConfigError, CostError, MappingError) as error:
                raise ConfigError(f"{key}: {error}") from error


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
