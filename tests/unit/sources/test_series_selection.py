"""Copies of a GPU's series, and series that succeed one another, distinguished by when they were scraped."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from gpu_advisor.promql.expressions import Labels
from gpu_advisor.sources.base import Samples
from gpu_advisor.sources.exporters.series_selection import (
    Candidate,
    Choice,
    LabelChoice,
    SelectionGroup,
    Thing,
    candidates_by_count,
    candidates_by_samples,
    choose,
    group_choices,
    has_duplicates,
)
from hypothesis import given
from hypothesis import strategies as st

INTERVAL, WINDOW = 15, 1800
SCRAPES = WINDOW // INTERVAL


def labels(**pairs: str) -> Labels:
    return tuple(sorted((name, value) for name, value in pairs.items() if value))


def at(seconds: np.ndarray) -> Samples:
    times = np.round(np.asarray(seconds, float) * 1000).astype(np.int64)
    return times, np.zeros(len(times))


@dataclass(frozen=True)
class Stream:
    """One Prometheus that scrapes a GPU by one job: its labels, its phase, and the scrapes that it has."""

    job: str
    replica: str
    phase: float
    scraped: tuple[bool, ...]
    pods: tuple[int, ...]  # the length of each pod's life, in scrapes; 0: none holds the GPU
    shared: bool  # two pods at a time, or one
    restart: int  # the scrape from which the exporter has another address

    def series(self) -> dict[Labels, list[float]]:
        found: dict[Labels, list[float]] = {}
        ends = np.cumsum(self.pods)
        for index in np.flatnonzero(self.scraped):
            pod = int(np.searchsorted(ends, index, side="right"))
            names = [f"p{pod}", f"q{pod}"] if self.shared and pod % 2 else [f"p{pod}"] if pod % 3 else [""]
            for name in names:
                instance = "10.0.0.1" if index < self.restart else "10.0.0.2"
                key = labels(job=self.job, replica=self.replica, pod=name, instance=instance, uuid="1")
                found.setdefault(key, []).append(index * INTERVAL + self.phase)
        return found


def streams(shared: bool = False) -> st.SearchStrategy[list[Stream]]:
    gaps = st.lists(st.tuples(st.integers(0, SCRAPES), st.integers(1, 40)), max_size=3)

    def stream(names: tuple[str, str]) -> st.SearchStrategy[Stream]:
        return st.builds(
            lambda phase, missing, pods, restart: Stream(
                *names,
                phase,
                tuple(not any(start <= n < start + length for start, length in missing) for n in range(SCRAPES)),
                tuple(pods),
                shared,
                restart,
            ),
            st.floats(0, 14.5),
            gaps,
            st.lists(st.integers(1, 50), max_size=8),
            st.integers(1, 2 * SCRAPES),
        )

    names = st.sampled_from([("a", ""), ("a", "r1"), ("a", "r2"), ("b", ""), ("b", "r1"), ("b", "r2")])
    return st.lists(names, min_size=1, max_size=4, unique=True).flatmap(
        lambda each: st.tuples(*map(stream, each)).map(list)
    )


def selected(choice: Choice, series: dict[Labels, Samples]) -> dict[Labels, Samples]:
    return {key: each for key, each in series.items() if all(part.matches(dict(key)) for part in choice)}


@given(streams())
def test_no_scrape_is_counted_twice_and_none_of_the_best_stream_is_lost(found: list[Stream]) -> None:
    series = {key: at(np.array(times)) for stream in found for key, times in stream.series().items()}
    if not series:
        return
    [best] = choose({("", "1"): candidates_by_samples(series, INTERVAL)}).values()
    kept = selected(best.choice, series)
    times = np.sort(np.concatenate([each for each, _ in kept.values()]))
    assert (best.samples, best.series) == (len(times), len(kept))
    # One sample may be near another where a series succeeds another: never more than there are series.
    assert np.sum(np.diff(times) < 0.75 * INTERVAL * 1000) < len(kept)
    assert len(times) <= SCRAPES + len(kept)
    assert len(times) >= 0.98 * max(sum(stream.scraped) for stream in found)


@given(streams(shared=True))
def test_pods_that_share_a_gpu_are_not_added_up(found: list[Stream]) -> None:
    series = {key: at(np.array(times)) for stream in found for key, times in stream.series().items()}
    for candidate in candidates_by_samples(series, INTERVAL) if series else ():
        assert not has_duplicates(selected(candidate.choice, series), INTERVAL * 1000)


FULL = np.arange(SCRAPES) * INTERVAL


@pytest.mark.parametrize(
    ("second", "duplicates"),
    [
        (FULL, True),  # the same scrapes, with other labels
        (FULL + 7, True),  # another Prometheus
        (FULL[::4] + 3, True),  # another job, once a minute
        (FULL[60:], True),
        (FULL + WINDOW, False),  # afterwards
        (FULL + WINDOW - 10, False),  # 5 s after the last one of the first: an exporter that was restarted
        (FULL + WINDOW - 30, True),
        (FULL[:0], False),
    ],
)
def test_duplicates_by_time(second: np.ndarray, duplicates: bool) -> None:
    both = {labels(pod="a"): at(FULL), labels(pod="b"): at(second)}
    assert has_duplicates(both, INTERVAL * 1000) is duplicates


def test_series_that_take_turns_are_no_duplicates() -> None:
    """As a GPU's with the label of the pod that holds it, and with none in between."""
    turns = np.arange(SCRAPES) % 7 < 3
    both = {labels(pod="a"): at(FULL[turns]), labels(): at(FULL[~turns])}
    assert not has_duplicates(both, INTERVAL * 1000)
    assert candidates_by_samples(both, INTERVAL) == [Candidate((), SCRAPES, 2)]


