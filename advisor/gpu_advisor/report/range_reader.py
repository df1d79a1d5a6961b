"""Range queries of one period: split where the source limits them, with failures collected."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import isfinite

from gpu_advisor.documents.serialize import format_rfc3339
from gpu_advisor.observation.build import RATIO_TOLERANCE
from gpu_advisor.observation.identity import qualify
from gpu_advisor.observation.queries import cluster_label, mappings_of, source_matchers
from gpu_advisor.promql.expressions import (
    ConstantLabel,
    Expression,
    Labels,
    Matcher,
    Selector,
    TimeSeries,
    any_of_values,
    union,
    with_matchers,
)
from gpu_advisor.report import series
from gpu_advisor.report.owner_history import OWNERS, OwnersByStep, owners_by_step
from gpu_advisor.report.period import ReportPeriod
from gpu_advisor.report.series import PART_LABEL
from gpu_advisor.settings import Settings
from gpu_advisor.sources.base import SourceError, SourceErrorKind
from gpu_advisor.sources.exporters.detection import TargetKey, canonical_targets

#: Evaluates an expression at start, start + step, ... up to end (Unix time). One query. Raises SourceError.
RangeQuery = Callable[[Expression, float, float, float], Mapping[Labels, TimeSeries]]

#: Errors of one query, not of the source: the rest of the report is still useful.
_QUERY_ERROR_KINDS = frozenset(
    {SourceErrorKind.QUERY_ERROR, SourceErrorKind.PARTIAL, SourceErrorKind.BAD_RESPONSE, SourceErrorKind.TIMEOUT}
)

#: Time and sample limits: a shorter range may succeed. The range is halved up to _MAX_SPLITS times.
_SPLITTABLE_ERROR_KINDS = frozenset({SourceErrorKind.TIMEOUT, SourceErrorKind.QUERY_ERROR})
_MAX_SPLITS = 2


class RangeReader:
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
