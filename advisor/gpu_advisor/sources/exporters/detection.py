"""Exporter detection: the exporter families present, their targets, and the GPUs and nodes they report. Pure.

A family is present on the targets that have its identity series, now or in a recent window: an exporter that is down is
still known. All queries of its mapping are restricted to these targets, because other programs use names like
`gpu_info` too; by job if that suffices, so that the matcher is as short for ten thousand nodes as for one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, compress
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpu_advisor.promql.expressions import Expression, Labels, Matcher, Vector, any_of_values
from gpu_advisor.sources.exporters.dialect import ExporterDialect
from gpu_advisor.sources.exporters.identity_rows import Row, RowReader
from gpu_advisor.sources.exporters.mapping import ExporterMapping
from gpu_advisor.sources.exporters.series_selection import SelectionGroup

#: A job with other targets besides gets a matcher of instances up to this many; beyond, the job alone is matched.
MAX_INSTANCE_MATCHERS = 50

#: A scrape interval is known from this many gaps between samples on.
MIN_INTERVALS = 5

#: Gaps this near to whole seconds are whole seconds.
INTERVAL_JITTER_RATIO = 0.02


class TargetKey(NamedTuple):
    """A scrape target: several jobs may scrape one address, and two clusters may use one name."""

    job: str = ""
    instance: str = ""
    cluster: str = ""


class JobKey(NamedTuple):
    """A scrape job: two clusters may give theirs one name, and different intervals."""

    job: str = ""
    cluster: str = ""


@dataclass(frozen=True, slots=True)
class GpuInventory:
    """Identity rows: those present now, and all of a recent window, where those present are the same objects."""

    present: tuple[Row, ...] = ()
    recent: tuple[Row, ...] = ()

    @property
    def rows(self) -> Iterator[Row]:
        """Those present, then those that only the recent window has."""
        known = set(map(id, self.present))
        return chain(self.present, (row for row in self.recent if id(row) not in known))

    def of_exporters(self, names: Collection[str]) -> GpuInventory:
        """The rows of these exporter families."""
        present, recent = (
            tuple(row for row in rows if row["exporter"] in names) for rows in (self.present, self.recent)
        )
        return GpuInventory(present, recent)

    def with_former(self, rows: Iterable[Row]) -> GpuInventory:
        """With rows of an earlier window among the recent ones."""
        return GpuInventory(self.present, distinct_rows((*self.recent, *rows)))

    def targets(self) -> dict[str, set[TargetKey]]:
        """The targets of each exporter family."""
        found: dict[str, set[TargetKey]] = {}
        for row in self.rows:
            found.setdefault(row["exporter"], set()).add(row_target(row))
        return found


def inventory_queries(mappings: Iterable[ExporterMapping], window_seconds: int | None = None) -> dict[str, Expression]:
    """The identity series of each mapping, now or in a window."""
    return {mapping.name: mapping.identity_expression(window_seconds) for mapping in mappings}


@dataclass(frozen=True, slots=True)
class CanonicalRows:
    """Identity rows under canonical label names, of one evaluation. With a `cluster_label`, rows that have it get the
    label `cluster`.

    Each series is read once: nearly all that are present are in the idle window as well, and name owners. Equal rows
    are one object.
    """

    cluster_label: str = ""
    _known: dict[str, dict[Labels, Row]] = field(default_factory=dict, repr=False, compare=False)
    _readers: dict[str, RowReader] = field(default_factory=dict, repr=False, compare=False)

    def of(self, mapping: ExporterMapping, series: Iterable[Labels]) -> list[Row]:
        """The rows of one mapping, in the order of its series."""
        known, wanted = self._known.setdefault(mapping.name, {}), list(series)
        rows = list(map(known.get, wanted))
        unread = [labels for labels, row in zip(wanted, rows, strict=True) if row is None]
        reader = self._readers.setdefault(mapping.name, RowReader(mapping, self.cluster_label))
        read = reader.read(unread)
        known.update(zip(unread, read, strict=True))
        following = iter(read)
        return [next(following) if row is None else row for row in rows]

    def group(self, mapping: ExporterMapping, series: Iterable[Labels]) -> Iterator[tuple[Row, list[Labels]]]:
        """The series of each row."""
        every = list(series)
        found: dict[int, tuple[Row, list[Labels]]] = {}
        for labels, row in zip(every, self.of(mapping, every), strict=True):
            found.setdefault(id(row), (row, []))[1].append(labels)
        return iter(found.values())


def merge_identities(
    mappings: Sequence[ExporterMapping], results: Mapping[str, Vector], canonical: CanonicalRows | None = None
) -> tuple[Row, ...]:
    """Identity rows of all mappings under canonical label names, the lowest rank first, each once.

    Rows without the identifying label are of another program. Each target counts for one family per scope: gpu-exporter
    can serve DCGM's names as well.
    """
    canonical = canonical or CanonicalRows()
    rows: list[Row] = []
    taken: dict[str, set[TargetKey]] = {}
    for mapping in mappings:
        found = distinct_rows(canonical.of(mapping, sorted(results.get(mapping.name, {}))))
        if mapping.companion:
            rows += found
            continue
        key = mapping.by[0]
        taken_targets = taken.setdefault(mapping.scope, set())
        targets = list(map(row_target, found))
        kept = [row.get(key) and target not in taken_targets for row, target in zip(found, targets, strict=True)]
        rows += compress(found, kept)
        taken_targets.update(compress(targets, kept))
    return tuple(rows)


def distinct_rows(rows: Iterable[Row]) -> tuple[Row, ...]:
    """Each object once, in order: series that differ in other labels, as of pods, have one row together."""
    return tuple({id(row): row for row in rows}.values())


def canonical_targets(vector: Vector, cluster_label: str) -> dict[TargetKey, float]:
    """A value per target, as of `up`; the highest where several replicas of Prometheus scrape it."""
    found: dict[TargetKey, float] = {}
    for labels, value in vector.items():
        each = dict(labels)
        key = TargetKey(each.get("job", ""), each.get("instance", ""), each.get(cluster_label, ""))
        found[key] = max(value, found.get(key, value))
    return found


def job_key(labels: Labels, cluster_label: str) -> JobKey:
    """The job of a series that has its cluster under this label."""
    each = dict(labels)
    return JobKey(each.get("job", ""), each.get(cluster_label, ""))


def row_job(row: Row) -> JobKey:
    """The scrape job of an identity row."""
    return JobKey(row.get("job", ""), row.get("cluster", ""))


def target_key(labels: Labels) -> TargetKey:
    """The scrape target of an identity row."""
    return row_target(dict(labels))


def row_target(row: Row) -> TargetKey:
    return TargetKey(row.get("job", ""), row.get("instance", ""), row.get("cluster", ""))


class PresentExporter(NamedTuple):
    """An exporter family with the identities that its rows have, and its targets."""

    mapping: ExporterMapping
    targets: frozenset[TargetKey]


def present_exporters(mappings: Sequence[ExporterMapping], inventory: GpuInventory) -> tuple[PresentExporter, ...]:
    """The families that an inventory has rows of, in order of precedence."""
    rows: dict[str, list[Row]] = {}
    for row in inventory.rows:
        rows.setdefault(row["exporter"], []).append(row)
    return tuple(
        PresentExporter(mapping.with_identities(found), frozenset(map(row_target, found)))
        for mapping in mappings
        if (found := rows.get(mapping.name))
    )


def detect_dialects(
    present: Iterable[PresentExporter],
    targets: Collection[TargetKey],
    intervals: Mapping[JobKey, float],
    selections: Mapping[str, Sequence[SelectionGroup]] | None = None,
    *,
    matchers: tuple[Matcher, ...] = (),
    cluster_label: str = "",
) -> tuple[ExporterDialect, ...]:
    """The families present, restricted to their targets, in order of precedence.

    `targets` are all targets, `intervals` the scrape interval of each job in seconds. Jobs with different scrape
    intervals become different dialects, and so do groups of things with different series (`selections` by family, as
    group_choices has them: the last group is of all other things). `matchers` restrict all queries.
    """
    found: list[ExporterDialect] = []
    for mapping, own_targets in present:
        by_interval = _jobs_by_interval({JobKey(target.job, target.cluster) for target in own_targets}, intervals)
        for group in (selections or {}).get(mapping.name, (SelectionGroup(),)):
            things = tuple(sorted({thing[1] for thing in group.things or ()}))
            for (interval, clusters), jobs in by_interval.items():
                in_clusters = (any_of_values(cluster_label, clusters),) if clusters else ()
                found.append(
                    ExporterDialect(
                        mapping,
                        (*_target_matchers(jobs, own_targets, targets), *in_clusters, *group.matchers, *matchers),
                        interval,
                        group.successive,
                        cluster_label,
                        things,
                    )
                )
    return tuple(found)


def _jobs_by_interval(
    jobs: Collection[JobKey], intervals: Mapping[JobKey, float]
) -> dict[tuple[float | None, tuple[str, ...]], set[str]]:
    """Names of jobs by interval, shortest first, and by clusters where the interval of a job differs between them."""
    of_job: dict[str, dict[float | None, set[str]]] = {}
    for key in jobs:
        of_job.setdefault(key.job, {}).setdefault(intervals.get(key), set()).add(key.cluster)
    found: dict[tuple[float | None, tuple[str, ...]], set[str]] = {}
    for job, by_interval in of_job.items():
        for interval, clusters in by_interval.items():
            found.setdefault((interval, tuple(sorted(clusters)) if len(by_interval) > 1 else ()), set()).add(job)
    return dict(sorted(found.items(), key=lambda item: (item[0][0] or 0.0, sorted(item[1]), item[0][1])))


def _target_matchers(
    jobs: set[str], present: frozenset[TargetKey], all_targets: Collection[TargetKey]
) -> tuple[Matcher, ...]:
    by_job = any_of_values("job", tuple(sorted(jobs)))
    instances = sorted({target.instance for target in present if target.job in jobs})
    mixed = any(target.job in jobs and target not in present for target in all_targets)
    if mixed and len(instances) <= MAX_INSTANCE_MATCHERS:
        return by_job, any_of_values("instance", tuple(instances))
    # Sums that recording rules write under an exporter's own names and its job have no instance: they are no GPU's.
    # Where the exporter's series have none either (pushed, federated), the label shows nothing.
    return (by_job, Matcher("instance", "!=", "")) if all(instances) else (by_job,)


def scrape_interval(times_ms: NDArray[np.int64]) -> float | None:
    """The scrape interval in seconds: the median gap between the samples of one series, to the millisecond.

    None for fewer than MIN_INTERVALS gaps. A scrape lost now and then does not matter; every second one does.
    """
    if len(times_ms) <= MIN_INTERVALS:
        return None
    gap = float(np.median(np.diff(times_ms))) / 1000
    # Scrapes jitter by some milliseconds; configured intervals are whole seconds, or round fractions of one.
    whole = round(gap)
    return float(whole) if whole and abs(gap - whole) <= INTERVAL_JITTER_RATIO * gap else gap
