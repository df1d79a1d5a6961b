"""`gpu-advisor watch`: checklist and recommendations, refreshed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from gpu_advisor.commands import advisor_client, common_options, live_display, output
from gpu_advisor.commands.recommend import short_table
from gpu_advisor.documents import schema
from gpu_advisor.rendering.escaping import one_line

if TYPE_CHECKING:
    from rich.console import RenderableType

#: Missed checks first, then unknown ones.
_ORDER = {"missed": 0, "unknown": 1, "met": 2}


@dataclass(frozen=True, slots=True)
class WatchState:
    """The advisor's responses at one time."""

    advice: schema.Recommendations
    checks: tuple[schema.CheckDocument, ...]

    @property
    def recommendations(self) -> list[schema.RecommendationDocument]:
        """The most urgent first, as the advisor lists them."""
        return self.advice["recommendations"]


@click.command("watch")
@common_options.refresh_interval(5.0, shortest=1)
@click.option("--once", is_flag=True, help="Print once and exit.")
@click.option("--gpus", is_flag=True, help="Include checks per GPU.")
@click.option("--exit-code", is_flag=True, help="With --once: exit with 3 if there are recommendations.")
@advisor_client.options
def command(interval: float, once: bool, gpus: bool, exit_code: bool, source: advisor_client.DataSource) -> int:
    """Watch checklist and recommendations. Ctrl-C ends it.

    \b
      gpu-advisor watch                                      the local advisor
      gpu-advisor watch --prometheus http://prometheus:9090  evaluated here
      gpu-advisor watch >> changes.log                       a line per change
    """

    client = advisor_client.open_client(source)

    def fetch() -> WatchState:
        client.refresh()
        found = client.checks({})["checks"]
        chosen = (each for each in found if gpus or each["scope"]["kind"] != "gpu")
        return WatchState(client.recommendations({}), tuple(sorted(chosen, key=lambda each: _ORDER[each["status"]])))

    try:
        if not once:
            live_display.run_live(fetch, render, lines, interval)
            return 0
        state = fetch()
    finally:
        client.close()
    old = output.warn_if_stale(state.advice)
    for line in lines(None, state):
        click.echo(line)
    if exit_code and any(not each["snoozed"] for each in state.recommendations):
        return output.EXIT_ACTION_NEEDED
    return 1 if old and (exit_code or state.advice["at"] is None) else 0


def lines(before: WatchState | None, now: WatchState) -> Iterator[str]:
    """One line per change: time, kind of change, and what changed."""
    at = (now.advice["at"] or "-")[:19]
    source, former = now.advice["source"], before.advice["source"] if before else None
    if not source["up"] and (former is None or former["up"]):
        yield f"{at}  source   {one_line(source['message'])}"
    if source["up"] and former and not former["up"]:
        yield f"{at}  source   up again"
    known = {_key(each): each["status"] for each in before.checks} if before else {}
    for check in now.checks:
        if known.get(_key(check), "met") != check["status"]:
            yield f"{at}  {check['status']:8} {_of(check)}: {check['title']}{_value_text(check)}"
    previous = {each["id"]: each for each in before.advice["recommendations"]} if before else {}
    for each in now.recommendations:
        if each["id"] not in previous:
            yield f"{at}  {each['severity']:8} {one_line(each['summary'])}  [{each['id']}]"
        elif previous[each["id"]]["recommended"] != each["recommended"]:
            yield f"{at}  changed  {one_line(each['summary'])}  [{each['id']}]"
    still = {each["id"] for each in now.recommendations}
    for id_, each in previous.items():
        if id_ not in still:
            yield f"{at}  resolved {one_line(each['summary'])}  [{id_}]"


def render(now: WatchState, error_text: str, width: int | None = None) -> RenderableType:
    """Both tables, for a terminal, by default this one."""
    from rich.console import Group
    from rich.text import Text

    answer, source = now.advice, now.advice["source"]
    head = Text(
        f"cluster {one_line(answer['cluster'])}, "
        + (f"as of {answer['at'][:19]}" if answer["at"] else "no evaluation yet"),
        style="bold",
    )
    if answer["simulated"]:
        head.append("  simulated", style="yellow")
    parts: list[RenderableType] = [head]
    warning_text = error_text or ("" if source["up"] else source["message"])
    if warning_text:
        parts.append(Text(one_line(warning_text), style="bold red"))
    if answer["at"] is None:
        return Group(*parts)
    if warning_text:
        parts.append(Text("Showing the last known state.", style="bold red"))
    headings, rows = short_table(answer, width or output.terminal_width())
    todo = output.rich_table(headings, rows) if rows else Text("No recommendations.", style="green")
    cells = [(each["status"], _of(each), each["title"], _value_text(each).removeprefix(", ")) for each in now.checks]
    return Group(*parts, todo, output.rich_table(("status", "scope", "item", ""), cells))


def _key(check: schema.CheckDocument) -> tuple[str, str, str]:
    return check["item"], check["scope"]["kind"], check["scope"]["name"]


def _of(check: schema.CheckDocument) -> str:
    kind, label = check["scope"]["kind"], check["scope"]["label"]
    return kind if kind == "fleet" else one_line(f"{kind} {label}")


def _value_text(check: schema.CheckDocument) -> str:
    """The value and its distance from the target, or why it is unknown."""
    if check["value"] is None:
        return f", {one_line(check['message'])}"
    unit = "money" if check["item"] == "cost" else "ratio"
    off = check["missed_by"]
    distance = "" if off is None else f"{abs(off):g}" if unit == "money" else f"{abs(off) * 100:.1f} points"
    far = "" if off is None else f", {distance} too {'high' if off > 0 else 'low'}"
    return f", {output.format_ratio(check['value'], unit)}{far}"
