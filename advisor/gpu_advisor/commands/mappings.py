"""`gpu-advisor mappings`: which exporters are understood, and what is made of one exporter's page."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gpu_advisor.commands import common_options

if TYPE_CHECKING:
    from gpu_advisor.promql.expressions import Labels
    from gpu_advisor.sources.exporters.exposition_check import MappedPage, Page
    from gpu_advisor.sources.exporters.mapping import ExporterMapping

_DIRECTORY = click.option(
    "--mappings-dir", default="", metavar="DIRECTORY",
    help="Directory of your own mapping files; one with the name of a shipped mapping replaces it.",
)  # fmt: skip
_FORMAT = common_options.output_format("text", "json", name="output")

#: Units of quantities in the advisor, by the ends of their names; the first that matches. Others are counts or flags.
_UNITS = (
    ("_total", "bytes"), ("_temperature", "°C"), ("_power", "W"), ("_power_limit", "W"), ("_clock", "Hz"),
    ("_clock_max", "Hz"), ("_receive", "bytes/s"), ("_transmit", "bytes/s"), ("_peak_memory", "bytes"),
    ("_utilization", "ratio"), ("_used", "ratio"), ("_activity", "ratio"),
)  # fmt: skip


@click.group("mappings")
def command() -> None:
    """List the mappings of exporters, or show how they interpret saved /metrics output."""


@command.command("list")
@_DIRECTORY
@_FORMAT
def list_mappings(mappings_dir: str, output: str) -> None:
    """List the mappings, the preferred ones first, with the metrics that detect each exporter.

    \b
      gpu-advisor mappings list
    """
    found = _mappings(mappings_dir)
    if output == "json":
        rows = [
            {
                "name": mapping.name,
                "title": mapping.title,
                "rank": mapping.rank,
                "scope": mapping.scope,
                "detected_by": list(mapping.identity.metrics),
                "quantities": list(mapping.quantities),
            }
            for mapping in found
        ]
        click.echo(json.dumps(rows, indent=2))
        return
    width = max(len(mapping.name) for mapping in found)
    for mapping in found:
        click.echo(f"{mapping.name:<{width}}  {mapping.scope:<4}  {', '.join(mapping.identity.metrics)}")


@command.command("test")
@click.argument("exposition", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True))
@_DIRECTORY
@_FORMAT
@click.option(
    "--instance",
    default="10.0.0.1:9400",
    show_default=True,
    help="Address from which it would be scraped.",
    metavar="HOST:PORT",
)
@click.option("--job", default="exporter", show_default=True, help="Job that would scrape it.", metavar="NAME")
def test_exposition(exposition: Path, mappings_dir: str, output: str, instance: str, job: str) -> None:
    """Show how the mappings interpret saved /metrics output (- is standard input).

    Exits with 1 if no mapping finds a GPU or node in it.

    \b
      curl -s http://NODE:9400/metrics | gpu-advisor mappings test -
    """
    from gpu_advisor.sources.exporters.exposition_check import apply_mappings, unused_metrics

    page = _read_page(exposition, {"job": job, "instance": instance})
    found = apply_mappings(_mappings(mappings_dir), page)
    unused = unused_metrics(found, page)
    if output == "json":
        click.echo(json.dumps({"mappings": [_document(each) for each in found], "unused_metrics": unused}, indent=2))
    else:
        for each in found:
            _print(each)
        if unused:
            click.echo(f"GPU metrics that no mapping reads: {', '.join(unused)}")
        if not found:
            click.echo(
                f"{exposition}: no mapping finds a GPU or node on this page: write a mapping into a directory"
                " (docs/mappings.md, Adding an exporter) and give it with --mappings-dir",
                err=True,
            )
    if not any(each.things for each in found):
        raise SystemExit(1)


def _mappings(directory: str) -> tuple[ExporterMapping, ...]:
    from gpu_advisor.sources.exporters.mapping_files import MappingError, read_mappings

    try:
        return read_mappings(directory)
    except MappingError as error:
        raise click.ClickException(str(error)) from error


def _read_page(path: Path, target: dict[str, str]) -> Page:
    from prometheus_client.parser import text_string_to_metric_families as text_families

    from gpu_advisor.sources.embedded.openmetrics_import import with_target_labels

    found: dict[str, dict[Labels, float]] = {}
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
        for family in text_families(text):
            for sample in family.samples:
                found.setdefault(sample.name, {})[with_target_labels(sample.labels, target)] = sample.value
    except OSError as error:
        raise click.ClickException(
            f"{path}: {error.strerror}: give a page saved with curl HOST:PORT/metrics"
        ) from error
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise click.ClickException(
            f"{path}: not in Prometheus' text format ({error}): save it with curl HOST:PORT/metrics"
        ) from error
    return found


def _document(found: MappedPage) -> dict[str, object]:
    return {
        "mapping": found.mapping.name,
        "scope": found.mapping.scope,
        "things": [
            {
                "identity": {key: value for key, value in thing.identity.items() if key != "exporter" and value},
                "values": dict(thing.values),
                "counters": sorted(thing.counters),
            }
            for thing in found.things
        ],
        "missing": list(found.missing),
        "unidentified": found.unidentified,
        "shared_identities": list(found.shared),
    }


def _print(found: MappedPage) -> None:
    title = found.mapping.title or found.mapping.name
    click.echo(f"{title}: {len(found.things)} {found.mapping.scope}s")
    if found.unidentified:
        labels = ", ".join("/".join(each) for each in found.mapping.candidates(found.mapping.by[0]))
        click.echo(f"  {found.unidentified} series left out: none of {labels} has a value")
    for name in found.shared:
        click.echo(f"  several GPUs are identified by {name}: begin labels.uuid with a label that differs")
    identifier = found.mapping.by[0]
    for thing in found.things:
        rest = {key: value for key, value in thing.identity.items() if key not in (identifier, "exporter") and value}
        click.echo(f"  {thing.identity[identifier]}  " + "  ".join(f"{key}={value}" for key, value in rest.items()))
        for quantity in found.mapping.quantities:
            if quantity in thing.values:
                click.echo(f"    {quantity:<24} {thing.values[quantity]:.6g} {_unit(quantity)}".rstrip())
            elif quantity in thing.counters:
                click.echo(f"    {quantity:<24} counter, a rate from two scrapes on")
    if found.missing:
        click.echo(f"  not on this page: {', '.join(found.missing)}")


def _unit(quantity: str) -> str:
    return next((unit for end, unit in _UNITS if quantity.endswith(end)), "")
