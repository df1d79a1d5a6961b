"""The queries that come first: which targets, GPUs and nodes there are, and how often they are scraped."""

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

#: What is read besides the signals and the mappings' identity series, as it is.
IDENTITY_EXPRESSIONS: dict[str, Expression] = {
    "drivers": Selector("gpu_exporter_driver_info"),
    "simulated": Selector("gpu_exporter_simulated_info"),
    "owners": Selector("gpu_owner_info"),
    "targets": Selector("up"),
    "reports": Selector("training_batch_size"),
    "profile_memory": Selector(PROFILE_MEMORY),
    "profile_throughput": Selector(PROFILE_THROUGHPUT),
}


#: Scrape intervals are told from windows of the evaluation, and from this one, which a restart leaves behind soonest.
SHORT_INTERVAL_WINDOW_SECONDS = 60


#: What the keys of identity queries begin with; behind it comes a mapping's name, or a window in seconds.
CURRENT_PREFIX, RECENT_PREFIX, SCRAPE_COUNT_PREFIX = "present/", "seen/", "scrapes/"


def identity_queries(settings: Settings) -> dict[str, Expression]:
    """What is asked first: who is there, who was there lately, and how often they are scraped."""
    evaluation = settings.evaluation
    windows = sorted({SHORT_INTERVAL_WINDOW_SECONDS, evaluation.window_seconds, evaluation.idle_window_seconds})
    return {
        **IDENTITY_EXPRESSIONS,
        **_add_prefix(CURRENT_PREFIX, inventory_queries(mappings())),
        **_add_prefix(RECENT_PREFIX, inventory_queries(mappings(), evaluation.idle_window_seconds)),
        **_add_prefix(SCRAPE_COUNT_PREFIX, interval_queries(windows)),
    }


def read_inventory(answers: Mapping[str, Vector]) -> GpuInventory:
    return GpuInventory(
        merge_identities(mappings(), _strip_prefix(CURRENT_PREFIX, answers)),
        merge_identities(mappings(), _strip_prefix(RECENT_PREFIX, answers)),
    )


def active_dialects(answers: Mapping[str, Vector], inventory: GpuInventory) -> tuple[ExporterDialect, ...]:
    """The exporter families that are here. Where there are none of a scope, those of this project are waited for."""
    intervals = scrape_intervals(_strip_prefix(SCRAPE_COUNT_PREFIX, answers))
    found = detect_dialects(mappings(), inventory, answers["targets"], intervals)
    scopes = {dialect.mapping.scope for dialect in found if not dialect.mapping.companion}
    return (*found, *(ExporterDialect(mapping) for mapping in own_mappings() if mapping.scope not in scopes))


def _add_prefix(prefix: str, queries: Mapping[str, Expression]) -> dict[str, Expression]:
    return {prefix + name: expression for name, expression in queries.items()}


def _strip_prefix(prefix: str, answers: Mapping[str, Vector]) -> dict[str, Vector]:
    return {name.removeprefix(prefix): vector for name, vector in answers.items() if name.startswith(prefix)}