def test_a_series_that_has_the_whole_window_needs_no_samples() -> None:
    counts = {labels(job="a", uuid="1"): 120.0, labels(job="b", uuid="1"): 119.0, labels(job="c", uuid="1"): 60.0}
    found = candidates_by_count(counts, SCRAPES)
    assert [(each.choice, each.samples) for each in found] == [
        ((LabelChoice("job", frozenset({job})),), count) for job, count in (("a", 120), ("b", 119))
    ]
    assert candidates_by_count({labels(job="a"): 60.0, labels(job="b"): 60.0}, SCRAPES) == []


def thing(number: int) -> Thing:
    return "", f"GPU-{number}"


def rows(number: int, *jobs: str) -> list[Labels]:
    return [labels(uuid=f"GPU-{number}", job=job, instance=f"{job}-{number}") for job in jobs]


def test_a_fleet_scraped_twice_needs_one_matcher() -> None:
    series = {thing(n): rows(n, "a", "b") for n in range(100)}
    found = {key: candidates_by_count(dict.fromkeys(each, 120.0), SCRAPES) for key, each in series.items()}
    [group] = group_choices(choose(found), series)
    assert group.things is None
    assert [(each.label, each.op) for each in group.matchers] == [("job", "=")]


def test_gpus_that_only_one_job_scrapes_are_not_lost() -> None:
    series = {thing(n): rows(n, "a", "b") if n < 60 else rows(n, "b" if n < 70 else "a") for n in range(100)}
    several = {key: each for key, each in series.items() if len(each) > 1}
    found = {key: candidates_by_count(dict.fromkeys(each, 120.0), SCRAPES) for key, each in several.items()}
    groups = group_choices(choose(found), series)
    for key, each in series.items():
        group = next(group for group in groups if group.things is None or key in group.things)
        kept = [row for row in each if all(part.matches(dict(row)) for part in group.choice)]
        assert len(kept) == 1


def test_names_of_pods_are_one_group() -> None:
    """Each GPU has a pod of its own whose series is chosen: not a query for each of them."""
    series = {
        thing(n): [labels(uuid=f"GPU-{n}", pod=f"whole-{n}"), labels(uuid=f"GPU-{n}", pod=f"half-{n}")]
        for n in range(50)
    }
    counts = {key: {each[0]: 120.0, each[1]: 60.0} for key, each in series.items()}
    chosen = choose({key: candidates_by_count(each, SCRAPES) for key, each in counts.items()})
    groups = group_choices(chosen, {**series, thing(99): [labels(uuid="GPU-99")]})
    assert len(groups) == 2
    assert groups[0].choice[0].label == "pod"
    assert groups[-1] == SelectionGroup()


def test_clean_fleets_have_no_matcher() -> None:
    assert group_choices({}, {thing(1): rows(1, "a")}) == (SelectionGroup(),)
    after = {thing(1): Candidate((), 120.0, 3)}
    assert group_choices(after, {thing(1): rows(1, "a", "b")}) == (SelectionGroup((), None, True),)
