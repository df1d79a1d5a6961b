"""`gpu-advisor report`: what the last days were like, for people who were not there."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gpu_advisor.commands import advisor_client, output
from gpu_advisor.commands.errors import CommandError

if TYPE_CHECKING:
    from gpu_advisor.report.schema import Report

_UNITS = {"m": 60, "h": 3600, "d": 86400, "w": 604800}


def _seconds(_context: click.Context, _parameter: click.Parameter, text: str) -> int:
    from gpu_advisor.report.period import period

    found = re.fullmatch(r"(\d{1,6})([mhdw])", text)
    if not found:
        raise click.BadParameter(f"{text!r} is not a duration as 90m, 24h, 7d, 4w")
    seconds = int(found[1]) * _UNITS[found[2]]
    try:
        period(0, seconds)
    except ValueError as error:
        raise click.BadParameter(f"{text!r}: {error}") from error
    return seconds


@click.command("report")
@click.option(
    "--since", default="7d", show_default=True, metavar="DURATION", callback=_seconds, help="How far back, up to 400d."
)
@click.option("--format", "form", type=click.Choice(["html", "md", "json"]), help="[default: by FILE's name, or html]")
@click.option("--output", "-o", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Write it there, at once or not at all.  [default: standard output]")  # fmt: skip
@advisor_client.options
def command(
    since: int, form: str | None, file: Path | None,
    advisor: str | None, token_file: Path | None, ca_file: str | None, prometheus: str | None, config: Path | None,
) -> int:  # fmt: skip
    """Use, cost and waste of the last days, what is recommended, and what became of advice.

    \b
      gpu-advisor report -o report.html                             from the advisor on this machine, of a week
      gpu-advisor report --since 30d --format md >> review.md
      gpu-advisor report --prometheus http://prometheus:9090 --since 24h --format json

    HTML is one file with plots, to keep, to send and to print. All formats tell the same numbers. An advisor that runs
    also knows what became of its advice; one look at a Prometheus does not. Ends with 1 where no GPU was seen.
    """
    chosen = form or _format_from_name(file)
    found = advisor_client.connect(advisor, token_file, ca_file, prometheus, config).report(since)
    output.warn_if_stale(found)
    _write(_RENDERINGS[chosen](found), file)
    if not found["groups"]:
        period = found["period"]
        click.echo(
            f"gpu-advisor: no GPU was seen between {period['start']} and {period['end']}: see with gpu-advisor check "
            "whether an exporter is scraped, or ask further back with --since",
            err=True,
        )
        return 1
    return 0


def _format_from_name(file: Path | None) -> str:
    """The format that a file's name asks for."""
    return {".json": "json", ".md": "md", ".markdown": "md"}.get(file.suffix.lower() if file else "", "html")


def _page(found: Report) -> str:
    from gpu_advisor.report.html import page

    return page(found)


def _markdown(found: Report) -> str:
    from gpu_advisor.report.markdown import markdown

    return markdown(found)


def _json(found: Report) -> str:
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"


_RENDERINGS: dict[str, Callable[[Report], str]] = {"html": _page, "md": _markdown, "json": _json}


def _write(text: str, file: Path | None) -> None:
    """Whole or not at all: what looks at the file while it is renewed sees the former one."""
    data = text.encode("utf-8", "replace")
    if file is None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    try:
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        try:
            with os.fdopen(handle, "wb") as beside:
                beside.write(data)
            os.chmod(name, 0o644)
            os.replace(name, file)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror}; name a file in a folder that you may write to") from error
