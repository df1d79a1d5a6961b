"""`gpu-advisor runbook`: a runbook in the terminal."""

from __future__ import annotations

import re
import sys
from difflib import get_close_matches
from pathlib import Path

import click

from gpu_advisor.commands import common_options
from gpu_advisor.commands.errors import CommandError
from gpu_advisor.commands.http_client import DEFAULT_ADVISOR, read_token
from gpu_advisor.documents.runbook_files import runbook_names, runbook_text
from gpu_advisor.rendering.escaping import one_line
from gpu_advisor.state.view import alert_name


@click.command("runbook")
@click.argument("name", required=False)
@click.option("--advisor", metavar="URL", help=f"The advisor that knows the ID.  [default: {DEFAULT_ADVISOR}]")
@common_options.token_file
@common_options.ca_file
def command(name: str | None, advisor: str | None, token_file: Path | None, ca_file: str | None) -> None:
    """Print the runbook of an alert or a recommendation. Without a name: list them.

    \b
      gpu-advisor runbook GpuDown       the alert's name
      gpu-advisor runbook idle_reclaim  a kind of recommendation
      gpu-advisor runbook 61f0c1        a unique prefix of a recommendation's ID
    """
    if name is None:
        click.echo("\n".join(runbook_names()))
        return
    text = runbook_text(name) or runbook_text(alert_name(name))
    if text is None and re.fullmatch("[0-9a-f]+", name):
        text = runbook_text(alert_name(_kind_of(name, advisor, token_file, ca_file)))
    if text is None:
        near = get_close_matches(name, runbook_names(), n=1)
        hint = f"did you mean {near[0]}?" if near else "`gpu-advisor runbook` lists them"
        raise CommandError(f"no runbook {one_line(name)!r}: {hint}")
    _show(text)


def _kind_of(id_: str, advisor: str | None, token_file: Path | None, ca_file: str | None) -> str:
    """The kind of a recommendation by its ID. Raises CommandError."""
    from gpu_advisor.commands.advisor_client import HttpAdvisor
    from gpu_advisor.commands.short_ids import find_by_id

    client = HttpAdvisor(advisor or DEFAULT_ADVISOR, read_token(token_file), ca_file)
    return find_by_id(client.recommendations({})["recommendations"], id_)["kind"]


def _show(text: str) -> None:
    """Formatted on a terminal, Markdown in a pipe."""
    if not sys.stdout.isatty():
        click.echo(text.rstrip())
        return
    from rich.console import Console
    from rich.markdown import Markdown

    Console().print(Markdown(text))
