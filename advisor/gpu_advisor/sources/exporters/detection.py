"""Exporter detection: the exporter families present, their targets, and the GPUs and nodes they report. Pure.

A family is present on the targets that have its identity series, now or in a recent window: an exporter that is down is
still known. All queries of its mapping are restricted to these targets, because other programs use names like
`gpu_info` too; by job if that suffices, so that the matcher is as short for ten thousand nodes as for one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import floor

from gpu_advisor.promql.expressions import Aggregate, Expression, Labels, Matcher, Selector, Vector, any_of_values
from gpu_advisor.sources.exporters.dialect import ExporterDialect
from gpu_advisor.sources.exporters.mapping import ExporterMapping

#: A job with other targets besides gets a matcher of instances up to this many; beyond, the job alone is matched.
MAX_INSTANCE_MATCHERS = 50

#: Job and instance of a target.
TargetKey = tuple[str, str]


@dataclass(frozen=True, slots=True)
class GpuInventory:
    """Identity rows under canonical label names: those present now, and all of a recent window."""

    present: tuple[Labels, ...] = ()
    recent: tuple[Labels, ...] = ()

    def targets(self) -> dict[str, set[TargetKey]]:
        """The targets of each exporter family."""
        found: dict[str, set[TargetKey]] = {}
        for labels in (*self.present, *self.recent):
            found.setdefault(dict(labels)["exporter"], set()).add(target_key(labels))
        return found


def inventory_queries(mappings: Iterable[ExporterMapping], window_seconds: int | None = None) -> dict[str, Expression]:
    """The identity series of each mapping, now or in a window."""
    return {mapping.name: mapping.identity_expression(window_seconds) for mapping in mappings}


def merge_identities(mappings: Sequence[ExporterMapping], results: Mapping[str, Vector]) -> tuple[Labels, ...]:
    """Identity rows of all mappings under canonical label names, the lowest rank first.

    Rows without the identifying label are of another program. Each target counts for one family per scope: gpu-exporter
    can serve DCGM's names as well.
    """
    rows: list[Labels] = []
    taken: dict[str, set[TargetKey]] = {}
    for mapping in mappings:
        found = mapping.canonical_identities(sorted(results.get(mapping.name, {})))
        if mapping.companion:
            rows += [tuple(sorted(row.items())) for row in found]
            continue
        key = mapping.by[0]
        taken_targets = taken.setdefault(mapping.scope, set())
        kept = [row for row in found if row.get(key) and _row_target(row) not in taken_targets]
        rows += [tuple(sorted(row.items())) for row in kept]
        taken_targets |= {_row_target(row) for row in kept}
    return tuple(rows)


def target_key(labels: Labels) -> TargetKey:
    """The scrape target of a series: several jobs may scrape one address."""
    return _row_target(dict(labels))


def _row_target(row: Mapping[str, str]) -> TargetKey:
    return row.get("job", ""), row.get("instance", "")


def detect_dialects(
    mappings: Sequence[ExporterMapping], inventory: GpuInventory, targets: Vector, intervals: Mapping[str, float]
) -> tuple[ExporterDialect, ...]:
    """The families present, restricted to their targets, in order of precedence.

    `targets` is `up` of all targets, `intervals` the scrape interval of each job in seconds. Jobs with different scrape
    intervals become different dialects.
    """
    all_targets = {target_key(labels) for labels in targets}
    targets_by_exporter = inventory.targets()
    found: list[ExporterDialect] = []
    for mapping in mappings:
        present = targets_by_exporter.get(mapping.name, set())
        by_interval: dict[float | None, set[str]] = {}
        for job, _ in present:
            by_interval.setdefault(intervals.get(job), set()).add(job)
        for interval, jobs in sorted(by_interval.items(), key=lambda item: (item[0] or 0.0, sorted(item[1]))):
            found.append(ExporterDialect(mapping, _target_matchers(jobs, present, all_targets), interval))
    return tuple(found)


def _target_matchers(jobs: set[str], present: set[TargetKey], all_targets: set[TargetKey]) -> tuple[Matcher, ...]:
    by_job = any_of_values("job", tuple(sorted(jobs)))
    instances = sorted({instance for job, instance in present if job in jobs})
    mixed = any(job in jobs and (job, instance) not in present for job, instance in all_targets)
    if mixed and len(instances) <= MAX_INSTANCE_MATCHERS:
        return by_job, any_of_values("instance", tuple(instances))
    return (by_job,)


def interval_queries(windows: Iterable[int]) -> dict[str, Expression]:
    """The maximum number of samples of any target of a job, in several windows."""
    return {str(window): Aggregate("max", ("job",), Selector("up", "count", window)) for window in windows}


def scrape_intervals(counts: Mapping[str, Vector]) -> dict[str, float]:
    """The scrape interval of each job in seconds, rounded down from 1 s on. `counts` is by window length in seconds.

    n samples span n - 1 intervals within the window, so window / (n - 1) is an upper bound. The minimum over targets
    and windows is the interval itself as soon as one target was scraped without a gap over one window. Scrapes missing
    evenly everywhere look like a longer interval.
    """
    bounds: dict[str, float] = {}
    for window, vector in counts.items():
        for labels, count in vector.items():
            if count > 1:
                job = dict(labels).get("job", "")
                bounds[job] = min(bounds.get(job, float("inf")), int(window) / (count - 1))
    return {job: float(floor(bound)) if bound >= 1 else bound for job, bound in bounds.items()}
