"""Client of the one-shot commands: a running advisor, or one evaluation on a Prometheus. Both return API documents."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast
from urllib.parse import quote, urljoin, urlsplit

import click
import requests

from gpu_advisor.commands import common_options
from gpu_advisor.commands.errors import CommandError, as_option
from gpu_advisor.commands.http_client import DEFAULT_ADVISOR, RESPONSE_TIMEOUT_SECONDS, AdvisorHttpClient, read_token
from gpu_advisor.storage.secret_file import Secret

if TYPE_CHECKING:
    from gpu_advisor.documents import schema
    from gpu_advisor.report.schema import Report

ONE_SHOT_HINT = ", or evaluate here with --prometheus URL or --config FILE"
REPORT_TIMEOUT_SECONDS = 300.0

#: How often a document of several pages is read, if the advisor evaluates meanwhile.
MAX_ATTEMPTS = 5


class AdvisorClient(Protocol):
    """`filters`: query parameters of the API by name."""

    def refresh(self) -> None:
        """Make what follows current: evaluate now, unless a running advisor does so. Raises CommandError."""

    def close(self) -> None:
        """Close what `refresh` needs. The last documents stay."""

    def recommendations(self, filters: Mapping[str, str]) -> schema.Recommendations: ...
    def checks(self, filters: Mapping[str, str]) -> schema.Checks: ...
    def what_if(self, changes: Mapping[str, Any]) -> schema.WhatIf: ...
    def report(self, since_seconds: int) -> Report: ...


@dataclass(frozen=True, slots=True)
class DataSource:
    """The options of the data source."""

    advisor: str | None
    token_file: Path | None
    ca_file: str | None
    prometheus: str | None
    config: Path | None


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of the data source, as one parameter `source`."""

    @wraps(command)
    def with_source(
        *args: Any, advisor: str | None, token_file: Path | None, ca_file: str | None, prometheus: str | None,
        config: Path | None, **others: Any,
    ) -> Any:  # fmt: skip
        return command(*args, source=DataSource(advisor, token_file, ca_file, prometheus, config), **others)

    decorated: Callable[..., Any] = with_source
    for option in (
        click.option(
            "--config",
            type=click.Path(dir_okay=False, path_type=Path),
            help="Evaluate here, without a running advisor, with these settings (YAML).",
        ),
        click.option("--prometheus", metavar="URL", help="Evaluate here, on this Prometheus, with default settings."),
        common_options.ca_file,
        common_options.token_file,
        click.option("--advisor", metavar="URL", help=f"Query a running advisor.  [default: {DEFAULT_ADVISOR}]"),
    ):
        decorated = option(decorated)
    return decorated


def connect(source: DataSource) -> AdvisorClient:
    """A client for one look. Raises click.UsageError, ConfigError or CommandError."""
    client = open_client(source)
    try:
        client.refresh()
    finally:
        client.close()
    return client


def open_client(source: DataSource) -> AdvisorClient:
    """A client for repeated looks, each after a `refresh`. Raises click.UsageError, ConfigError or CommandError."""
    prometheus, config = source.prometheus, source.config
    if source.advisor and (prometheus or config):
        raise click.UsageError("--advisor uses the running advisor's settings: remove --prometheus and --config")
    if not (prometheus or config):
        token = read_token(source.token_file)
        return HttpAdvisor(source.advisor or DEFAULT_ADVISOR, token, source.ca_file, ONE_SHOT_HINT)
    from gpu_advisor.commands.one_shot import OneShotAdvisor  # takes a second to load: it is the whole advisor
    from gpu_advisor.settings import PrometheusSourceSettings, Settings, SourceSettings, load_settings

    settings = load_settings(config) if config else Settings()
    if prometheus:
        try:
            own_source = SourceSettings(
                prometheus=PrometheusSourceSettings(url=prometheus, ca_file=source.ca_file or "")
            )
        except ValueError as error:
            raise click.BadParameter(
                f"{prometheus!r} is not a URL such as http://127.0.0.1:9090", param_hint="--prometheus"
            ) from error
        settings = settings.model_copy(update={"source": own_source})
    return OneShotAdvisor(settings)


