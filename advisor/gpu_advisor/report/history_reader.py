"""The history of a fleet from a data source, in a few range queries: the only part of a report with I/O.

Recorded series are read first, as they are cheap; the exporters' own series fill the time before and after them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite

from gpu_advisor.documents.serialize import format_rfc3339
from gpu_advisor.evaluation.facts import Gpu
from gpu_advisor.observation.build import RATIO_TOLERANCE
from gpu_advisor.observation.identity import build_gpus, build_nodes, gpu_key, qualify, shared_uuids
from gpu_advisor.observation.queries import cluster_label, mappings_of, source_matchers
from gpu_advisor.observation.series import ObservedSeries, SeriesReader
from gpu_advisor.promql.expressions import (
    ConstantLabel,
    Expression,
    Labels,
    Matcher,
    Selector,
    TimeSeries,
    Vector,
    any_of_values,
    restrict_to_values,
    union,
    with_matchers,
)
from gpu_advisor.report import series
from gpu_advisor.report.owner_history import (
    OWNERS,
    IdentitySeries,
    OwnersByStep,
    ambiguous_jobs,
    merged,
    owners_by_step,
    pods_by_step,
)
from gpu_advisor.report.period import ReportPeriod
from gpu_advisor.report.series import PART_LABEL
from gpu_advisor.settings import Settings
from gpu_advisor.sources.base import SamplesByLabels, SourceError, SourceErrorKind
from gpu_advisor.sources.exporters.detection import (
    CanonicalRows,
    GpuInventory,
    TargetKey,
    canonical_targets,
    detect_dialects,
    inventory_queries,
    present_exporters,
)
from gpu_advisor.sources.exporters.dialect import ExporterDialect
from gpu_advisor.sources.exporters.identity_rows import Row, RowReader
from gpu_advisor.sources.exporters.mapping import ExporterMapping

#: Evaluates an expression at start, start + step, ... up to end (Unix time). One query. Raises SourceError.
RangeQuery = Callable[[Expression, float, float, float], Mapping[Labels, TimeSeries]]

#: Values by index of a step.
Steps = Mapping[int, float]

#: Raw samples of selectors in their windows up to a time (Unix time). One query each. Raises SourceError.
SamplesQuery = Callable[[Mapping[str, Selector], float], Mapping[str, SamplesByLabels]]

#: The window (seconds) in which scrape intervals, and duplicates of series, are looked for.
_SERIES_WINDOW_SECONDS = 1800

#: Errors of one query, not of the source: the rest of the report is still useful.
_QUERY_ERROR_KINDS = frozenset(
    {SourceErrorKind.QUERY_ERROR, SourceErrorKind.PARTIAL, SourceErrorKind.BAD_RESPONSE, SourceErrorKind.TIMEOUT}
)

#: Time and sample limits: a shorter range may succeed. The range is halved up to _MAX_SPLITS times.
_SPLITTABLE_ERROR_KINDS = frozenset({SourceErrorKind.TIMEOUT, SourceErrorKind.QUERY_ERROR})
_MAX_SPLITS = 2

#: Up to this many GPUs or nodes a query lists them; beyond, it selects all.
_MAX_NAMED = 500


@dataclass(frozen=True, slots=True)
class FleetHistory:
    """The data of a period.

    `gpus` are all observed at any time, `observed_spans` the first and last step of each, `observed_steps` all its
    steps. `values` are by part of series.py and by uuid, `cpu` by node. `owners` are by uuid and step, without their
    teams; in steps other than `owner_steps`, by uuid, nobody knows whether there were any. `expressions` are the
    queries of the parts; `unavailable` says why something is missing.
    """

    period: ReportPeriod
    gpus: tuple[Gpu, ...] = ()
    observed_spans: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    observed_steps: Mapping[str, frozenset[int]] = field(default_factory=dict)
    values: Mapping[str, Mapping[str, Steps]] = field(default_factory=dict)
    cpu: Mapping[str, Steps] = field(default_factory=dict)
    owners: Mapping[str, OwnersByStep] = field(default_factory=dict)
    owner_steps: Mapping[str, frozenset[int]] = field(default_factory=dict)
    expressions: Mapping[str, Expression] = field(default_factory=dict)
    recorded: bool = False
    unavailable: tuple[str, ...] = ()
    queries: int = 0

    @property
    def any_owner_steps(self) -> frozenset[int]:
        """Steps in which the owners of some GPU are known."""
        return frozenset[int]().union(*self.owner_steps.values())

    def of(self, part: str, uuid: str) -> Steps:
        return self.values.get(part, {}).get(uuid, {})


@dataclass(frozen=True, slots=True)
class _PartValues:
    """Values by part, name and step; the expression of each part; whether any was recorded."""

    of: Mapping[str, Mapping[str, Steps]]
    expressions: Mapping[str, Expression]
    recorded: bool


class _RangeReader:
    """Reads a source in steps of one period; counts queries and collects failures."""

    def __init__(self, query_range: RangeQuery, period: ReportPeriod, settings: Settings) -> None:
        self._query_range = query_range
        self.period = period
        self.matchers, self.cluster_label = source_matchers(settings), cluster_label(settings)
        self.mappings = mappings_of(settings)
        self.shared: frozenset[str] = frozenset()  # uuids of GPUs in several clusters
        self.queries = 0
        self.unavailable: list[str] = []

    def query_range(
        self, expression: Expression, first: int = 0, last: int | None = None
    ) -> Mapping[Labels, TimeSeries]:
        """From step `first` to step `last`. Raises SourceError."""
        end = self.period.end if last is None else self.period.time(last)
        self.queries += 1
        expression = with_matchers(expression, self.matchers)
        return self._query_range(expression, self.period.time(first), end, self.period.step_seconds)

    def name(self, labels: Mapping[str, str], label: str) -> str:
        """What a GPU or node is called: by one label, and by its cluster where that is needed."""
        value, cluster = labels.get(label, ""), labels.get(self.cluster_label, "")
        return qualify(value, cluster) if label == "instance" or value in self.shared else value

    def label_value(self, name: str, label: str) -> str:
        """The label's value of what `name` calls so: without the cluster."""
        if label == "instance":
            return name.rpartition("/")[2]
        return next((uuid for uuid in self.shared if name.endswith(f"/{uuid}")), name)

    def newest(self, expression: Expression) -> dict[Labels, float]:
        """The values at the end of the period. Raises SourceError."""
        found = self.query_range(expression, self.period.points - 1)
        return {labels: points[-1][1] for labels, points in found.items() if points}

    def query_parts(
        self, parts: Mapping[str, Expression], label: str, what: str, first: int = 0, last: int | None = None
    ) -> dict[str, dict[str, dict[int, float]]]:
        """Several expressions in one query: values by part, by the value of a label, and by step.

        A query that fails alone is added to `unavailable`. Raises SourceError if the source fails.
        """
        found: dict[str, dict[str, dict[int, float]]] = {}
        if not parts or (last is not None and last < first):
            return found
        union_expression = union(*(ConstantLabel(expression, PART_LABEL, part) for part, expression in parts.items()))
        until = self.period.points - 1 if last is None else last
        for answer in self._query_split(union_expression, what, first, until, _MAX_SPLITS):
            for labels, points in answer.items():
                each = dict(labels)
                if label in each:
                    steps = found.setdefault(each[PART_LABEL], {}).setdefault(self.name(each, label), {})
                    steps |= {
                        self.period.index(at): value for at, value in points if is_plausible(value, each[PART_LABEL])
                    }
        return found

    def query_owners(self) -> tuple[dict[str, OwnersByStep], frozenset[int]]:
        """The owners of each GPU at the end of each step, and the steps in which they are known. One query.

        A query that fails alone is added to `unavailable`. Raises SourceError if the source fails.
        """
        rows: dict[Labels, dict[int, float]] = {}
        for answer in self._query_split(OWNERS, "the owners of GPUs", 0, self.period.points - 1, _MAX_SPLITS):
            for labels, points in answer.items():
                rows.setdefault(labels, {}).update((self.period.index(at), value) for at, value in points)
        return owners_by_step(rows, lambda labels: self.name(labels, "uuid"))

    def query_own_pods(self, jobs: Sequence[str]) -> Mapping[TargetKey, frozenset[str]] | None:
        """The pods that the targets of these jobs were in the period; None if the query fails alone. One query."""
        own = Selector("up", matchers=(Matcher("pod", "!=", ""), any_of_values("job", tuple(jobs))))
        before, found = len(self.unavailable), dict[TargetKey, frozenset[str]]()
        for answer in self._query_split(own, "the exporters' own pods", 0, self.period.points - 1, _MAX_SPLITS):
            for labels in answer:
                for target in canonical_targets({labels: 1.0}, self.cluster_label):
                    found[target] = found.get(target, frozenset()) | {dict(labels)["pod"]}
        return found if len(self.unavailable) == before else None

    def _query_split(
        self, union_expression: Expression, what: str, first: int, last: int, splits: int
    ) -> Iterator[Mapping[Labels, TimeSeries]]:
        """The results, split in halves, recursively, if the range exceeds a limit."""
        try:
            yield self.query_range(union_expression, first, last)
        except SourceError as error:
            if error.kind not in _QUERY_ERROR_KINDS:
                raise
            if error.kind in _SPLITTABLE_ERROR_KINDS and splits and first < last:
                middle = (first + last) // 2
                yield from self._query_split(union_expression, what, first, middle, splits - 1)
                yield from self._query_split(union_expression, what, middle + 1, last, splits - 1)
            else:
                begin, end = (self.period.time(index) for index in (first - 1, last))
                self.unavailable.append(
                    f"{what} could not be read from {format_rfc3339(begin)} to {format_rfc3339(end)}: {error}"
                )


