"""Builds the running parts from the settings: the composition root."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path

from gpu_advisor.allocation.allocation_service import AllocationService
from gpu_advisor.allocation.allocator import Allocator, LeaseLimits
from gpu_advisor.allocation.errors import LeaseStoreError
from gpu_advisor.allocation.inventory_monitor import InventoryMonitor
from gpu_advisor.allocation.inventory_provider import InventoryProvider
from gpu_advisor.allocation.lease_manager import LeaseManager
from gpu_advisor.allocation.lease_store import LeaseStore
from gpu_advisor.evaluation import signals
from gpu_advisor.evaluation.owners import Lease
from gpu_advisor.notify.alertmanager import AlertDispatcher
from gpu_advisor.observation.compile import compile_signals
from gpu_advisor.observation.queries import IDENTITY_EXPRESSIONS, identity_queries, mappings_of
from gpu_advisor.promql.expressions import metrics_of
from gpu_advisor.runtime.clock_watch import ClockWatch
from gpu_advisor.runtime.service import AdvisorService
from gpu_advisor.settings import ConfigError, EmbeddedSourceSettings, PrometheusSourceSettings, Settings
from gpu_advisor.sources.base import Source
from gpu_advisor.sources.embedded.history import History
from gpu_advisor.sources.embedded.history_file import HistoryError
from gpu_advisor.sources.embedded.scraper import Scraper
from gpu_advisor.sources.embedded.source import EmbeddedSource
from gpu_advisor.sources.exporters.dialect import ExporterDialect
from gpu_advisor.sources.exporters.mapping_files import MappingError
from gpu_advisor.sources.prometheus.connection import PrometheusClientConfig
from gpu_advisor.sources.prometheus.source import MAX_CONCURRENT_QUERIES, PrometheusSource
from gpu_advisor.state.ledger import Ledger
from gpu_advisor.storage.damage import DamagedFile, replace_if_damaged
from gpu_advisor.storage.private_files import make_private_folder
from gpu_advisor.storage.secret_file import Secret, SecretFile

log = logging.getLogger(__name__)


class StartupError(Exception):
    """The advisor cannot start. The message says how to fix it."""


@dataclass
class RunningAdvisor:
    """All running parts of one advisor. `close` stops them in reverse order of their start."""

    service: AdvisorService
    source: Source
    history: History | None = None
    allocation: AllocationService | None = None
    _closers: list[Callable[[], object]] = field(default_factory=list)

    def close(self) -> None:
        """Stop everything, whatever fails on the way."""
        _close_all(self._closers)


def _close_all(closers: list[Callable[[], object]]) -> None:
    for close in reversed(closers):
        try:
            close()
        except Exception:
            log.exception("stopping a part failed; the others are stopped")
    closers.clear()


def build_advisor(settings: Settings, fill_history: Callable[[History], None] | None = None) -> RunningAdvisor:
    """Open source, history and ledger and start scraping. The caller starts the service.

    `fill_history` is called with an embedded history before scraping begins. Raises StartupError or ConfigError; then
    nothing is open or runs.
    """
    _check_mappings(settings)
    closers: list[Callable[[], object]] = []
    try:
        return _start_parts(settings, fill_history, closers)
    except BaseException as error:
        _close_all(closers)
        if isinstance(error, OSError | HistoryError | sqlite3.Error):
            raise StartupError(
                f"state_dir {settings.state_dir}: {error}; check that it is writable and that no other advisor uses it"
            ) from error
        raise


def _start_parts(
    settings: Settings, fill_history: Callable[[History], None] | None, closers: list[Callable[[], object]]
) -> RunningAdvisor:
    """What has to be closed is in `closers` as soon as it is open."""
    state_dir = Path(settings.state_dir)
    history = None
    make_private_folder(state_dir)
    damaged = _replace_damaged(state_dir, embedded=settings.source.prometheus is None)
    if settings.source.prometheus:
        source: Source = PrometheusSource(_prometheus(settings.source.prometheus))
    else:
        history = History(state_dir / "history.db")
        closers.append(history.close)
        source = EmbeddedSource(history)
    closers.append(source.close)
    ledger = Ledger(state_dir / "ledger.db")
    closers.append(ledger.close)
    if history is not None:
        scraper = _scraper(settings, history)
        if fill_history:
            fill_history(history)
        scraper.start()
        closers.append(lambda: scraper.stop(timeout_seconds=2))
    alertmanagers = AlertDispatcher(settings.alertmanagers, max_evaluation_interval_seconds(settings))
    closers.append(alertmanagers.close)
    service = AdvisorService(settings, source, ledger, alertmanagers, _retention(settings, history, ledger))
    closers.append(service.stop)
    for each in damaged:
        service.report_damage(each)
    allocation = _allocation_service(settings, service)
    closers += [allocation.allocator.close, allocation.monitor.stop]
    service.leases = lambda: _leases_by_gpu(allocation.allocator)
    if allocation.allocator.leases.damaged:
        service.report_damage(allocation.allocator.leases.damaged)
    return RunningAdvisor(service, source, history, allocation, closers)


def _replace_damaged(state_dir: Path, embedded: bool) -> list[DamagedFile]:
    """Move damaged state aside. Leases are their store's own matter: nobody may be given a GPU twice."""
    found = [
        replace_if_damaged(
            state_dir / "ledger.db",
            "the history of recommendations, outcomes and snoozes starts empty; no decision depends on it",
            _read_ledger,
        )
    ]
    if embedded:
        advice = "the embedded history starts empty; recommendations follow once it is long enough"
        found.append(replace_if_damaged(state_dir / "history.db", advice, _read_history))
    return [each for each in found if each]


