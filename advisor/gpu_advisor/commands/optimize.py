"""`gpu-advisor optimize`: check, diagnose, and recommend (or write to files) what to change for given targets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from gpu_advisor.commands import advisor_client, output
from gpu_advisor.commands.errors import CommandError
from gpu_advisor.documents import schema
from gpu_advisor.optimizing.change_files import change_files, describe_change, describe_targets
from gpu_advisor.optimizing.target_overrides import TargetOverrides, hint_for
from gpu_advisor.optimizing.writer import WriteRefusedError, write_files
from gpu_advisor.rendering.escaping import one_line
from gpu_advisor.rendering.names import humanize

_PERCENT = click.FloatRange(0, 100, min_open=True)

#: What a person reads of one change: so many steps, and commands up to so many characters, with their notes.
MAX_STEPS = 8
MAX_STEP_CHARACTERS = 160

CSV_COLUMNS = (
    "id", "kind", "severity", "scope_kind", "scope", "current", "recommended", "unit", "diagnosis", "confidence",
    "summary",
)  # fmt: skip


@click.command("optimize")
@click.option("--target-gpu", type=_PERCENT, metavar="PERCENT", help="Target GPU utilization.")
@click.option("--target-memory", type=_PERCENT, metavar="PERCENT", help="Target GPU memory usage.")
@click.option("--target-cpu", type=_PERCENT, metavar="PERCENT", help="Target CPU utilization of the nodes.")
@click.option("--scale-up", type=_PERCENT, metavar="PERCENT", help="Scale serving pools up above this.")
@click.option("--scale-down", type=_PERCENT, metavar="PERCENT", help="Scale serving pools down below this.")
@click.option("--pool", metavar="NAME", help="Apply the GPU targets to this configured pool only.")
@click.option("--apply", "folder", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
              help="Write the changes as files into DIR.")  # fmt: skip
@click.option("--force", is_flag=True, help="With --apply: overwrite files that were changed.")
@output.options("there is something to change")
@advisor_client.options
def command(
    target_gpu: float | None, target_memory: float | None, target_cpu: float | None, scale_up: float | None,
    scale_down: float | None, pool: str | None, folder: Path | None, force: bool,
    format_: output.Format, exit_code: bool, source: advisor_client.DataSource,
) -> int:  # fmt: skip
    """Check and diagnose against these targets, and recommend changes. Targets not given keep their configured value.

    \b
      gpu-advisor optimize --target-gpu 90 --target-memory 85
      gpu-advisor optimize --target-gpu 80 --scale-up 75 \\
          --prometheus http://prometheus:9090
      gpu-advisor optimize --target-gpu 90 --apply changes/

    --apply writes files and touches no cluster: trainer settings, pool sizes as patches for kubectl, and a README.md
    with all commands. Running it again writes nothing new. Nothing is written from simulated, stale or missing data,
    nor over changed files without --force.

    With --exit-code: exits with 3 if there is something to change.
    """
    if force and folder is None:
        raise click.UsageError("--force goes with --apply DIR")
    targets = TargetOverrides(target_gpu, target_memory, target_cpu, scale_up, scale_down, pool)
    if pool and not targets.changes.get("pools"):
        raise click.UsageError("--pool goes with --target-gpu, --scale-up or --scale-down")
    answer = _query_what_if(advisor_client.connect(source), targets)
    old = output.warn_if_stale(answer)
    if format_ == "json":
        output.show_json(answer)
    elif format_ == "csv":
        output.show_documents_csv(CSV_COLUMNS, answer["then"])
    else:
        for line in _text_lines(answer, targets):
            click.echo(line)
    if folder is not None:
        _apply(answer, targets, folder, force)
    if exit_code and answer["then"]:
        return output.EXIT_ACTION_NEEDED
    return 1 if old and (exit_code or answer["at"] is None) else 0


def _query_what_if(asked: advisor_client.AdvisorClient, targets: TargetOverrides) -> schema.WhatIf:
    try:
        return asked.what_if(targets.changes)
    except CommandError as error:
        hint = hint_for(error.message)
        raise CommandError(f"{error.message}{f': {hint}' if hint else ''}") from error


def _apply(answer: schema.WhatIf, targets: TargetOverrides, folder: Path, force: bool) -> None:
    if answer["simulated"]:
        raise CommandError("the fleet is simulated: nothing is written")
    if answer["at"] is None or answer["stale"]:
        raise CommandError("the data is stale: nothing is written. Check the data source with gpu-advisor check")
    try:
        done = write_files(folder, change_files(answer, targets), force)
    except WriteRefusedError as error:
        raise CommandError(str(error)) from error
    for name, written in done.items():
        click.echo(f"{'written' if written else 'up to date'}: {folder / name}", err=True)


def _text_lines(answer: schema.WhatIf, targets: TargetOverrides) -> Iterator[str]:
    yield f"Targets: {describe_targets(targets)}\n"
    for each in answer["items_then"]:
        if each["scope"]["kind"] in ("fleet", "pool") and each["status"] != "met":
            yield one_line(_item(each))
    counts = ", ".join(f"{count} {status}" for status, count in sorted(answer["checks_then"].items()))
    yield f"All checks: {counts or 'none'}.\n"
    if not answer["then"]:
        yield "Nothing to change."
    for number, advice in enumerate(answer["then"], 1):
        yield from _change(number, advice)
    if any(_is_abridged(advice) for advice in answer["then"]):
        yield "All steps, with whole commands: --format json, or --apply DIR.\n"
    ends, begins = len(answer["difference"]["ends"]), len(answer["difference"]["begins"])
    if ends or begins:
        yield f"Compared with the configured targets: {begins} new, {ends} resolved."
    for pool in answer["pools"]:
        if pool["sized"] and pool["cannot_tell"]:
            yield one_line(f"Unknown size of pool {pool['name']}: {pool['cannot_tell']}")


def _item(each: schema.CheckDocument) -> str:
    of = "fleet" if each["scope"]["kind"] == "fleet" else f"pool {each['scope']['label']}"
    if each["status"] == "unknown":
        return f"unknown  {of}: {each['title']}: {each['message']}"
    unit = "money" if each["item"] == "cost" else "ratio"
    low, high, value = (output.format_ratio(edge, unit) for edge in (each["low"], each["high"], each["value"]))
    should = f"{low} to {high}" if each["low"] else f"at most {high}"
    return f"missed   {of}: {each['title']} {value}, target {should}"


def _change(number: int, each: schema.RecommendationSummary) -> Iterator[str]:
    projection = each["projection"]
    yield one_line(f"{number}. [{each['severity']}] {each['summary']}")
    yield one_line(f"   {describe_change(each)}; cause: {humanize(each['diagnosis'])}; "
                          f"confidence: {each['confidence']}; projected utilization: "
                          f"{output.format_ratio(projection['utilization_ratio'])}")  # fmt: skip
    if projection["cost_change_per_hour"] is not None:
        yield f"   cost: {projection['cost_change_per_hour']:+.2f} per hour"
    yield from (f"     {line}" for line in _steps(each)[:MAX_STEPS])
    if (more := len(each["apply"]) - MAX_STEPS) > 0:
        yield f"     and {more} more {'step' if more == 1 else 'steps'}"
    yield ""


def _steps(each: schema.RecommendationSummary) -> list[str]:
    """A line each: a command that is too long to read by what it is for."""
    return [
        one_line(f"# {action['note']}" if _is_too_long(action, line) else line)
        for action, line in zip(each["actions"], each["apply"], strict=True)
    ]


def _is_too_long(action: schema.ActionDocument, line: str) -> bool:
    return action["kind"] != "note" and bool(action["note"]) and len(line) > MAX_STEP_CHARACTERS


def _is_abridged(each: schema.RecommendationSummary) -> bool:
    return len(each["apply"]) > MAX_STEPS or any(map(_is_too_long, each["actions"], each["apply"]))