class HttpAdvisor:
    """A running advisor. `unreachable_hint`: what else to do without one, appended to the error."""

    def __init__(self, url: str, token: Secret, ca_file: str | None, unreachable_hint: str = "") -> None:
        self._unreachable_hint = unreachable_hint
        self._client = AdvisorHttpClient(url, token, ca_file)
        self._url = self._client.address

    def refresh(self) -> None:
        """Nothing: each response is of the advisor's last evaluation."""

    def close(self) -> None:
        """Nothing: connections end with the process."""

    def recommendations(self, filters: Mapping[str, str]) -> schema.Recommendations:
        return cast("schema.Recommendations", self._fetch_all_pages("recommendations", "recommendations", filters))

    def checks(self, filters: Mapping[str, str]) -> schema.Checks:
        return cast("schema.Checks", self._fetch_all_pages("checks", "checks", filters))

    def what_if(self, changes: Mapping[str, Any]) -> schema.WhatIf:
        return cast("schema.WhatIf", self._fetch("POST", urljoin(self._url, "what-if"), json=dict(changes))[0])

    def report(self, since_seconds: int) -> Report:
        url = urljoin(self._url, f"report?since_seconds={since_seconds}")
        return cast("Report", self._fetch("GET", url, seconds=REPORT_TIMEOUT_SECONDS)[0])

    def _fetch_all_pages(self, path: str, what: str, filters: Mapping[str, str]) -> dict[str, Any]:
        """All pages of one evaluation as one document. Raises CommandError."""
        from gpu_advisor.web.api.query_parameters import MAX_PER_PAGE

        query = "&".join(f"{name}={quote(value, safe='')}" for name, value in filters.items())
        first = urljoin(self._url, f"{path}?per_page={MAX_PER_PAGE}&{query}".rstrip("&"))
        for _ in range(MAX_ATTEMPTS):
            pages = self._fetch_pages(first)
            if len({(page["at"], page.get("total")) for page in pages}) == 1:
                found = [each for page in pages for each in page[what]]
                return {**pages[0], what: found, "page": 1, "per_page": max(1, len(found))}
        raise CommandError(
            f"the advisor evaluated again while {len(pages)} pages of {what} were read, {MAX_ATTEMPTS} times: ask for "
            "less, as with --pool or --node, or raise the advisor's evaluation.interval_seconds"
        )

    def _fetch_pages(self, first: str) -> list[dict[str, Any]]:
        """The pages from the first one on; they may be of different evaluations."""
        page, next_page = self._fetch("GET", first)
        pages = [page]
        while next_page:
            parts = urlsplit(next_page)  # path only: never send the token to another host
            page, next_page = self._fetch("GET", urljoin(self._url, f"{parts.path.lstrip('/')}?{parts.query}"))
            pages.append(page)
        return pages

    def _fetch(
        self, method: str, url: str, seconds: float = RESPONSE_TIMEOUT_SECONDS, **arguments: Any
    ) -> tuple[dict[str, Any], str]:
        """The document, and the URL of the next page or an empty string."""
        answer, found = self._client.fetch(
            method, url, unreachable_hint=self._unreachable_hint, seconds=seconds, **arguments
        )
        if not isinstance(found, dict) or answer.status != requests.codes.ok:
            detail = found.get("detail") if isinstance(found, dict) else None
            if detail and answer.status in (requests.codes.bad_request, requests.codes.unprocessable):
                raise CommandError(as_option(detail))
            raise CommandError(
                f"{url} returned HTTP {answer.status}: {detail or 'not a response of an advisor: check the URL'}"
            )
        next_page = re.search(r'<([^>]+)>; rel="next"', answer.headers.get("Link", ""))
        return found, next_page[1] if next_page else ""
