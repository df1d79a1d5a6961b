"""`gpu-advisor report`: utilization, cost and waste of the last days."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gpu_advisor.commands import advisor_client, common_options, output
from gpu_advisor.commands.errors import CommandError
from gpu_advisor.storage.output_file import write_output

if TYPE_CHECKING:
    from gpu_advisor.report.schema import Report


def _seconds(context: click.Context, parameter: click.Parameter, text: str) -> int:
    from gpu_advisor.report.period import report_period

    seconds = common_options.parse_duration(context, parameter, text)
    try:
        report_period(0, seconds)
    except ValueError as error:
        raise click.BadParameter(f"{text!r}: {error}") from error
    return seconds


@click.command("report")
@click.option(
    "--since", default="7d", show_default=True, metavar="DURATION", callback=_seconds, help="How far back, up to 400d."
)
@click.option(
    "--format", "form", type=click.Choice(["html", "md", "json", "pdf"]), help="[default: by FILE's name, or html]"
)
@click.option("--output", "-o", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Write to FILE, atomically.  [default: standard output]")  # fmt: skip
@advisor_client.options
def command(since: int, form: str | None, file: Path | None, source: advisor_client.DataSource) -> int:
    """Report utilization, cost and waste of the last days, recommendations and outcomes.

    \b
      gpu-advisor report -o report.html  the last week
      gpu-advisor report -o report.pdf   by Chromium or Chrome
      gpu-advisor report --since 30d --format md >> review.md
      gpu-advisor report --prometheus http://prometheus:9090 --since 24h \\
          --format json

    HTML is one self-contained file with charts, to archive, mail or print. All formats have the same numbers. Only a
    running advisor knows the outcomes of its recommendations. Exits with 1 if no GPU was observed.
    """
    chosen = form or _format_from_name(file)
    found = advisor_client.connect(source).report(since)
    output.warn_if_stale(found)
    _write(_RENDERINGS[chosen](found), file)
    if not found["groups"]:
        from gpu_advisor.report.usage_sections import no_gpus_advice

        period = found["period"]
        click.echo(
            f"gpu-advisor: no GPU was observed between {period['start']} and {period['end']}. {no_gpus_advice(found)}",
            err=True,
        )
        return 1
    return 0


def _format_from_name(file: Path | None) -> str:
    """The format for a file name."""
    suffix = file.suffix.lower() if file else ""
    return {".json": "json", ".md": "md", ".markdown": "md", ".pdf": "pdf"}.get(suffix, "html")


def _page(found: Report) -> str:
    from gpu_advisor.report.html import render_html

    return render_html(found)


def _markdown(found: Report) -> str:
    from gpu_advisor.report.markdown import render_markdown

    return render_markdown(found)


def _json(found: Report) -> str:
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"


def _pdf(found: Report) -> bytes:
    from gpu_advisor.commands.pdf import print_pdf

    return print_pdf(_page(found))


_RENDERINGS: dict[str, Callable[[Report], str | bytes]] = {
    "html": _page, "md": _markdown, "json": _json, "pdf": _pdf,
}  # fmt: skip


def _write(content: str | bytes, file: Path | None) -> None:
    if file is None:
        sys.stdout.buffer.write(content.encode("utf-8", "replace") if isinstance(content, str) else content)
        sys.stdout.buffer.flush()
        return
    try:
        write_output(file, content)
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror}; choose a file in a writable directory") from error
