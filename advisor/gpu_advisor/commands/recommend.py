"""`gpu-advisor recommend`: the active recommendations."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, get_args

import click

from gpu_advisor.commands import advisor_client, money, output
from gpu_advisor.commands.advice_entries import entries
from gpu_advisor.commands.errors import CommandError
from gpu_advisor.commands.short_ids import short_ids
from gpu_advisor.evaluation.recommendation import Severity
from gpu_advisor.rendering.escaping import one_line
from gpu_advisor.rendering.names import humanize

if TYPE_CHECKING:
    from gpu_advisor.documents import schema

CSV_COLUMNS = (
    "id", "kind", "severity", "scope_kind", "scope", "current", "recommended", "unit", "diagnosis", "confidence",
    "since", "held", "summary", "savings_per_hour", "savings_per_month", "savings_bound", "currency", "estimated",
    "owners",
)  # fmt: skip


@click.command("recommend")
@click.argument("id_", metavar="[ID]", required=False)
@click.option("--kind", help="Only this kind, e.g. idle_reclaim.", metavar="KIND")
@click.option("--severity", type=click.Choice(get_args(Severity)), help="Only this severity.")
@click.option("--node", help="Only recommendations for GPUs of this node.", metavar="NAME")
@click.option("--pool", help="Only this pool.", metavar="NAME")
@click.option("--job", help="Only this training job or owner.", metavar="NAME")
@output.options("there are recommendations that are not snoozed")
@advisor_client.options
def command(
    id_: str | None, kind: str | None, severity: str | None, node: str | None, pool: str | None, job: str | None,
    format_: output.Format, exit_code: bool, source: advisor_client.DataSource,
) -> int:  # fmt: skip
    """Print the active recommendations. With an ID: that one, with its evidence and how to apply it.

    \b
      gpu-advisor recommend                                      the local advisor
      gpu-advisor recommend --prometheus http://prometheus:9090  evaluated here
      gpu-advisor recommend --pool chat --exit-code || notify    for scripts
    """
    given = {"kind": kind, "severity": severity, "node": node, "pool": pool, "job": job}
    filters = {name: value for name, value in given.items() if value is not None}
    client = advisor_client.connect(source)
    answer = client.recommendations(filters)
    old = output.warn_if_stale(answer)
    if id_ is not None:
        answer["recommendations"] = [each for each in answer["recommendations"] if each["id"].startswith(id_)]
        if not answer["recommendations"]:
            raise CommandError(f"no active recommendation {id_!r}: `gpu-advisor recommend` lists them")
    found = answer["recommendations"]
    if format_ == "json":
        output.show_json(answer)
    elif format_ == "csv":
        output.show_documents_csv(CSV_COLUMNS, map(_csv_document, found))
    elif id_ is not None:
        groups = {member: group for group in answer["groups"] for member in group["ids"]}
        for each in found:
            click.echo("\n".join(_details(each, groups.get(each["id"]))))
    else:
        _show(answer)
    if exit_code and any(not each["snoozed"] for each in found):
        return output.EXIT_ACTION_NEEDED
    return 1 if old and (exit_code or answer["at"] is None) else 0


HEADINGS = ("severity", "savings/month", "recommendation", "owner", "change", "since", "", "id")
SHORT_HEADINGS = ("severity", "savings/month", "recommendation", "owner", "since", "id")

#: Owners that a cell shows.
MAX_OWNERS = 2


def rows(answer: schema.Recommendations) -> list[tuple[str, ...]]:
    """A row of HEADINGS per recommendation, for a pipe."""
    return [
        (
            each["severity"], money.format_savings(each, short=True), one_line(each["summary"]), owners(each["owners"]),
            one_line(change(each)), each["since"], ", ".join(output.marks(each)), each["id"],
        )
        for each in answer["recommendations"]
    ]  # fmt: skip


def short_table(answer: schema.Recommendations, width: int) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Headings and rows for a terminal: since when relative to the evaluation, and short IDs. A row per entry: what
    concerns several GPUs of a node is one.

    A narrow terminal has no column of owners: they follow the summary.
    """
    ids = short_ids(each["id"] for each in answer["recommendations"])
    narrow = width < output.NARROW_WIDTH
    found = []
    for each in entries(answer):
        summary = one_line(each.summary) + "".join(f" ({mark})" for mark in each.marks)
        owner = owners(each.owners)
        is_named = not owner or owner in summary
        texts = (summary if is_named else f"{summary}; owner: {owner}",) if narrow else (summary, owner)
        since = output.format_since(each.since, answer["at"])
        more = f" +{len(each.members) - 1}" if len(each.members) > 1 else ""
        found.append((each.severity, each.savings, *texts, since, ids[each.first["id"]] + more))
    return tuple(name for name in SHORT_HEADINGS if not narrow or name != "owner"), found


