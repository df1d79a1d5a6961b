"""HTTP client of a gpu-exporter, for commands that look at one node."""

from __future__ import annotations

import time
from urllib.parse import urljoin

import requests
from requests.auth import AuthBase, HTTPBasicAuth

from gpu_advisor.commands.errors import CommandError
from gpu_advisor.commands.node_snapshot import ExporterScrape
from gpu_advisor.sources.prometheus.http_client import (
    BodyTooLargeError,
    DeadlineClient,
    DeadlineExceededError,
    connection_problem,
)
from gpu_advisor.storage.secret_file import Secret, reveal

DEFAULT_EXPORTER = "http://127.0.0.1:9816"
RESPONSE_TIMEOUT_SECONDS = 10.0
MAX_RESPONSE_BYTES = 64 * 2**20


class _PasswordAuth(AuthBase):
    def __init__(self, user: str, password: Secret) -> None:
        self._user, self._password = user, password

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        HTTPBasicAuth(self._user, reveal(self._password))(request)
        return request


class ExporterClient:
    """Scrapes one exporter. `login`: user and password of its basic auth."""

    def __init__(self, url: str, ca_file: str | None, login: tuple[str, Secret] | None) -> None:
        if "://" not in url:
            url = f"http://{url}"
        self._url = url if url.rstrip("/").endswith("/metrics") else urljoin(url.rstrip("/") + "/", "metrics")
        self._client = DeadlineClient(ca_file)
        if login:
            self._client.session.auth = _PasswordAuth(*login)

    def scrape(self) -> ExporterScrape:
        """Raises CommandError."""
        from prometheus_client.parser import text_string_to_metric_families

        try:
            answer = self._client.fetch(
                "GET",
                self._url,
                seconds=RESPONSE_TIMEOUT_SECONDS,
                max_bytes=MAX_RESPONSE_BYTES,
                headers={"Accept": "text/plain"},
            )
        except requests.exceptions.SSLError as error:
            raise CommandError(f"{self._url}: TLS error ({error}): pass the CA's certificate with --ca-file") from error
        except (requests.RequestException, DeadlineExceededError, BodyTooLargeError, OSError, ValueError) as error:
            raise CommandError(
                f"no exporter at {self._url} ({connection_problem(error)}): start one with `gpu-exporter`, or pass "
                "another URL: gpu-advisor top http://NODE:9816"
            ) from error
        if answer.status == requests.codes.unauthorized:
            raise CommandError(f"{self._url} requires authentication: pass --user and --password-file")
        samples: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
        try:
            for family in text_string_to_metric_families(answer.body.decode("utf-8")):
                for sample in family.samples:
                    samples.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
        except ValueError:
            samples = {}
        if answer.status != requests.codes.ok or "gpu_exporter_build_info" not in samples:
            raise CommandError(f"{self._url} returned HTTP {answer.status}, not gpu-exporter's metrics: check the URL")
        return ExporterScrape(time.monotonic(), samples)
