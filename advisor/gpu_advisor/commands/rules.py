"""`gpu-advisor rules`: recording rules of the canonical series, built from the exporters' mappings."""

from __future__ import annotations

import click


def _names(mappings_dir: str) -> dict[str, list[str]]:
    """Accepted names of exporters -> names of their mappings, of which there is one for each prefix of its metrics.

    The full name, or without the suffix "exporter".
    """
    from gpu_advisor.sources.exporters.mapping_files import mappings

    found: dict[str, list[str]] = {}
    for mapping in mappings(mappings_dir):
        if not mapping.companion:
            found.setdefault(mapping.name.partition(" (")[0], []).append(mapping.name)
    short = {name.removesuffix("-exporter").removesuffix("_exporter"): names for name, names in found.items()}
    return {**short, **found}


@click.command("rules")
@click.option(
    "--source", "sources", multiple=True, metavar="EXPORTER",
    help="Exporter to record from, the preferred one first. Repeatable."
    "  [default: gpu-exporter and node_exporter]",
)  # fmt: skip
@click.option("--job", "jobs", multiple=True, help="Only series of this Prometheus job. Repeatable.", metavar="NAME")
@click.option(
    "--cluster-label", default="cluster", show_default=True,
    help="Label that distinguishes clusters in one Prometheus; empty: none.",
    metavar="NAME",
)  # fmt: skip
@click.option(
    "--mappings-dir", default="", metavar="DIRECTORY",
    help="Directory of your own mapping files, as source.mappings_dir in the settings.",
)  # fmt: skip
@click.option("--serving", is_flag=True, help="The rules of inference servers instead: all that have a mapping.")
def command(
    sources: tuple[str, ...], jobs: tuple[str, ...], cluster_label: str, mappings_dir: str, serving: bool
) -> None:
    """Print Prometheus recording rules for the series that dashboards and long windows read.

    \b
      gpu-advisor rules > recording.yml  for gpu-exporter and node_exporter
      gpu-advisor rules --source dcgm-exporter --source node_exporter \\
          > recording.yml
      gpu-advisor rules --serving > serving-recording.yml
    """
    if serving:
        from gpu_advisor.sources.exporters.serving.recording_rules import render_serving_rules

        if sources:
            raise click.UsageError("--serving records all inference servers: give no --source")
        click.echo(render_serving_rules(jobs, cluster_label), nl=False)
        return
    from gpu_advisor.sources.exporters.mapping_files import MappingError
    from gpu_advisor.sources.exporters.recording_rules import render_rules

    try:
        names = _names(mappings_dir)
    except MappingError as error:
        raise click.ClickException(str(error)) from error
    unknown = [source for source in sources if source not in names]
    if unknown:
        known = ", ".join(sorted(set(names)))
        raise click.BadParameter(f"{', '.join(unknown)}; known are {known}", param_hint="--source")
    click.echo(
        render_rules([name for source in sources for name in names[source]], jobs, cluster_label, mappings_dir),
        nl=False,
    )
