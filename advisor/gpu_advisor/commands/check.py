"""`gpu-advisor check`: the checklist."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from gpu_advisor.commands import advisor_client, output
from gpu_advisor.evaluation.recommendation import CheckStatus
from gpu_advisor.rendering.escaping import one_line

if TYPE_CHECKING:
    from gpu_advisor.documents import schema

CSV_COLUMNS = (
    "item", "scope_kind", "scope", "status", "severity", "value", "low", "high", "missed_by", "reason", "message",
)  # fmt: skip

HEADINGS: tuple[str, ...] = ("scope", "item", "status", "value", "target", "message")


@click.command("check")
@click.option("--status", type=click.Choice([each.value for each in CheckStatus]), help="Only checks with this status.")
@click.option("--item", help="E.g. gpu_utilization.", metavar="NAME")
@click.option("--gpus", is_flag=True, help="Include checks per GPU.")
@output.options("a target is missed, except informational ones")
@advisor_client.options
def command(
    status: str | None, item: str | None, gpus: bool, format_: output.Format, exit_code: bool,
    source: advisor_client.DataSource,
) -> int:  # fmt: skip
    """Print the checklist of fleet, pools and nodes: met, missed (by how much) or unknown (why).

    \b
      gpu-advisor check                                      the local advisor
      gpu-advisor check --prometheus http://prometheus:9090  evaluated here
      gpu-advisor check --gpus --status missed --format csv  for scripts
    """
    filters = {name: value for name, value in (("status", status), ("item", item)) if value is not None}
    client = advisor_client.connect(source)
    answer = client.checks(filters)
    old = output.warn_if_stale(answer)
    found = [each for each in answer["checks"] if gpus or each["scope"]["kind"] != "gpu"]
    answer["checks"], answer["total"] = found, len(found)
    if format_ == "json":
        output.show_json(answer)
    elif format_ == "csv":
        output.show_documents_csv(CSV_COLUMNS, found)
    elif answer["at"] is not None:
        width = output.terminal_width() if sys.stdout.isatty() else output.NARROW_WIDTH
        output.show_table(*short_table(found, width), "No matching checks.")
    if exit_code and any(each["status"] == "missed" and each["severity"] != "info" for each in found):
        return output.EXIT_ACTION_NEEDED
    return 1 if old and (exit_code or answer["at"] is None) else 0


def short_table(checks: Sequence[schema.CheckDocument], width: int) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Headings and rows. A terminal narrower than NARROW_WIDTH has value, target and message in one column."""
    if width >= output.NARROW_WIDTH:
        return HEADINGS, [_row(each) for each in checks]
    found: list[tuple[str, ...]] = []
    for each in checks:
        scope, item, status, value, target, message = _row(each)
        known = "" if each["value"] is None else f"{value}, target {target}" if target else value
        found.append((status, scope, item, "; ".join(filter(None, (known, message)))))
    return ("status", "scope", "item", "value"), found


def _row(each: schema.CheckDocument) -> tuple[str, ...]:
    unit = "money" if each["item"] == "cost" else "ratio"
    low, high = (output.format_ratio(value, unit) for value in (each["low"], each["high"]))
    band = f"{low} to {high}" if each["low"] and each["high"] else f"at most {high}" if each["high"] else low
    of = (
        each["scope"]["kind"]
        if each["scope"]["kind"] == "fleet"
        else f"{each['scope']['kind']} {each['scope']['label']}"
    )
    value = output.format_ratio(each["value"], unit)
    return one_line(of), each["title"], each["status"], value, band, one_line(each["message"])
