"""GPU exporters that no mapping reads: their GPUs are missing, and the checklist says so."""

from __future__ import annotations

from collections.abc import Iterable

from gpu_advisor.promql.expressions import Matcher
from gpu_advisor.sources.base import PromqlSource, SourceError
from gpu_advisor.sources.exporters.detection import GpuInventory
from gpu_advisor.sources.exporters.mapping import ExporterMapping
from gpu_advisor.sources.exporters.unmapped import metrics_by_job, unmapped_exporters, unmapped_query

_STEP_SECONDS = 60.0


def read_unmapped_exporters(
    source: PromqlSource,
    inventory: GpuInventory,
    mappings: Iterable[ExporterMapping],
    at: float,
    matchers: Iterable[Matcher] = (),
) -> tuple[str, ...]:
    """What is missing and how to map it, by job. One query. Raises SourceError if the source itself fails.

    A server that refuses a query without a metric name, as some do, gives none.
    """
    mapped_jobs = {target.job for targets in inventory.targets().values() for target in targets}
    try:
        found = source.range_promql(unmapped_query(mapped_jobs, matchers), at, at, _STEP_SECONDS)
    except SourceError as error:
        if not error.is_of_query:
            raise
        return ()
    return tuple(each.message for each in unmapped_exporters(metrics_by_job(found), mappings))