def change(each: schema.RecommendationDocument) -> str:
    """From what to what, with the unit; six digits, and all of a whole number."""
    before, after = (f"{x:.0f}" if float(x).is_integer() else f"{x:g}" for x in (each["current"], each["recommended"]))
    return f"{before} -> {after} {each['unit']}"


def owners(names: Sequence[str]) -> str:
    """Who uses the GPUs, the first two by name."""
    more = f" and {len(names) - MAX_OWNERS} more" if len(names) > MAX_OWNERS else ""
    return one_line("; ".join(names[:MAX_OWNERS])) + more


def _show(answer: schema.Recommendations) -> None:
    if answer["at"] is None:
        return  # `warn_if_stale` has printed why
    if sys.stdout.isatty():
        output.show_table(*short_table(answer, output.terminal_width()), "No recommendations.")
    else:
        output.show_table(HEADINGS, rows(answer), "No recommendations.")
    if answer["recommendations"]:
        unmeasured = sum(1 for each in answer["recommendations"] if each["savings_per_hour"] is None)
        without = f"; {unmeasured} without an amount" if 0 < unmeasured < len(answer["recommendations"]) else ""
        output.echo_paragraph(f"Together: {money.format_savings(answer['summary'])}{without}")
        if lost := money.lost_by_group(answer["summary"]):
            output.echo_paragraph(one_line(lost))
    for word in answer["abstentions"]:
        about = "" if word["scope"]["kind"] == "fleet" else f" of {word['scope']['label']}"
        output.echo_paragraph(one_line(f"Insufficient data for {humanize(word['subject'])}{about}: {word['message']}"))


def _csv_document(each: schema.RecommendationDocument) -> dict[str, object]:
    """With booleans as in the API's CSV."""
    return {name: str(value).lower() if isinstance(value, bool) else value for name, value in each.items()}


def _details(each: schema.RecommendationDocument, group: schema.RecommendationGroupDocument | None) -> Iterator[str]:
    """With the steps for all GPUs of its group: they are one visit to the node."""
    yield one_line(each["summary"])
    yield one_line(each["explanation"])
    projected = output.format_ratio(each["projection"]["utilization_ratio"])
    yield f"{change(each)}; projected utilization: {projected}"
    yield f"diagnosis: {humanize(each['diagnosis'])}; confidence: {each['confidence']}"
    yield f"savings: {money.format_savings(each)}"
    yield one_line(f"owners: {'; '.join(each['owners']) or 'none known'}")
    if group:
        others = ", ".join(id_ for id_ in group["ids"] if id_ != each["id"])
        yield one_line(f"together with {others}: {group['summary']}")
    yield "\nHow to apply them:" if group else "\nHow to apply it:"
    yield from (f"  {one_line(line)}" for line in (group or each)["apply"])
    yield f"  {each['runbook']}"
    yield "\nEvidence (paste a query into Prometheus for the same number):"
    for word in each["evidence"]:
        against = (
            "" if word["threshold"] is None else f", threshold {output.format_ratio(word['threshold'], word['unit'])}"
        )
        yield f"  {word['signal']}: {output.format_ratio(word['value'], word['unit'])}{against}"
        yield f"    {one_line(word['promql'] or '-')}"
    if each["rejected"]:
        yield "\nAlternatives considered:"
        yield from (one_line(f"  {word['action']}: {word['why_not']}") for word in each["rejected"])
