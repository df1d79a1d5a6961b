"""Identity queries, read first: targets, GPUs, nodes, and how often each is scraped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gpu_advisor.calibration.profile import PROFILE_MEMORY, PROFILE_THROUGHPUT
from gpu_advisor.observation.series import ObservedSeries
from gpu_advisor.promql.expressions import Expression, Matcher, Selector, Vector, with_matchers
from gpu_advisor.settings import EvaluationSettings, Settings
from gpu_advisor.sources.exporters.detection import (
    CanonicalRows,
    GpuInventory,
    PresentExporter,
    canonical_targets,
    detect_dialects,
    inventory_queries,
    merge_identities,
)
from gpu_advisor.sources.exporters.dialect import ExporterDialect
from gpu_advisor.sources.exporters.mapping import ExporterMapping
from gpu_advisor.sources.exporters.mapping_files import mappings, own_mappings

#: A target that is no longer scraped, and its GPUs, count as removed after this time.
REMOVED_AFTER_SECONDS = 300

#: What gpu-exporter reads of Slurm, where there is one, also while no job runs.
SLURM_NODE = (Matcher("source", "=~", "slurm_cgroups|scontrol"), Matcher("state", "=~", "ok|stale"))

#: Series read unchanged, besides signals and the mappings' identity series.
IDENTITY_EXPRESSIONS: dict[str, Expression] = {
    "drivers": Selector("gpu_exporter_driver_info"),
    "simulated": Selector("gpu_exporter_simulated_info"),
    "owners": Selector("gpu_owner_info"),
    "owner_starts": Selector("gpu_owner_start_time_seconds"),
    "down_reasons": Selector("gpu_down_info"),
    "slurm": Selector("gpu_exporter_owner_source_info", matchers=SLURM_NODE),
    "targets": Selector("up"),
    "recent_targets": Selector("up", "count", REMOVED_AFTER_SECONDS),
    "reports": Selector("training_batch_size"),
    "profile_memory": Selector(PROFILE_MEMORY),
    "profile_throughput": Selector(PROFILE_THROUGHPUT),
}

#: The key of the scrapes of each target in the idle window.
SCRAPES = "scrapes"

#: The key of the samples of each owner in the idle window.
OWNER_SAMPLES = "owner_samples"

#: Key prefixes of identity queries, followed by a mapping's name.
CURRENT_PREFIX, RECENT_PREFIX = "present/", "seen/"


def source_matchers(settings: Settings) -> tuple[Matcher, ...]:
    """Label values that all series must have, by the settings."""
    prometheus = settings.source.prometheus
    return () if prometheus is None else prometheus.label_matchers


def cluster_label(settings: Settings) -> str:
    """The label that distinguishes clusters; empty if there is none."""
    prometheus = settings.source.prometheus
    return "" if prometheus is None else prometheus.cluster_label


def mappings_of(settings: Settings) -> tuple[ExporterMapping, ...]:
    """The mappings in use: this project's, and those of the settings' directory. Raises MappingError."""
    return mappings(settings.source.mappings_dir)


def identity_queries(settings: Settings) -> dict[str, Expression]:
    """Current and recent identities, and scrape counts."""
    window = settings.evaluation.idle_window_seconds
    every = mappings_of(settings)
    queries = {
        **IDENTITY_EXPRESSIONS,
        SCRAPES: Selector("up", "count", window),
        OWNER_SAMPLES: Selector("gpu_owner_info", "count", window),
        **_add_prefix(CURRENT_PREFIX, inventory_queries(every)),
        **_add_prefix(RECENT_PREFIX, inventory_queries(every, window)),
    }
    return {name: with_matchers(query, source_matchers(settings)) for name, query in queries.items()}


def recent_identities(results: Mapping[str, Vector]) -> dict[str, Vector]:
    """The identity series of the idle window, by mapping."""
    return _strip_prefix(RECENT_PREFIX, results)


def read_inventory(
    results: Mapping[str, Vector], every: Sequence[ExporterMapping], canonical: CanonicalRows
) -> GpuInventory:
    """The GPUs and nodes that exporters report, now and in the idle window. `every` are the mappings in use."""
    return GpuInventory(
        merge_identities(every, _strip_prefix(CURRENT_PREFIX, results), canonical),
        merge_identities(every, _strip_prefix(RECENT_PREFIX, results), canonical),
    )


def windows_of(evaluation: EvaluationSettings) -> tuple[int, ...]:
    """The windows of signals, the longest last."""
    return tuple(
        sorted({evaluation.window_seconds, evaluation.idle_window_seconds // 2, evaluation.idle_window_seconds})
    )


def active_dialects(
    results: Mapping[str, Vector],
    present: Sequence[PresentExporter],
    observed: ObservedSeries,
    settings: Settings,
    window_seconds: int | None,
) -> tuple[ExporterDialect, ...]:
    """The exporter families present, as for signals of this window; for a scope without any, this project's own."""
    clusters = {target.cluster for exporter in present for target in exporter.targets}
    label = cluster_label(settings) if clusters - {""} else ""
    matchers = source_matchers(settings)
    targets = canonical_targets(results["targets"], label)
    found = detect_dialects(
        present,
        targets,
        observed.intervals,
        observed.selections_of(window_seconds),
        matchers=matchers,
        cluster_label=label,
    )
    scopes = {dialect.mapping.scope for dialect in found if not dialect.mapping.companion}
    own = (mapping for mapping in own_mappings() if mapping.scope not in scopes)
    return (*found, *(ExporterDialect(mapping, matchers, cluster_label=label) for mapping in own))


def _add_prefix(prefix: str, queries: Mapping[str, Expression]) -> dict[str, Expression]:
    return {prefix + name: expression for name, expression in queries.items()}


def _strip_prefix(prefix: str, results: Mapping[str, Vector]) -> dict[str, Vector]:
    return {name.removeprefix(prefix): vector for name, vector in results.items() if name.startswith(prefix)}
