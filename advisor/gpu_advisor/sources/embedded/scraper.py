"""Scraping exporters into the history, as a Prometheus would."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import requests
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families as text_families

from gpu_advisor.sources.embedded.history import History, Sample, as_labels
from gpu_advisor.sources.embedded.history_file import HistoryError
from gpu_advisor.sources.embedded.openmetrics_import import history_target_name, with_target_labels
from gpu_advisor.sources.prometheus.http_client import (
    BodyTooLargeError,
    DeadlineClient,
    DeadlineExceededError,
    HttpResponse,
)

MAX_EXPOSITION_BYTES = 32 << 20
MAX_SCRAPE_SECONDS = 10.0
_ACCEPT = {
    "Accept": "text/plain;version=0.0.4;q=1,*/*;q=0.1",
    "Accept-Encoding": "identity",
    "User-Agent": "gpu-advisor",
}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ScrapeTarget:
    """Address of an exporter. Raises ValueError, without a password that it may have."""

    address: str  # host:port, or a URL if not http://host:port/metrics

    def __post_init__(self) -> None:
        if "@" in self.address:
            raise ValueError("a target must have no user and password: a Prometheus can scrape with them, this cannot")
        try:
            parts = urlsplit(self.url)
            is_valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:  # of the port, or of brackets
            is_valid = False
        if not is_valid:
            raise ValueError(f"{self.address!r} is no target: write host:port or a URL, as in node-1:9816")

    @property
    def url(self) -> str:
        address = self.address if "://" in self.address else f"http://{self.address}"
        return address if urlsplit(address).path.strip("/") else address.rstrip("/") + "/metrics"

    @property
    def instance(self) -> str:
        """host:port"""
        parts = urlsplit(self.url)
        host = f"[{parts.hostname}]" if parts.hostname and ":" in parts.hostname else parts.hostname
        return f"{host}:{parts.port or (443 if parts.scheme == 'https' else 80)}"


class Scraper:
    """Scrapes each target in its own daemon thread, so that none waits for another.

    `keep` selects the metrics to store, by name. `up` and `scrape_duration_seconds` are always stored. Timestamps in
    the exposition are ignored: a sample gets the time of its scrape.
    """

    def __init__(
        self,
        history: History,
        targets: Sequence[ScrapeTarget | str],
        interval_seconds: float,
        keep: Callable[[str], bool] | Collection[str],
        *,
        job: str = "gpu-exporter",
        max_body_bytes: int = MAX_EXPOSITION_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not interval_seconds > 0:
            raise ValueError("interval_seconds must be greater than 0")
        self._history = history
        self._interval = interval_seconds
        self._keep = keep if callable(keep) else frozenset(keep).__contains__
        self._job = job
        self._max_body_bytes = max_body_bytes
        self._clock = clock
        self._targets = [
            _TargetScraper(target if isinstance(target, ScrapeTarget) else ScrapeTarget(target)) for target in targets
        ]
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Scrape immediately, and then at each multiple of the interval."""
        for scraper in self._targets:
            thread = threading.Thread(
                target=self._run, args=(scraper,), name=f"scrape {scraper.target.instance}", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def stop(self, timeout_seconds: float = MAX_SCRAPE_SECONDS) -> None:
        """Start no more scrapes, and wait for running ones."""
        self._stop.set()
        deadline = time.monotonic() + timeout_seconds
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0))

    def scrape_all(self) -> None:
        """Scrape every target once, now, one after the other."""
        for scraper in self._targets:
            self._scrape(scraper)

    def _run(self, scraper: _TargetScraper) -> None:
        while not self._stop.is_set():
            self._scrape(scraper)
            # By the wall clock, so that scrapes of all servers align; a scrape that takes longer skips one.
            self._stop.wait(self._interval - self._clock() % self._interval)

    def _scrape(self, scraper: _TargetScraper) -> None:
        at, began = self._clock(), time.monotonic()
        labels = {"instance": scraper.target.instance, "job": self._job}
        samples: list[Sample] = []
        problem = None
        try:
            response = scraper.fetch(min(self._interval, MAX_SCRAPE_SECONDS), self._max_body_bytes)
            samples = list(self._filter_samples(_parse_exposition(response), labels))
        except _ScrapeError as error:
            problem = str(error)
        own = as_labels(labels)
        samples.append(("up", own, 0.0 if problem else 1.0))
        samples.append(("scrape_duration_seconds", own, time.monotonic() - began))
        scraper.log_change("scrape", problem)
        try:
            self._history.append(history_target_name(self._job, scraper.target.instance), at, samples)
        except HistoryError as error:
            scraper.log_change("storing", str(error))
        else:
            scraper.log_change("storing", None)

    def _filter_samples(self, families: Iterable[Metric], target: dict[str, str]) -> Iterator[Sample]:
        for family in families:
            for sample in family.samples:
                if self._keep(sample.name):
                    yield sample.name, with_target_labels(dict(sample.labels), target), float(sample.value)


class _ScrapeError(Exception):
    """Why a scrape failed; shown to users."""


class _TargetScraper:
    """A target, its connection, and the problems last logged."""

    def __init__(self, target: ScrapeTarget) -> None:
        self.target = target
        self._last_problems: dict[str, str | None] = {}
        self._client = DeadlineClient()
        self._client.session.headers.update(_ACCEPT)

    def fetch(self, seconds: float, max_bytes: int) -> HttpResponse:
        try:
            response = self._client.fetch("GET", self.target.url, seconds=seconds, max_bytes=max_bytes)
        except (DeadlineExceededError, BodyTooLargeError) as error:
            raise _ScrapeError(str(error)) from error
        except requests.Timeout as error:
            raise _ScrapeError(f"no response within {seconds:g} s") from error
        except requests.exceptions.SSLError as error:
            fix = "name its CA in the environment's REQUESTS_CA_BUNDLE, or use http:// if the exporter has no TLS"
            raise _ScrapeError(f"TLS failed; {fix}") from error
        except requests.exceptions.ProxyError as error:
            raise _ScrapeError("no connection to the proxy of the environment; add the target to NO_PROXY") from error
        except (requests.RequestException, OSError) as error:
            raise _ScrapeError(f"no connection ({type(error).__name__}); is the exporter running?") from error
        if response.status in (401, 403):
            fix = "let this machine read it without a password, or have a Prometheus scrape it"
            raise _ScrapeError(f"HTTP status {response.status}; {fix}")
        if response.status != 200:
            raise _ScrapeError(f"HTTP status {response.status}")
        return response

    def log_change(self, what: str, problem: str | None) -> None:
        """Log a change, not each repetition."""
        before = self._last_problems.get(what)
        if problem == before:
            return
        self._last_problems[what] = problem
        if problem is not None:
            log.warning("%s of %s failed: %s", what, self.target.instance, problem)
        else:
            log.info("%s of %s works again", what, self.target.instance)


def _parse_exposition(response: HttpResponse) -> list[Metric]:
    """Parse the whole exposition or fail: the missing part of a partial one would look stale."""
    parse = openmetrics_families if "openmetrics" in response.headers.get("Content-Type", "") else text_families
    try:
        return list(parse(response.body.decode()))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise _ScrapeError(f"not in Prometheus' text format ({error})"[:300]) from error
