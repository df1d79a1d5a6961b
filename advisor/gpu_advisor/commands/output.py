"""Output of the commands: a table on a terminal, plain columns in a pipe, JSON or CSV for scripts."""

from __future__ import annotations

import csv
import json
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from gpu_advisor.commands.common_options import output_format
from gpu_advisor.rendering.escaping import escape_formula, one_line
from gpu_advisor.web.page.template_filters import ago

if TYPE_CHECKING:
    from rich.table import Table

    from gpu_advisor.documents import schema

Format = Literal["table", "json", "csv"]
F = TypeVar("F", bound=Callable[..., Any])

#: Columns of a terminal below which tables have fewer columns.
NARROW_WIDTH = 100

EXIT_ACTION_NEEDED = 3
EXIT_INSUFFICIENT_DATA = 4

#: rich's styles of severities and statuses.
STYLES = {
    "critical": "bold red", "warning": "yellow", "info": "cyan", "missed": "yellow", "met": "green", "unknown": "dim",
}  # fmt: skip


def options(action_needed: str) -> Callable[[F], F]:
    """Add --format and --exit-code, as the parameters `format_` and `exit_code`.

    `action_needed`: the condition under which the command exits with EXIT_ACTION_NEEDED, for the help.
    """
    format_option: Callable[[F], F] = output_format("table", "json", "csv")
    exit_code_option = click.option(
        "--exit-code", is_flag=True, help=f"Exit with {EXIT_ACTION_NEEDED} if {action_needed}."
    )

    def add(command: F) -> F:
        return exit_code_option(format_option(command))

    return add


def show_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def show_csv(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(headings)
    # As in the API's CSV: no formulas, no NUL.
    writer.writerows([[escape_formula(value) if isinstance(value, str) else value for value in row] for row in rows])


def show_documents_csv(columns: Sequence[str], documents: Iterable[Mapping[str, Any]]) -> None:
    """A row per document, with these of its fields; a scope as `scope_kind` and `scope`."""
    show_csv(columns, [[_csv_value(each, name) for name in columns] for each in documents])


def _csv_value(document: Mapping[str, Any], name: str) -> object:
    if isinstance(document.get("scope"), Mapping) and name in ("scope_kind", "scope"):
        return document["scope"]["kind" if name == "scope_kind" else "name"]
    value = document[name]
    return "; ".join(value) if isinstance(value, list | tuple) else value


def show_table(headings: Sequence[str], rows: Sequence[Sequence[str]], empty: str) -> None:
    """Fitted to a terminal's width; plain and unabridged in a pipe, for grep and awk."""
    if not rows:
        click.echo(empty)
    elif sys.stdout.isatty():
        _rich(headings, rows)
    else:
        widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
        for row in (headings, *rows):
            click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def show_columns(columns: Sequence[str], documents: Sequence[Mapping[str, Any]], format_: Format, empty: str) -> None:
    """These fields of each document, as CSV or as a table with a dash for what is unknown or empty."""
    if format_ == "csv":
        show_documents_csv(columns, documents)
    else:
        show_table(columns, [[_cell(each[name]) for name in columns] for each in documents], empty)


def _cell(value: object) -> str:
    if value is None or value == "":
        return "-"
    return f"{value:g}" if isinstance(value, float) else one_line(str(value))


def echo_paragraph(text: str) -> None:
    """A sentence, broken between words on a terminal; one line in a pipe."""
    if not sys.stdout.isatty():
        click.echo(text)
        return
    width = terminal_width()
    click.echo(textwrap.fill(text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False))


def terminal_width() -> int:
    """Columns of this terminal."""
    from rich.console import Console

    return Console().width


def _rich(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console

    Console().print(rich_table(headings, rows))


def rich_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """For a terminal: severities and statuses have their colours."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(*headings, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in row))
    return table


def warn_if_stale(header: schema.Header) -> bool:
    """Warn on stderr if the response is stale or empty. Returns whether it is."""
    if header["at"] is None:
        click.echo(f"gpu-advisor: no evaluation yet: {header['source']['message']}", err=True)
        return True
    if header["stale"]:
        click.echo(f"gpu-advisor: stale, as of {header['at']}: {header['source']['message']}", err=True)
        return True
    return False


def format_ratio(value: float | None, unit: str = "ratio") -> str:
    """For people: a ratio in percent; an unknown value is a dash, never a zero."""
    if value is None:
        return "-"
    return f"{value * 100:.1f} %" if unit == "ratio" else f"{value:g}"


def marks(each: schema.RecommendationDocument) -> list[str]:
    """`stale` and `snoozed`, as far as they apply."""
    return [word for word, applies in (("stale", each["held"]), ("snoozed", each["snoozed"])) if applies]


def format_since(since: str, at: str | None) -> str:
    """`3 h ago`: RFC 3339 times, relative to the evaluation's."""
    # Python 3.10 does not parse the Z.
    return since if at is None else ago(
        *(datetime.fromisoformat(time.replace("Z", "+00:00")).timestamp() for time in (since, at))
    )  # fmt: skip