def _read_ledger(path: Path) -> None:
    with closing(Ledger(path)) as ledger:
        ledger.read_all()


def _read_history(path: Path) -> None:
    with closing(History(path)) as history:
        history.span()
        history.read("up", (), 0.0, 0.0)


def _allocation_service(settings: Settings, service: AdvisorService) -> AllocationService:
    """The GPU allocation service. Raises ConfigError for its inventory file, StartupError for its database."""
    allocation_settings = settings.allocation
    logging.getLogger("gpu_advisor.allocation").setLevel(allocation_settings.log_level)
    file = Path(allocation_settings.inventory_file) if allocation_settings.inventory_file else None
    machines = InventoryProvider(lambda: service.view, allocation_settings.gpu_memory_specs, file)
    try:
        leases = LeaseManager(LeaseStore(Path(allocation_settings.database or Path(settings.state_dir) / "leases.db")))
    except LeaseStoreError as error:
        raise StartupError(str(error)) from error
    memory = settings.resources.memory
    limits = LeaseLimits(
        allocation_settings.lease_seconds, allocation_settings.longest_lease_seconds, memory.min_gb, memory.max_gb
    )
    allocator = Allocator(leases, machines, limits)
    monitor = InventoryMonitor(
        allocator, machines, allocation_settings.monitor_update_interval, allocation_settings.resource_change_threshold
    )
    monitor.start()
    return AllocationService(allocator, machines, monitor, allocation_settings)


def _leases_by_gpu(allocator: Allocator) -> dict[str, Lease]:
    snapshot = allocator.snapshot()
    leases = {id_: Lease(id_, each.made, each.expires) for id_, each in snapshot.active.items()}
    return {uuid: leases[id_] for uuid, id_ in snapshot.lease_by_gpu.items()}


def max_evaluation_interval_seconds(settings: Settings) -> float:
    """Longest time between two evaluations: alerts must outlive a source whose queries take up to their timeout."""
    prometheus = settings.source.prometheus
    queries = len(IDENTITY_EXPRESSIONS) + len(signals.SIGNALS)
    slowest = prometheus.timeout_seconds * ceil(queries / MAX_CONCURRENT_QUERIES) if prometheus else 0.0
    return max(settings.evaluation.interval_seconds, slowest)


def one_shot_source(settings: Settings) -> Source:
    """The source for a single evaluation, with nothing started. Raises ConfigError for an embedded source."""
    _check_mappings(settings)
    if settings.source.prometheus is None:
        raise ConfigError(
            "these settings have an embedded source, which only a running advisor fills: query that advisor with "
            "--advisor URL, or a Prometheus with --prometheus URL"
        )
    return PrometheusSource(_prometheus(settings.source.prometheus))


def _check_mappings(settings: Settings) -> None:
    """Raises ConfigError for a mapping file of the user that is invalid."""
    try:
        mappings_of(settings)
    except MappingError as error:
        raise ConfigError(f"source.mappings_dir: {error}") from error


#: Ended recommendations and outcomes older than this are deleted from the ledger.
LEDGER_RETENTION_DAYS = 400
RETENTION_INTERVAL_SECONDS = 600.0


def _retention(settings: Settings, history: History | None, ledger: Ledger) -> Callable[[float], None]:
    """The retention that the service runs after each evaluation."""
    embedded = settings.source.embedded or EmbeddedSourceSettings()
    last_run = 0.0
    span = history.span() if history is not None else None
    watch = ClockWatch(span[1] if span else None, time.time())

    def clean_up(now: float) -> None:
        nonlocal last_run
        if abs(now - last_run) > RETENTION_INTERVAL_SECONDS:
            last_run = now
            if not watch.is_settled(now):
                return
            ledger.delete_before(now - LEDGER_RETENTION_DAYS * 86400)
            if history is not None:
                history.delete_before(now - embedded.retention_days * 86400)

    return clean_up


def _scraper(settings: Settings, history: History) -> Scraper:
    embedded = settings.source.embedded or EmbeddedSourceSettings()
    dialects = [ExporterDialect(mapping) for mapping in mappings_of(settings)]
    expressions = [*identity_queries(settings).values(), *compile_signals(dialects, settings).values()]
    metric_names = frozenset(name for expression in expressions for name in metrics_of(expression))
    try:
        return Scraper(history, embedded.targets, embedded.scrape_interval_seconds, metric_names)
    except ValueError as error:
        raise ConfigError(f"source.embedded.targets: {error}") from error


def _prometheus(settings: PrometheusSourceSettings) -> PrometheusClientConfig:
    token: Secret = settings.bearer_token.get_secret_value()
    try:
        if settings.bearer_token_file:
            token = SecretFile(Path(settings.bearer_token_file))
        return PrometheusClientConfig(
            url=settings.url,
            timeout_seconds=settings.timeout_seconds,
            retries=settings.retries,
            headers={name: value.get_secret_value() for name, value in settings.headers.items()},
            username=settings.username or None,
            password=settings.password.get_secret_value() or None,
            bearer_token=token or None,
            ca_file=settings.ca_file or None,
            cert_file=settings.cert_file or None,
            key_file=settings.key_file or None,
            insecure_skip_verify=settings.insecure_skip_verify,
        )
    except (ValueError, OSError) as error:
        raise ConfigError(f"source.prometheus: {error}") from error
