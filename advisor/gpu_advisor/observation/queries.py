"""Identity queries, read first: targets, GPUs, nodes and scrape intervals."""

from __future__ import annotations

from collections.abc import Mapping

from gpu_advisor.calibration.profile import PROFILE_MEMORY, PROFILE_THROUGHPUT
from gpu_advisor.promql.expressions import Expression, Selector, Vector
from gpu_advisor.settings import Settings
from gpu_advisor.sources.exporters.detection import (
    GpuInventory,
    detect_dialects,
    interval_queries,
    inventory_queries,
    merge_identities,
    scrape_intervals,
)
from gpu_advisor.sources.exporters.dialect import ExporterDialect
from gpu_advisor.sources.exporters.mapping import mappings, own_mappings

#: Series read unchanged, besides signals and the mappings' identity series.
IDENTITY_EXPRESSIONS: dict[str, Expression] = {
    "drivers": Selector("gpu_exporter_driver_info"),
    "simulated": Selector("gpu_exporter_simulated_info"),
    "owners": Selector("gpu_owner_info"),
    "targets": Selector("up"),
    "reports": Selector("training_batch_size"),
    "profile_memory": Selector(PROFILE_MEMORY),
    "profile_throughput": Selector(PROFILE_THROUGHPUT),
}

#: Scrape intervals are measured over the evaluation's windows and this one, the first to be complete after a restart.
SHORT_INTERVAL_WINDOW_SECONDS = 60

#: Key prefixes of identity queries, followed by a mapping's name or a window in seconds.
CURRENT_PREFIX, RECENT_PREFIX, SCRAPE_COUNT_PREFIX = "present/", "seen/", "scrapes/"


def identity_queries(settings: Settings) -> dict[str, Expression]:
    """Current and recent identities, and scrape counts."""
    evaluation = settings.evaluation
    windows = sorted({SHORT_INTERVAL_WINDOW_SECONDS, evaluation.window_seconds, evaluation.idle_window_seconds})
    return {
        **IDENTITY_EXPRESSIONS,
        **_add_prefix(CURRENT_PREFIX, inventory_queries(mappings())),
        **_add_prefix(RECENT_PREFIX, inventory_queries(mappings(), evaluation.idle_window_seconds)),
        **_add_prefix(SCRAPE_COUNT_PREFIX, interval_queries(windows)),
    }


def read_inventory(results: Mapping[str, Vector]) -> GpuInventory:
    return GpuInventory(
        merge_identities(mappings(), _strip_prefix(CURRENT_PREFIX, results)),
        merge_identities(mappings(), _strip_prefix(RECENT_PREFIX, results)),
    )


def active_dialects(results: Mapping[str, Vector], inventory: GpuInventory) -> tuple[ExporterDialect, ...]:
    """The exporter families present; for a scope without any, this project's own."""
    intervals = scrape_intervals(_strip_prefix(SCRAPE_COUNT_PREFIX, results))
    found = detect_dialects(mappings(), inventory, results["targets"], intervals)
    scopes = {dialect.mapping.scope for dialect in found if not dialect.mapping.companion}
    return (*found, *(ExporterDialect(mapping) for mapping in own_mappings() if mapping.scope not in scopes))


def _add_prefix(prefix: str, queries: Mapping[str, Expression]) -> dict[str, Expression]:
    return {prefix + name: expression for name, expression in queries.items()}


def _strip_prefix(prefix: str, results: Mapping[str, Vector]) -> dict[str, Vector]:
    return {name.removeprefix(prefix): vector for name, vector in results.items() if name.startswith(prefix)}
