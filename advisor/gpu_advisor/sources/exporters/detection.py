"""Which exporter families are here, on which targets, and who they tell of. Pure.

A family is here where its identity series are, now or in the window before: an exporter that fell silent is still
known. Every later query of its mapping is held to the targets that speak it, because other programs use names like
`gpu_info` too. By job where that is enough, so that the matcher is as short for ten thousand nodes as for one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import floor

from gpu_advisor.promql.expressions import Aggregate, Expression, Labels, Matcher, Selector, Vector, any_of_values
from gpu_advisor.sources.exporters.dialect import ExporterDialect
from gpu_advisor.sources.exporters.mapping import ExporterMapping

#: Targets of a job that has others besides are named one by one up to this many; beyond, the job alone is the matcher.
MAX_INSTANCE_MATCHERS = 50

#: What a target is known by: job and instance.
TargetKey = tuple[str, str]


@dataclass(frozen=True, slots=True)
class GpuInventory:
    """Identity rows under our names: those there now, and all those of the window."""

    present: tuple[Labels, ...] = ()
    recent: tuple[Labels, ...] = ()

    def targets(self) -> dict[str, set[TargetKey]]:
        """Where each exporter family speaks."""
        found: dict[str, set[TargetKey]] = {}
        for labels in (*self.present, *self.recent):
            found.setdefault(dict(labels)["exporter"], set()).add(target_key(labels))
        return found


def inventory_queries(mappings: Iterable[ExporterMapping], window_seconds: int | None = None) -> dict[str, Expression]:
    """What to ask: each mapping's identity series, now or in a window."""
    return {mapping.name: mapping.identity_expression(window_seconds) for mapping in mappings}


def merge_identities(mappings: Sequence[ExporterMapping], answers: Mapping[str, Vector]) -> tuple[Labels, ...]:
    """Identity rows of all mappings under our names, the lowest rank first.

    Rows without the label that names the thing are another program's. A target that speaks one family is not listened
    to in another one of the same scope: our exporter can serve DCGM's names as well.
    """
    rows: list[Labels] = []
    taken: dict[str, set[TargetKey]] = {}
    for mapping in mappings:
        found = mapping.canonical_identities(sorted(answers.get(mapping.name, {})))
        if mapping.companion:
            rows += [tuple(sorted(row.items())) for row in found]
            continue
        key = mapping.by[0]
        others = taken.setdefault(mapping.scope, set())
        kept = [row for row in found if row.get(key) and (row.get("job", ""), row.get("instance", "")) not in others]
        rows += [tuple(sorted(row.items())) for row in kept]
        others |= {(row.get("job", ""), row.get("instance", "")) for row in kept}
    return tuple(rows)


def target_key(labels: Labels) -> TargetKey:
    """Which scraped target a series is of: one address may be scraped by several jobs."""
    each = dict(labels)
    return each.get("job", ""), each.get("instance", "")


def detect_dialects(
    mappings: Sequence[ExporterMapping], inventory: GpuInventory, targets: Vector, intervals: Mapping[str, float]
) -> tuple[ExporterDialect, ...]:
    """The families that are here, held to their targets, in the order in which they are listened to.

    `targets` is `up` of everything that is scraped, `intervals` the scrape interval of each job in seconds. Jobs that
    are scraped at different intervals are different dialects.
    """
    every = {target_key(labels) for labels in targets}
    targets_by_exporter = inventory.targets()
    found: list[ExporterDialect] = []
    for mapping in mappings:
        here = targets_by_exporter.get(mapping.name, set())
        by_interval: dict[float | None, set[str]] = {}
        for job, _ in here:
            by_interval.setdefault(intervals.get(job), set()).add(job)
        for interval, jobs in sorted(by_interval.items(), key=lambda item: (item[0] or 0.0, sorted(item[1]))):
            found.append(ExporterDialect(mapping, _target_matchers(jobs, here, every), interval))
    return tuple(found)


def _target_matchers(jobs: set[str], here: set[TargetKey], every: set[TargetKey]) -> tuple[Matcher, ...]:
    by_job = any_of_values("job", tuple(sorted(jobs)))
    mine = sorted({instance for job, instance in here if job in jobs})
    mixed = any(job in jobs and (job, instance) not in here for job, instance in every)
    if mixed and len(mine) <= MAX_INSTANCE_MATCHERS:
        return by_job, any_of_values("instance", tuple(mine))
    return (by_job,)


def interval_queries(windows: Iterable[int]) -> dict[str, Expression]:
    """What to ask for the scrape intervals: the most samples that any target of a job has, in several windows."""
    return {str(window): Aggregate("max", ("job",), Selector("up", "count", window)) for window in windows}


def scrape_intervals(counts: Mapping[str, Vector]) -> dict[str, float]:
    """How often each job is scraped, in seconds; whole ones from one second on. `counts` by length of the window.

    n samples are n - 1 intervals apart and fit into the window, so window / (n - 1) is an upper bound. The least over
    targets and windows is the interval itself, as soon as one target was scraped without a gap over one window: a gap
    in one of them does not hide there. Scrapes that are thinned out evenly everywhere look like a longer interval.
    """
    bounds: dict[str, float] = {}
    for window, vector in counts.items():
        for labels, count in vector.items():
            if count > 1:
                job = dict(labels).get("job", "")
                bounds[job] = min(bounds.get(job, float("inf")), int(window) / (count - 1))
    return {job: float(floor(bound)) if bound >= 1 else bound for job, bound in bounds.items()}
