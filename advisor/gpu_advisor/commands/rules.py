"""`gpu-advisor rules`: recording rules of the canonical series, built from the exporters' mappings."""

from __future__ import annotations

import click


def _names() -> dict[str, str]:
    """Accepted names of exporters -> name of the mapping: the full name, or without the suffix "exporter"."""
    from gpu_advisor.sources.exporters.mapping import mappings

    found = {mapping.name: mapping.name for mapping in mappings() if not mapping.companion}
    short = {name.removesuffix("-exporter").removesuffix("_exporter"): name for name in found}
    return {**short, **found}


@click.command("rules")
@click.option(
    "--source", "sources", multiple=True, metavar="EXPORTER",
    help="Exporter to record from; repeatable, the preferred one first."
    "  [default: gpu-exporter and node_exporter]",
)  # fmt: skip
@click.option("--job", "jobs", multiple=True, help="Only series of this Prometheus job; repeatable.")
@click.option(
    "--scrape-interval", type=click.FloatRange(min=0.1), default=15.0, show_default=True,
    help="Scrape interval, in seconds, of exporters that publish gauges: data coverage is computed from the number of "
    "samples.",
)  # fmt: skip
def command(sources: tuple[str, ...], jobs: tuple[str, ...], scrape_interval: float) -> None:
    """Print Prometheus recording rules for the series that dashboards and long windows read."""
    from gpu_advisor.sources.exporters.recording_rules import render_rules

    names = _names()
    unknown = [source for source in sources if source not in names]
    if unknown:
        known = ", ".join(sorted(set(names)))
        raise click.BadParameter(f"{', '.join(unknown)}; known are {known}", param_hint="--source")
    click.echo(render_rules([names[source] for source in sources], jobs, scrape_interval), nl=False)
