"""What runs beside the faults: scrapers of the exporter, probes of the advisor, clients that lease GPUs."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from benchmarks.allocation import gpus_by_uuid
from benchmarks.allocation_clients import Client
from benchmarks.lease_history_checker import Operation, violations
from benchmarks.scraping import BenchmarkScraper, ScrapeError, scrape_once
from benchmarks.soak.stack import LEASE_LOAD, Stack

SCRAPERS = 4
SCRAPE_SECONDS = 0.25
PROBE_SECONDS = 1.0
PROBED = ("/-/healthy", "/metrics")
LEASE_CLIENTS = 3
LEASES = replace(LEASE_LOAD.work, requests=10**9, short_lease_seconds=3.0, pause_seconds=0.5)


@dataclass
class RequestLog:
    """Seconds of each answer, and what failed."""

    seconds: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)

    @property
    def slowest(self) -> float:
        return max(self.seconds, default=float("inf"))


class Load:
    """Threads that send requests from `start` to `stop`."""

    def __init__(self, stack: Stack, static: tuple[str, int]) -> None:
        self.scrapes, self.static_scrapes, self.probes = RequestLog(), RequestLog(), RequestLog()
        self.lease_failures: list[str] = []
        self._stop = threading.Event()
        port = stack.advisor.address[1]
        self._clients = [Client(port, number, LEASES, lambda: None) for number in range(LEASE_CLIENTS)]
        work: list[Callable[[], None]] = [
            *(lambda n=n: self._scrape(stack.exporter.address, static, bool(n % 2)) for n in range(SCRAPERS)),
            lambda: self._probe(stack),
            *(lambda each=each: self._lease(each) for each in self._clients),
        ]
        self._threads = [threading.Thread(target=each) for each in work]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for client in self._clients:
            client.stop()
        for thread in self._threads:
            thread.join()

    def lease_history(self) -> list[Operation]:
        return [event for client in self._clients for event in client.events]

    def _scrape(self, address: tuple[str, int], static: tuple[str, int], keep: bool) -> None:
        """Scrape the exporter and, in turn, the static server. Half of the threads keep their connections."""
        targets = [
            (log, target, BenchmarkScraper(target))
            for log, target in ((self.scrapes, address), (self.static_scrapes, static))
        ]
        while not self._stop.wait(SCRAPE_SECONDS):
            for log, target, kept in targets:
                begun = time.perf_counter()
                try:
                    page = kept.scrape() if keep else scrape_once(target)
                except (OSError, ScrapeError) as error:
                    log.failures[f"{type(error).__name__}: {error}"] += 1
                    continue
                log.seconds.append(time.perf_counter() - begun)
                if not page:
                    log.failures["empty page"] += 1
        for _, _, kept in targets:
            kept.close()

    def _probe(self, stack: Stack) -> None:
        while not self._stop.wait(PROBE_SECONDS):
            for path in PROBED:
                begun = time.perf_counter()
                try:
                    status, _ = stack.advisor.request("GET", path)
                except OSError as error:
                    self.probes.failures[f"{path}: {type(error).__name__}"] += 1
                    continue
                self.probes.seconds.append(time.perf_counter() - begun)
                if status != 200:
                    self.probes.failures[f"{path}: answered {status}"] += 1

    def _lease(self, client: Client) -> None:
        try:
            client.run()
        except SystemExit as error:  # an answer that no client expects
            self.lease_failures.append(str(error))


def lease_violations(history: list[Operation]) -> list[str]:
    """What no correct service could have done."""
    return violations(history, gpus_by_uuid(LEASE_LOAD))
