"""Which series of a GPU or node count, where a window has several of one metric. Pure.

A GPU has several series if its labels change (another pod's name), if two jobs or two replicas of Prometheus scrape its
exporter, or if the exporter restarted under another address. Sums over series disjoint in time are exact; over copies
they count a scrape twice. Here the samples' times distinguish the copies, and a choice is made that PromQL can express:
values of as few labels as possible, which leave no two samples of one scrape.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from gpu_advisor.promql.expressions import Labels, Matcher, any_of_values
from gpu_advisor.sources.base import Samples, SamplesByLabels

#: A GPU or node: its cluster, then the values of its mapping's identifying labels.
Thing = tuple[str, ...]

#: A series with this share of the expected samples needs no other.
WHOLE_RATIO = 0.98

#: Two samples of one thing closer than this share of the scrape interval are of one scrape, seen twice.
SAME_SCRAPE_RATIO = 0.75

#: Of choices that cover nearly the same (this share of the best), the one most common in the fleet is used.
EQUIVALENT_RATIO = 0.98

#: A choice that lags behind by more scrapes than this misses what happens now.
MAX_LAG = 1.5

#: Choices have at most this many labels: job, instance and a replica label are three.
MAX_LABELS = 3


class LabelChoice(NamedTuple):
    """Series whose label has one of these values."""

    label: str
    values: frozenset[str]

    def matches(self, labels: Mapping[str, str]) -> bool:
        return labels.get(self.label, "") in self.values

    @property
    def matcher(self) -> Matcher:
        return any_of_values(self.label, tuple(sorted(self.values)))


#: The series that meet all of these; all series if empty.
Choice = tuple[LabelChoice, ...]


class Candidate(NamedTuple):
    """A possible choice for one thing: the samples it keeps, from how many series, and how many scrape intervals its
    newest sample is older than the newest of all.
    """

    choice: Choice
    samples: float
    series: int
    lag: float = 0.0


@dataclass(frozen=True, slots=True)
class SelectionGroup:
    """Things with one choice; `things` is None for all things that are in no other group.

    `successive` says whether some thing has several series, one after the other.
    """

    choice: Choice = ()
    things: frozenset[Thing] | None = None
    successive: bool = False

    @property
    def matchers(self) -> tuple[Matcher, ...]:
        return tuple(each.matcher for each in self.choice)


def candidates_by_count(counts: Mapping[Labels, float], expected: float) -> list[Candidate]:
    """Choices of a single series that has all the expected samples. None if no series has them.

    Copies of one length are alike; if others are shorter, their samples' times should decide.
    """
    varying = varying_labels(counts)
    return [
        Candidate(choice, count, 1)
        for labels, count in counts.items()
        if count >= WHOLE_RATIO * expected
        for choice in _single(labels, varying, counts)
    ]


def candidates_by_samples(series: SamplesByLabels, interval_seconds: float) -> list[Candidate]:
    """Choices without two samples of one scrape. Empty if labels cannot separate the copies."""
    interval_ms = interval_seconds * 1000
    found = _candidates(dict(series), interval_ms, MAX_LABELS)
    newest = _newest(series)
    return [
        each._replace(lag=(newest - _newest(_selected(each.choice, series))) / interval_ms) if each.choice else each
        for each in found
    ]


def _newest(series: SamplesByLabels) -> int:
    return max((int(times[-1]) for times, _ in series.values() if len(times)), default=0)


def _selected(choice: Choice, series: SamplesByLabels) -> SamplesByLabels:
    fits = _predicate(choice)
    return {labels: samples for labels, samples in series.items() if fits(labels)}


def choose(candidates: Mapping[Thing, Sequence[Candidate]]) -> dict[Thing, Candidate]:
    """One choice for each thing: a best one, and of several such, the most common in the fleet."""
    best = {thing: _equivalent(found) for thing, found in candidates.items() if found}
    popularity = Counter(each.choice for found in best.values() for each in found)
    return {
        thing: min(found, key=lambda each: (-popularity[each.choice], len(each.choice), _sortable(each.choice)))
        for thing, found in best.items()
    }


def group_choices(
    chosen: Mapping[Thing, Candidate], series_of: Mapping[Thing, Collection[Labels]]
) -> tuple[SelectionGroup, ...]:
    """Few groups for all things of `series_of`, of which those in `chosen` have several series.

    The last group has no list of things: its choice is the most common one, if all others' series meet it too.
    """
    if not chosen:
        return (SelectionGroup(),)
    common = Counter(each.choice for each in chosen.values()).most_common(1)[0][0]
    plain = [thing for thing in series_of if thing not in chosen]
    fits = _predicate(common)
    strangers = [thing for thing in plain if not all(map(fits, series_of[thing]))]
    default = common if len(strangers) < sum(1 for each in chosen.values() if each.choice == common) else ()
    groups: dict[Choice, set[Thing]] = {}
    for thing, each in chosen.items():
        if each.choice != default:
            groups.setdefault(each.choice, set()).add(thing)
    if default and strangers:
        groups.setdefault((), set()).update(strangers)
    listed = frozenset(thing for things in groups.values() for thing in things)
    return (
        *(
            SelectionGroup(choice, frozenset(things), _successive(chosen, things))
            for choice, things in _merged(groups, series_of)
        ),
        SelectionGroup(default, None, _successive(chosen, set(chosen) - listed)),
    )


def varying_labels(series: Iterable[Labels]) -> tuple[str, ...]:
    """Labels that not all series have with one value."""
    every = [dict(labels) for labels in series]
    names = sorted({name for each in every for name in each})
    return tuple(name for name in names if len({each.get(name, "") for each in every}) > 1)


def has_duplicates(series: SamplesByLabels, interval_ms: float) -> bool:
    """Whether a scrape is in two of the series.

    Where one series ends and another begins, two samples may be close: an exporter that restarts is scraped at another
    time of the interval.
    """
    every = [times for times, _ in series.values() if len(times)]
    spans = sorted((int(times[0]), int(times[-1])) for times in every)
    if all(end < start for (_, end), (start, _) in pairwise(spans)):
        return False  # one after the other: nearly always, where pods come and go
    times = np.concatenate(every)
    sizes = [len(each) for each in every]
    owner = np.repeat(np.arange(len(every)), sizes)
    ends = np.cumsum(sizes)
    first, last = np.zeros(len(times), bool), np.zeros(len(times), bool)
    first[ends - sizes], last[ends - 1] = True, True
    order = np.argsort(times, kind="stable")
    gaps = np.diff(times[order])
    left, right = order[:-1], order[1:]
    close = (owner[left] != owner[right]) & (gaps < SAME_SCRAPE_RATIO * interval_ms)
    succession = last[left] & first[right] & (gaps > 0)
    return bool(np.any(close & ~succession))


def _candidates(series: dict[Labels, Samples], interval_ms: float, depth: int) -> list[Candidate]:
    if not has_duplicates(series, interval_ms):
        return [Candidate((), float(sum(len(times) for times, _ in series.values())), len(series))]
    if not depth:
        return []
    found: list[Candidate] = []
    partitions: set[frozenset[frozenset[Labels]]] = set()
    for label in varying_labels(series):
        by_value: dict[str, dict[Labels, Samples]] = {}
        for labels, samples in series.items():
            by_value.setdefault(dict(labels).get(label, ""), {})[labels] = samples
        partition = frozenset(map(frozenset, by_value.values()))
        if partition not in partitions:  # a pod's name, its uid and its container separate the same series
            partitions.add(partition)
            found += _choices_of_label(label, by_value, interval_ms, depth)
    return found


def _choices_of_label(
    label: str,
    by_value: Mapping[str, dict[Labels, Samples]],
    interval_ms: float,
    depth: int,
) -> Iterable[Candidate]:
    """Each value alone, and the largest set of values found without duplicates."""
    whole: list[tuple[float, str]] = []
    for value, part in by_value.items():
        for each in _candidates(part, interval_ms, depth - 1):
            yield Candidate((LabelChoice(label, frozenset({value})), *each.choice), each.samples, each.series)
            if not each.choice:
                whole.append((each.samples, value))
    together: dict[Labels, Samples] = {}
    values: list[str] = []
    for _, value in sorted(whole, key=lambda found: (-found[0], found[1])):
        if not has_duplicates({**together, **by_value[value]}, interval_ms):
            together |= by_value[value]
            values.append(value)
    if len(values) > 1:
        total = float(sum(len(times) for times, _ in together.values()))
        yield Candidate((LabelChoice(label, frozenset(values)),), total, len(together))


def _single(labels: Labels, varying: Sequence[str], every: Collection[Labels]) -> list[Choice]:
    """Choices that leave this series only: each label that does so alone, else as few labels as do so together."""
    wanted = dict(labels)
    others = [dict(each) for each in every if each != labels]

    def alike(name: str, among: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
        return [each for each in among if each.get(name, "") == wanted.get(name, "")]

    def choose_value(name: str) -> LabelChoice:
        return LabelChoice(name, frozenset({wanted.get(name, "")}))

    alone: list[Choice] = [(choose_value(name),) for name in varying if not alike(name, others)]
    if alone:
        return alone
    left: list[Mapping[str, str]] = [*others]
    choice: list[LabelChoice] = []
    while left:
        label = min(varying, key=lambda name: len(alike(name, left)))
        choice.append(choose_value(label))
        left = alike(label, left)
    return [tuple(choice)]


def _equivalent(found: Sequence[Candidate]) -> list[Candidate]:
    most = max(each.samples for each in found)
    alike = [each for each in found if each.samples >= EQUIVALENT_RATIO * most]
    return [each for each in alike if each.lag <= MAX_LAG] or alike


def _sortable(choice: Choice) -> list[tuple[str, list[str]]]:
    return [(each.label, sorted(each.values)) for each in choice]


def _predicate(choice: Choice) -> Callable[[Labels], bool]:
    return lambda labels: all(each.matches(dict(labels)) for each in choice)


def _merged(
    groups: Mapping[Choice, set[Thing]], series_of: Mapping[Thing, Collection[Labels]]
) -> list[tuple[Choice, set[Thing]]]:
    """Choices of one and the same label become one, with all their values, where that changes no thing's series.

    Names of pods differ from GPU to GPU: a query for each would be too many.
    """
    merged: dict[str, list[tuple[Choice, set[Thing]]]] = {}
    for choice, things in sorted(groups.items(), key=lambda group: _sortable(group[0])):
        key = choice[0].label if len(choice) == 1 else str(_sortable(choice))
        for index, (other, members) in enumerate(merged.setdefault(key, [])):
            union = _union(choice, other)
            if (
                union is not None
                and _selects_alike(union, choice, things, series_of)
                and _selects_alike(union, other, members, series_of)
            ):
                merged[key][index] = (union, members | things)
                break
        else:
            merged[key].append((choice, set(things)))
    return [group for same in merged.values() for group in same]


def _union(one: Choice, other: Choice) -> Choice | None:
    if len(one) != 1 or len(other) != 1:
        return None
    return (LabelChoice(one[0].label, one[0].values | other[0].values),)


def _selects_alike(
    wide: Choice, narrow: Choice, things: Iterable[Thing], series_of: Mapping[Thing, Collection[Labels]]
) -> bool:
    selects, should = _predicate(wide), _predicate(narrow)
    return all(selects(labels) == should(labels) for thing in things for labels in series_of[thing])


def _successive(chosen: Mapping[Thing, Candidate], things: Iterable[Thing]) -> bool:
    return any(thing in chosen and chosen[thing].series > 1 for thing in things)
