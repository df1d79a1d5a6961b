"""Scrape intervals, and which series of each GPU and node count. Reads raw samples of as few series as possible."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from gpu_advisor.promql.expressions import Expression, Labels, Matcher, Selector, Vector, any_of_values
from gpu_advisor.sources.base import Samples, SamplesByLabels
from gpu_advisor.sources.exporters.detection import CanonicalRows, JobKey, job_key, row_job, scrape_interval
from gpu_advisor.sources.exporters.mapping import ExporterMapping, label_matchers
from gpu_advisor.sources.exporters.series_selection import (
    WHOLE_RATIO,
    Candidate,
    SelectionGroup,
    Thing,
    candidates_by_count,
    candidates_by_samples,
    choose,
    group_choices,
)
from gpu_advisor.sources.matchers import compile_matchers

#: Raw samples are read of at most this many GPUs and nodes, some 100 kilobytes per ten of them. Beyond, a series that
#: has the whole window decides, or the rest waits until one has.
MAX_SAMPLED_THINGS = 2000

#: With fewer samples than this share of those of a GPU, `up` is not what the GPU was scraped with.
MIN_UP_RATIO = 0.5

#: The series of each thing in the window, with the number of their samples.
SeriesCounts = Mapping[Thing, Mapping[Labels, float]]


@dataclass(frozen=True, slots=True)
class ObservedSeries:
    """`intervals` are by job (seconds). `selections` are by window (seconds) and family: of two replicas of Prometheus,
    one may have more of the last half hour, and the other of the last minutes. `unresolved` are things by family whose
    copies no labels separate.
    """

    intervals: Mapping[JobKey, float] = field(default_factory=dict)
    selections: Mapping[int, Mapping[str, tuple[SelectionGroup, ...]]] = field(default_factory=dict)
    unresolved: Mapping[str, frozenset[Thing]] = field(default_factory=dict)

    def selections_of(self, window_seconds: int | None) -> Mapping[str, tuple[SelectionGroup, ...]]:
        """The selections for a window: those of the nearest one known; of the shortest for instant values."""
        if not self.selections:
            return {}
        return self.selections[min(self.selections, key=lambda known: abs(known - (window_seconds or 0)))]


class SampleSource(Protocol):
    """The part of a Source that is read here."""

    def instant(self, expressions: Mapping[str, Expression], at: float) -> Mapping[str, Vector]:
        """As Source.instant."""
        ...

    def samples(self, selectors: Mapping[str, Selector], at: float) -> Mapping[str, SamplesByLabels]:
        """As Source.samples."""
        ...


@dataclass(slots=True)
class SeriesReader:
    """Reads one source at one time over some windows: the last `windows` is the longest, and read."""

    source: SampleSource
    at: float
    windows: tuple[int, ...]
    canonical: CanonicalRows
    matchers: tuple[Matcher, ...] = ()

    @property
    def cluster_label(self) -> str:
        return self.canonical.cluster_label

    @property
    def window_seconds(self) -> int:
        return self.windows[-1]

    def observe(
        self, mappings: Sequence[ExporterMapping], recent: Mapping[str, Vector], scrapes: Vector
    ) -> ObservedSeries:
        """From identity series by family and samples of `up`, both counted over the window. Raises SourceError."""
        families = [mapping for mapping in mappings if recent.get(mapping.name) and not mapping.companion]
        intervals = self._intervals(families, recent, scrapes)
        selections: dict[int, dict[str, tuple[SelectionGroup, ...]]] = {window: {} for window in self.windows}
        unresolved: dict[str, frozenset[Thing]] = {}
        for mapping in families:
            counts = self._series_counts(mapping, recent[mapping.name])
            several = {thing: series for thing, series in counts.items() if len(series) > 1}
            if several and mapping.witness:
                several = self._witness_counts(mapping, several)
            candidates = self._candidates(mapping, several, intervals)
            series_of = {**counts, **several}
            for window in self.windows:
                found = {thing: by_window[window] for thing, by_window in candidates.items()}
                selections[window][mapping.name] = group_choices(choose(found), series_of)
            unresolved[mapping.name] = frozenset(
                thing for thing, by_window in candidates.items() if not by_window[self.window_seconds]
            )
        return ObservedSeries(intervals, selections, unresolved)

    def _intervals(
        self, families: Iterable[ExporterMapping], recent: Mapping[str, Vector], scrapes: Vector
    ) -> dict[JobKey, float]:
        """The scrape interval of each job, from its series of `up` with most samples.

        Where that has far fewer samples than a GPU or node of the job, or is missing, from the latter: a history may
        have been imported, or pushed, without `up`.
        """
        best = self._fullest_by_job(scrapes)
        found: dict[JobKey, float] = {}
        witnesses: dict[str, dict[JobKey, Labels]] = {}
        wanted: dict[JobKey, Labels] = {}
        for mapping in families:
            counts = recent[mapping.name]
            for job, labels in self._fullest_by_job(counts).items():
                if job in best and scrapes[best[job]] >= MIN_UP_RATIO * counts[labels]:
                    wanted[job] = best[job]
                else:
                    witnesses.setdefault(mapping.witnesses[0], {})[job] = labels
        selectors = {"up": self._of_targets("up", wanted.values())} if wanted else {}
        selectors |= {metric: self._of_targets(metric, series.values()) for metric, series in witnesses.items()}
        for samples in self._samples(selectors).values():
            longest: dict[JobKey, int] = {}
            for labels, (times, _) in samples.items():
                job = job_key(labels, self.cluster_label)
                interval = scrape_interval(times)
                if interval is not None and len(times) > longest.get(job, 0):
                    longest[job], found[job] = len(times), interval
        return found

    def _fullest_by_job(self, counts: Vector) -> dict[JobKey, Labels]:
        """The series with most samples of each job."""
        found: dict[JobKey, tuple[float, Labels]] = {}
        for labels, count in counts.items():
            job = job_key(labels, self.cluster_label)
            if job not in found or count > found[job][0]:
                found[job] = count, labels
        return {job: labels for job, (_, labels) in found.items()}

    def _of_targets(self, metric: str, series: Iterable[Labels]) -> Selector:
        targets = [dict(labels) for labels in series]
        matchers = [
            any_of_values(name, tuple(sorted({each.get(name, "") for each in targets}))) for name in ("job", "instance")
        ]
        return Selector(metric, "count", self.window_seconds, matchers=(*matchers, *self.matchers))

    def _series_counts(self, mapping: ExporterMapping, vector: Vector) -> dict[Thing, dict[Labels, float]]:
        """The series of each thing, without those that the mapping excludes from all quantities."""
        is_used = compile_matchers(label_matchers(mapping.where))
        series = [labels for labels in vector if is_used(dict(labels))]
        found: dict[Thing, dict[Labels, float]] = {}
        for labels, thing in zip(series, self._things(mapping, series), strict=True):
            if thing is not None:
                found.setdefault(thing, {})[labels] = vector[labels]
        return found

    def _things(self, mapping: ExporterMapping, series: Sequence[Labels]) -> list[Thing | None]:
        """What each series is of: its cluster, and the value of the mapping's identifying label."""
        label = mapping.by[0]
        return [
            (row.get("cluster", ""), row[label]) if label in row else None for row in self.canonical.of(mapping, series)
        ]

    def _witness_counts(
        self, mapping: ExporterMapping, several: Mapping[Thing, Mapping[Labels, float]]
    ) -> dict[Thing, dict[Labels, float]]:
        """The same for the metric whose labels are those of all others: identity series have more."""
        selector = self._of_things(mapping, mapping.witness, several if len(several) <= MAX_SAMPLED_THINGS else {})
        counts = self._series_counts(mapping, self.source.instant({mapping.name: selector}, self.at)[mapping.name])
        return {thing: counts[thing] for thing in several if thing in counts}

    def _candidates(
        self, mapping: ExporterMapping, several: SeriesCounts, intervals: Mapping[JobKey, float]
    ) -> dict[Thing, Mapping[int, Sequence[Candidate]]]:
        """The choices for each thing and window."""
        found: dict[Thing, Mapping[int, Sequence[Candidate]]] = {}
        open_things: dict[Thing, float] = {}
        for thing, series in several.items():
            jobs = {row_job(row) for row, _ in self.canonical.group(mapping, series)}
            interval = min((intervals[job] for job in jobs if job in intervals), default=None)
            if interval is None:
                continue  # not scraped often enough yet: no window of it has enough data
            single = [Candidate((), next(iter(series.values())), 1)]
            expected = self.window_seconds / interval
            found[thing] = dict.fromkeys(
                self.windows, single if len(series) == 1 else candidates_by_count(series, expected)
            )
            if len(series) > 1 and min(series.values()) < WHOLE_RATIO * expected:
                open_things[thing] = interval
        sampled = self._sampled(mapping, {thing: several[thing] for thing in list(open_things)[:MAX_SAMPLED_THINGS]})
        for thing, samples in sampled.items():
            found[thing] = {
                window: candidates_by_samples(_newest(samples, self.at - window), open_things[thing])
                for window in self.windows
            }
        return found

    def _sampled(self, mapping: ExporterMapping, things: SeriesCounts) -> dict[Thing, dict[Labels, Samples]]:
        found: dict[Thing, dict[Labels, Samples]] = {}
        for metric in mapping.witnesses:
            missing = {thing: series for thing, series in things.items() if thing not in found}
            if missing:
                samples = self._samples({metric: self._of_things(mapping, metric, missing)})[metric]
                series = list(samples)
                for labels, thing in zip(series, self._things(mapping, series), strict=True):
                    if thing in missing:
                        found.setdefault(thing, {})[labels] = samples[labels]
        return found

    def _of_things(self, mapping: ExporterMapping, metric: str, things: SeriesCounts) -> Selector:
        """A selector of these things, or of all if there are none, by the exporter's own label."""
        values: dict[str, set[str]] = {}
        candidates = mapping.exporter_labels(mapping.by[0])
        for series in things.values():
            for each in map(dict, series):
                label = next((name for name in candidates if name in each), mapping.by[0])
                values.setdefault(label, set()).add(each.get(label, ""))
        # Things identified by different labels: no one matcher selects them all.
        matchers = [any_of_values(label, tuple(sorted(of))) for label, of in values.items()] if len(values) == 1 else []
        where = label_matchers(mapping.where)
        return Selector(metric, "count", self.window_seconds, matchers=(*matchers, *where, *self.matchers))

    def _samples(self, selectors: Mapping[str, Selector]) -> Mapping[str, SamplesByLabels]:
        return self.source.samples(selectors, self.at) if selectors else {}


def _newest(series: SamplesByLabels, since: float) -> dict[Labels, Samples]:
    """The samples after a time."""
    found: dict[Labels, Samples] = {}
    since_ms = round(since * 1000)
    for labels, (times, values) in series.items():
        if len(times) and times[0] > since_ms:
            found[labels] = times, values
        elif len(times) and times[-1] > since_ms:
            first = int(np.searchsorted(times, since_ms, side="right"))
            found[labels] = times[first:], values[first:]
    return found
