"""The history of a fleet from a data source, in a few range queries: the only part of a report with I/O.

Recorded series are read first, as they are cheap; the exporters' own series fill the time before and after them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from gpu_advisor.observation.identity import build_gpus, build_nodes, gpu_key, qualify, shared_uuids
from gpu_advisor.observation.series import ObservedSeries, SeriesReader
from gpu_advisor.promql.expressions import (
    ConstantLabel,
    Expression,
    Labels,
    Selector,
    TimeSeries,
    Vector,
    restrict_to_values,
    union,
)
from gpu_advisor.report import series
from gpu_advisor.report.fleet_history import FleetHistory, Steps
from gpu_advisor.report.owner_history import IdentitySeries, OwnersByStep, ambiguous_jobs, merged, pods_by_step
from gpu_advisor.report.period import ReportPeriod
from gpu_advisor.report.range_reader import RangeQuery, RangeReader
from gpu_advisor.report.series import PART_LABEL
from gpu_advisor.settings import Settings
from gpu_advisor.sources.base import SamplesByLabels
from gpu_advisor.sources.exporters.detection import (
    CanonicalRows,
    GpuInventory,
    canonical_targets,
    detect_dialects,
    inventory_queries,
    present_exporters,
)
from gpu_advisor.sources.exporters.dialect import ExporterDialect
from gpu_advisor.sources.exporters.identity_rows import Row, RowReader
from gpu_advisor.sources.exporters.mapping import ExporterMapping

#: Raw samples of selectors in their windows up to a time (Unix time). One query each. Raises SourceError.
SamplesQuery = Callable[[Mapping[str, Selector], float], Mapping[str, SamplesByLabels]]

#: The window (seconds) in which scrape intervals, and duplicates of series, are looked for.
_SERIES_WINDOW_SECONDS = 1800

#: Up to this many GPUs or nodes a query lists them; beyond, it selects all.
_MAX_NAMED = 500


@dataclass(frozen=True, slots=True)
class _PartValues:
    """Values by part, name and step; the expression of each part; whether any was recorded."""

    of: Mapping[str, Mapping[str, Steps]]
    expressions: Mapping[str, Expression]
    recorded: bool


def read_history(
    query_range: RangeQuery,
    period: ReportPeriod,
    samples: SamplesQuery | None = None,
    settings: Settings | None = None,
    with_cpu: bool = True,
) -> FleetHistory:
    """Raises SourceError if the source does not respond; single failed queries are in `unavailable`.

    Without `samples` neither scrape intervals nor duplicates are known, and each value counts as fully observed.
    """
    settings = settings or Settings()
    reader = RangeReader(query_range, period, settings)
    rows, named, instances, of_gpus = _read_identities(reader)
    if not rows:
        return FleetHistory(period, unavailable=tuple(reader.unavailable), queries=reader.queries)
    found = _detect_dialects(reader, tuple(rows), samples)
    nodes = build_nodes(row for row in rows if "uuid" not in row)
    gpus = build_gpus(GpuInventory(present=tuple(row for row in rows if "uuid" in row)), {}, {}, {}, nodes)
    known = {gpu.uuid for gpu in gpus}
    values = _read_gpu_values(reader, found, known)
    for uuid, steps in values.of.get(series.UTILIZATION, {}).items():
        named.setdefault(uuid, set()).update(steps)
    cpu = _read_cpu(reader, found, instances) if with_cpu else {}
    owners, owner_steps = _read_owners(reader, of_gpus, known)
    return FleetHistory(
        period,
        gpus,
        {uuid: (min(steps), max(steps)) for uuid, steps in named.items() if uuid in known and steps},
        {uuid: frozenset(steps) for uuid, steps in named.items() if uuid in known},
        values.of,
        {instances[key]: steps for key, steps in cpu.items() if key in instances},
        owners,
        owner_steps,
        values.expressions,
        values.recorded,
        tuple(reader.unavailable),
        reader.queries,
    )


def _read_owners(
    reader: RangeReader, of_gpus: Sequence[IdentitySeries], gpus: Collection[str]
) -> tuple[Mapping[str, OwnersByStep], Mapping[str, frozenset[int]]]:
    """The owners of each GPU by step, and the steps in which they are known.

    gpu-exporter knows the owners of its own GPUs, other exporters' series may name pods.
    """
    owners, known = reader.query_owners()
    jobs = ambiguous_jobs(of_gpus)
    pods, known_pods = pods_by_step(of_gpus, reader.query_own_pods(jobs) if jobs else {})
    ours = owners.keys() | {each.gpu for each in of_gpus if each.own}
    steps = {gpu: known_pods.get(gpu, frozenset()) | (known if gpu in ours else frozenset()) for gpu in gpus}
    return merged(owners, pods), steps


def _read_identities(
    reader: RangeReader,
) -> tuple[list[Row], dict[str, set[int]], dict[str, str], list[IdentitySeries]]:
    """Canonical identity rows of the period, the steps in which each GPU was observed, nodes by instance, and the
    series of GPUs.

    Exporters in order of preference: the first with a GPU identifies it, by its newest row.
    """
    every = {mapping.name: mapping for mapping in reader.mappings if not mapping.companion}
    union_expression = union(
        *(ConstantLabel(mapping.identity_expression(), PART_LABEL, name) for name, mapping in every.items())
    )
    by_family: dict[str, list[tuple[float, Labels, TimeSeries]]] = {}
    for labels, points in reader.query_range(union_expression).items():
        if points:
            each = dict(labels)
            rest = tuple((name, value) for name, value in labels if name != PART_LABEL)
            by_family.setdefault(each[PART_LABEL], []).append((points[-1][0], rest, points))
    found: list[tuple[Row, Labels, TimeSeries]] = []
    for name, mapping in every.items():
        newest_first = sorted(by_family.get(name, ()), key=lambda row: (-row[0], row[1]))
        found += _canonical(mapping, newest_first, reader.cluster_label)
    rows = [row for row, *_ in found]
    reader.shared = shared_uuids(GpuInventory(present=tuple(rows)))
    named: dict[str, set[int]] = {}
    of_gpus = []
    for row, labels, points in found:
        if row.get("uuid"):
            gpu, steps = gpu_key(row, reader.shared), {reader.period.index(at) for at, _ in points}
            named.setdefault(gpu, set()).update(steps)
            of_gpus.append(IdentitySeries.of(gpu, labels, row, steps, own=every[row["exporter"]].rank == 0))
    instances = {
        qualify(each.get("instance", ""), each.get("cluster", "")): qualify(each["nodename"], each.get("cluster", ""))
        for each in reversed(rows)
        if "uuid" not in each and each.get("nodename")
    }
    return rows, named, instances, of_gpus


def _canonical(
    mapping: ExporterMapping, rows: Sequence[tuple[float, Labels, TimeSeries]], cluster_label: str
) -> Iterable[tuple[Row, Labels, TimeSeries]]:
    found = RowReader(mapping, cluster_label).read(labels for _, labels, _ in rows)
    return [
        (row, labels, points) for row, (_, labels, points) in zip(found, rows, strict=True) if row.get(mapping.by[0])
    ]


@dataclass(frozen=True, slots=True)
class _SourceAtEnd:
    """What SeriesReader reads, at the end of a period."""

    reader: RangeReader
    read_samples: SamplesQuery

    def instant(self, expressions: Mapping[str, Expression], at: float) -> dict[str, Vector]:
        return {name: self.reader.newest(expression) for name, expression in expressions.items()}

    def samples(self, selectors: Mapping[str, Selector], at: float) -> Mapping[str, SamplesByLabels]:
        self.reader.queries += len(selectors)
        return self.read_samples(selectors, at)


def _detect_dialects(
    reader: RangeReader, rows: tuple[Row, ...], samples: SamplesQuery | None
) -> tuple[ExporterDialect, ...]:
    """The exporter dialects of the period, limited to their targets, by their series at its end."""
    window = _SERIES_WINDOW_SECONDS
    parts: dict[str, Expression] = {"up": Selector("up", "count", window), **inventory_queries(reader.mappings, window)}
    union_expression = union(*(ConstantLabel(expression, PART_LABEL, part) for part, expression in parts.items()))
    newest: dict[str, dict[Labels, float]] = {part: {} for part in parts}
    for labels, value in reader.newest(union_expression).items():
        rest = tuple((name, value) for name, value in labels if name != PART_LABEL)
        newest[dict(labels)[PART_LABEL]][rest] = value
    observed = ObservedSeries()
    scrapes = newest.pop("up")
    if samples is not None:
        source = _SourceAtEnd(reader, samples)
        series_reader = SeriesReader(
            source, reader.period.end, (window,), CanonicalRows(reader.cluster_label), reader.matchers
        )
        observed = series_reader.observe(reader.mappings, newest, scrapes)
    label = reader.cluster_label if any(row.get("cluster") for row in rows) else ""
    return detect_dialects(
        present_exporters(reader.mappings, GpuInventory(recent=rows)),
        canonical_targets(scrapes, label),
        observed.intervals,
        observed.selections_of(window),
        cluster_label=label,
    )


def _read_gpu_values(reader: RangeReader, found: Sequence[ExporterDialect], uuids: Collection[str]) -> _PartValues:
    """By part and uuid."""
    step = reader.period.step_seconds
    raw = series.raw(series.gpu_parts(step), found, "gpu", step)
    return _read_with_fallback(
        reader, series.recorded(step), raw, (series.UTILIZATION, series.COVERAGE), "uuid", uuids, "GPUs"
    )


def _read_cpu(reader: RangeReader, found: Sequence[ExporterDialect], instances: Collection[str]) -> Mapping[str, Steps]:
    """By instance."""
    step = reader.period.step_seconds
    raw = series.raw((series.CPU,), found, "node", step)
    recorded = {series.CPU: series.recorded_cpu_expression(step)}
    return _read_with_fallback(reader, recorded, raw, (series.CPU,), "instance", instances, "the nodes' CPU").of.get(
        series.CPU, {}
    )


def _read_with_fallback(
    reader: RangeReader,
    recorded: Mapping[str, Expression],
    raw: Mapping[str, Expression],
    leading: tuple[str, ...],
    label: str,
    things: Collection[str],
    what: str,
) -> _PartValues:
    """Recorded series, and the exporters' own for the time before and after them and for names without any.

    `leading` are the parts that decide where there are recorded series: all of them must be.
    """
    values = reader.query_parts(recorded, label, f"the recorded series of {what}")
    seen = values.get(leading[0], {})
    indices = [[index for steps in values.get(part, {}).values() for index in steps] for part in leading]
    if not all(indices):
        return _PartValues(reader.query_parts(raw, label, what), raw, False)
    begin, end, last = max(map(min, indices)), min(map(max, indices)), reader.period.points - 1
    unrecorded = tuple(sorted(set(things) - seen.keys()))
    unrecorded_parts = raw if unrecorded else {}
    if len(unrecorded) <= _MAX_NAMED:
        # One lost GPU without utilization must not cause raw queries for all others.
        values_of = tuple(sorted({reader.label_value(name, label) for name in unrecorded}))
        unrecorded_parts = {
            part: restrict_to_values(expression, label, values_of) for part, expression in unrecorded_parts.items()
        }
    for parts, first, until in ((raw, 0, begin - 1), (unrecorded_parts, begin, end), (raw, end + 1, last)):
        for part, found in reader.query_parts(parts, label, what, first, until).items():
            for thing, steps in found.items():
                known = values.setdefault(part, {}).setdefault(thing, {})
                values[part][thing] = {**steps, **known}
    names = dict.fromkeys((*recorded, *raw))
    both = {part: union(*(parts[part] for parts in (recorded, raw) if part in parts)) for part in names}
    return _PartValues(values, both, True)