def is_plausible(value: float, part: str) -> bool:
    """A ratio from 0 to 1, up to rounding; other values are dropped, as for current facts."""
    return (
        isfinite(value)
        and value >= -RATIO_TOLERANCE
        and (value <= 1 + RATIO_TOLERANCE or part in series.COVERAGE_PARTS)
    )


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
    reader = _RangeReader(query_range, period, settings)
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
    reader: _RangeReader, of_gpus: Sequence[IdentitySeries], gpus: Collection[str]
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
    reader: _RangeReader,
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

    reader: _RangeReader
    read_samples: SamplesQuery

    def instant(self, expressions: Mapping[str, Expression], at: float) -> dict[str, Vector]:
        return {name: self.reader.newest(expression) for name, expression in expressions.items()}

    def samples(self, selectors: Mapping[str, Selector], at: float) -> Mapping[str, SamplesByLabels]:
        self.reader.queries += len(selectors)
        return self.read_samples(selectors, at)


def _detect_dialects(
    reader: _RangeReader, rows: tuple[Row, ...], samples: SamplesQuery | None
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


def _read_gpu_values(reader: _RangeReader, found: Sequence[ExporterDialect], uuids: Collection[str]) -> _PartValues:
    """By part and uuid."""
    step = reader.period.step_seconds
    raw = series.raw(series.gpu_parts(step), found, "gpu", step)
    return _read_with_fallback(
        reader, series.recorded(step), raw, (series.UTILIZATION, series.COVERAGE), "uuid", uuids, "GPUs"
    )


def _read_cpu(
    reader: _RangeReader, found: Sequence[ExporterDialect], instances: Collection[str]
) -> Mapping[str, Steps]:
    """By instance."""
    step = reader.period.step_seconds
    raw = series.raw((series.CPU,), found, "node", step)
    recorded = {series.CPU: series.recorded_cpu_expression(step)}
    return _read_with_fallback(reader, recorded, raw, (series.CPU,), "instance", instances, "the nodes' CPU").of.get(
        series.CPU, {}
    )


def _read_with_fallback(
    reader: _RangeReader,
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
