"""`gpu-advisor snooze`: no alert for a recommendation until a time."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path
from urllib.parse import quote, urljoin

import click
import requests

from gpu_advisor.commands import common_options
from gpu_advisor.commands.errors import CommandError
from gpu_advisor.commands.http_client import DEFAULT_ADVISOR, AdvisorHttpClient, read_token
from gpu_advisor.rendering.escaping import one_line


@click.command("snooze")
@click.argument("ids", metavar="ID...", nargs=-1)
@click.option("--for", "seconds", default="1d", show_default=True, callback=common_options.parse_duration,
              metavar="DURATION", help="How long: 90m, 12h, 7d, 2w.")  # fmt: skip
@click.option("--reason", help="Reason, shown to others. Required, except with --end.", metavar="REASON")
@click.option("--end", is_flag=True, help="End the snooze instead.")
@click.option("--advisor", metavar="URL", default=DEFAULT_ADVISOR, show_default=True, help="The running advisor.")
@common_options.token_file
@common_options.ca_file
def command(
    ids: tuple[str, ...], seconds: int, reason: str | None, end: bool, advisor: str, token_file: Path | None,
    ca_file: str | None,
) -> None:  # fmt: skip
    """Snooze recommendations, or end their snooze. A unique prefix of an ID is enough.

    \b
      gpu-advisor snooze 61f0c1 --for 7d --reason "new fans arrive on Friday"
      gpu-advisor snooze 61f0c1 --end
    """
    if not ids:
        raise click.UsageError("ID is missing: `gpu-advisor recommend` lists the IDs")
    if not end and not reason:
        raise click.UsageError("--reason is missing: others want to know why; or end a snooze with --end")
    from gpu_advisor.commands.advisor_client import HttpAdvisor
    from gpu_advisor.commands.short_ids import find_by_id

    token = read_token(token_file)
    active = HttpAdvisor(advisor, token, ca_file).recommendations({})["recommendations"]
    client = AdvisorHttpClient(advisor, token, ca_file)
    until = datetime.now(timezone.utc) + timedelta(seconds=seconds)
    for found in [find_by_id(active, id_) for id_ in ids]:
        url = urljoin(client.address, f"recommendations/{quote(found['id'], safe='')}/snooze")
        if end:
            _fetch(client, "DELETE", url)
            click.echo(one_line(f"No longer snoozed: {found['summary']}"))
        else:
            _fetch(client, "POST", url, {"reason": reason, "until": until.isoformat(timespec="seconds")})
            click.echo(one_line(f"Snoozed until {until:%Y-%m-%d %H:%M} UTC: {found['summary']}"))


def _fetch(client: AdvisorHttpClient, method: str, url: str, body: object = None) -> None:
    """Raises CommandError unless the advisor did it."""
    answer, problem = client.fetch(method, url, json=body)
    if answer.status not in (requests.codes.ok, requests.codes.no_content):
        detail = problem.get("detail") if isinstance(problem, dict) else None
        raise CommandError(f"{url} returned HTTP {answer.status}: {detail or 'check that the URL is an advisor'}")
