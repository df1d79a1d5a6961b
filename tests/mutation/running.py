"""A pytest plug-in that, in place of running the tests once, runs them against mutants."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import zip_longest
from pathlib import Path

import coverage
import pytest
from _pytest.runner import runtestprotocol

from tests.mutation.children import run_forked
from tests.mutation.core import core_files, module_name
from tests.mutation.patching import Mutant, Target, clear_caches, constant_users, load_targets
from tests.mutation.selection import choose

PROCESSES = 2

#: A test that needs more of a processor is not run: a thousand mutants are to be done in a quarter of an hour.
SLOWEST_SECONDS = 10.0

#: A test that takes this many times its processor time, and at least so long, has met a mutant that does not end.
TIME_LIMIT_FACTOR, SHORTEST_TIME_LIMIT_SECONDS = 10, 10.0


@dataclass(slots=True)
class Recording:
    """What the tests do without a mutant: lines executed (file -> line -> numbers of tests), seconds of a
    processor, failures."""

    lines: dict[str, dict[int, set[int]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(set)))
    seconds: dict[int, float] = field(default_factory=dict)
    failed: set[int] = field(default_factory=set)

    def add(self, other: tuple[dict[str, dict[int, list[int]]], dict[int, float], set[int]]) -> None:
        lines, seconds, failed = other
        for path, by_line in lines.items():
            for line, tests in by_line.items():
                self.lines[path][line].update(tests)
        self.seconds.update(seconds)
        self.failed |= failed


@dataclass(frozen=True, slots=True)
class Outcome:
    """`killer` is the test that failed, TIMED_OUT of `children` or another end of the process; None for a survivor."""

    mutant: Mutant
    killer: str | None
    tests: int


class MutationRun:
    """The plug-in: `outcomes` after the session."""

    def __init__(self, wanted: int, seed: int, chosen: Callable[[Mutant], bool], say: Callable[[str], None]) -> None:
        """`chosen` says which of the `wanted` mutants are tried in this run."""
        self._wanted, self._seed, self._chosen, self._say = wanted, seed, chosen, say
        self.outcomes: list[Outcome] = []
        self.unusable: list[str] = []
        self.tests = 0

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed:
            raise session.Interrupted("the tests cannot be collected")
        items = [item for item in session.items if item.get_closest_marker("servers") is None]
        targets = {target.path: target for target in load_targets(core_files())}
        if "torch" in sys.modules or threading.active_count() > 1:
            self._say("torch or a thread is in the process that forks: a fork may hang")
        started = time.monotonic()
        recording = self._record(items)
        usable = self._usable(items, recording)
        self.tests = len(usable)
        self._say(f"control run after {time.monotonic() - started:.0f} s")
        chosen = [mutant for mutant in choose(targets.values(), self._wanted, self._seed) if self._chosen(mutant)]
        self._say(f"{len(chosen)} mutants of {len(targets)} modules, {len(usable)} tests")
        covering = _Covering(recording, usable, targets)
        tasks = [covering.tests(mutant) for mutant in chosen]
        self.outcomes = self._against(items, targets, chosen, tasks, recording)
        self._confirm(items, targets, tasks, recording)
        return True

    def _record(self, items: Sequence[pytest.Item]) -> Recording:
        """All tests with their lines, by file in as many forks as there are processes."""
        started = time.monotonic()
        files = sorted({item.path for item in items})
        parts = [
            [number for number, item in enumerate(items) if files.index(item.path) % PROCESSES == part]
            for part in range(PROCESSES)
        ]
        recording = Recording()
        for _, found in run_forked([partial(_record, items, part) for part in parts], PROCESSES):
            recording.add(found)
        self._say(f"recorded {len(items)} tests in {time.monotonic() - started:.0f} s")
        return recording

    def _usable(self, items: Sequence[pytest.Item], recording: Recording) -> set[int]:
        """Tests that are quick and pass, also in the order in which they are run against a mutant."""
        quick = {number for number, seconds in recording.seconds.items() if seconds <= SLOWEST_SECONDS}
        slow = [items[number].nodeid for number in sorted(set(recording.seconds) - quick)]
        self._say(f"{len(slow)} tests need more than {SLOWEST_SECONDS:g} s, and are not used: {', '.join(slow)}")
        quick -= recording.failed
        failing = _failing(items, _ordered(items, quick, recording.seconds))
        self.unusable = [
            items[number].nodeid for number in sorted((recording.failed | failing) & set(range(len(items))))
        ]
        for name in self.unusable:
            self._say(f"fails without a mutant, and is not used: {name}")
        return quick - failing

    def _against(
        self,
        items: Sequence[pytest.Item],
        targets: dict[Path, Target],
        chosen: Sequence[Mutant],
        tasks: Sequence[set[int]],
        recording: Recording,
    ) -> list[Outcome]:
        started = time.monotonic()
        ordered = [_ordered(items, tests, recording.seconds) for tests in tasks]
        jobs = [
            partial(_test_mutant, items, tests, targets[mutant.path], mutant, recording.seconds)
            for mutant, tests in zip(chosen, ordered, strict=True)
        ]
        found: dict[int, Outcome] = {}
        for done, (number, killer) in enumerate(run_forked(jobs, PROCESSES), 1):
            found[number] = Outcome(chosen[number], killer, len(ordered[number]))
            if killer is None:
                self._say(f"survives: {chosen[number]}")
            if done % 100 == 0:
                alive = sum(outcome.killer is None for outcome in found.values())
                self._say(f"{done} mutants in {time.monotonic() - started:.0f} s, {alive} survive")
        return [found[number] for number in range(len(chosen))]

    def _confirm(
        self,
        items: Sequence[pytest.Item],
        targets: dict[Path, Target],
        tasks: Sequence[set[int]],
        recording: Recording,
    ) -> None:
        """A test that fails now without a mutant has killed nothing: its mutants are tried without it."""
        numbers = {item.nodeid: number for number, item in enumerate(items)}
        killers = {numbers[outcome.killer] for outcome in self.outcomes if outcome.killer in numbers}
        flaky = _failing(items, _ordered(items, killers, recording.seconds))
        again = [at for at, outcome in enumerate(self.outcomes) if numbers.get(outcome.killer or "") in flaky]
        if again:
            self.unusable += [items[number].nodeid for number in sorted(flaky)]
            self._say(f"{len(again)} mutants are tried again without {', '.join(self.unusable)}")
            chosen = [self.outcomes[at].mutant for at in again]
            repeated = self._against(items, targets, chosen, [tasks[at] - flaky for at in again], recording)
            for at, outcome in zip(again, repeated, strict=True):
                self.outcomes[at] = outcome


class _Covering:
    """Which tests execute the code that a mutant changes."""

    def __init__(self, recording: Recording, usable: set[int], targets: dict[Path, Target]) -> None:
        self._recording, self._usable = recording, usable
        self._sources = {path: target.source for path, target in targets.items()}

    def tests(self, mutant: Mutant) -> set[int]:
        if mutant.mutation.name is None:
            lines: dict[Path, set[int]] = {mutant.path: set(mutant.mutation.lines)}
        else:
            lines = constant_users(mutant.mutation.name, module_name(mutant.path), self._sources) or {}
        found: set[int] = set()
        for path, numbers in lines.items():
            executed = self._recording.lines.get(str(path), {})
            for line in numbers:
                found |= executed.get(line, set())
        return found & self._usable


def _record(
    items: Sequence[pytest.Item], numbers: Sequence[int]
) -> tuple[dict[str, dict[int, list[int]]], dict[int, float], set[int]]:
    files = [str(path) for path in core_files()]
    measured = coverage.Coverage(data_file=None, config_file=False, include=files)
    seconds: dict[int, float] = {}
    failed = set()
    measured.start()
    for number, following in _with_next(numbers):
        measured.switch_context(str(number))
        started = time.process_time()
        if not _passes(items[number], None if following is None else items[following]):
            failed.add(number)
        seconds[number] = time.process_time() - started
    measured.stop()
    data = measured.get_data()
    lines = {
        path: {line: [int(each) for each in tests if each] for line, tests in data.contexts_by_lineno(path).items()}
        for path in data.measured_files()
    }
    return lines, seconds, failed


def _test_mutant(
    items: Sequence[pytest.Item], tests: Sequence[int], target: Target, mutant: Mutant, seconds: dict[int, float]
) -> str | None:
    """The first test that fails with the mutant in force."""
    target.apply(mutant)
    clear_caches()
    for number, following in _with_next(tests):
        limit = max(SHORTEST_TIME_LIMIT_SECONDS, TIME_LIMIT_FACTOR * seconds[number])
        signal.setitimer(signal.ITIMER_REAL, limit)
        if not _passes(items[number], None if following is None else items[following]):
            return items[number].nodeid
    return None


def _failing(items: Sequence[pytest.Item], numbers: Sequence[int]) -> set[int]:
    """Those of the tests that fail in this order without a mutant."""
    found: set[int] = set()
    parts = [numbers[: len(numbers) // 2], numbers[len(numbers) // 2 :]]
    for _, failed in run_forked([partial(_failing_of, items, part) for part in parts], PROCESSES):
        found |= failed
    return found


def _failing_of(items: Sequence[pytest.Item], numbers: Sequence[int]) -> set[int]:
    return {
        number
        for number, following in _with_next(numbers)
        if not _passes(items[number], None if following is None else items[following])
    }


def _with_next(numbers: Sequence[int]) -> Iterator[tuple[int, int | None]]:
    """Each test with the one that follows: pytest keeps what both share set up."""
    return zip_longest(numbers, numbers[1:])


def _passes(item: pytest.Item, following: pytest.Item | None) -> bool:
    item._initrequest()  # type: ignore[attr-defined]
    return not any(report.failed for report in runtestprotocol(item, log=False, nextitem=following))


def _ordered(items: Sequence[pytest.Item], tests: set[int], seconds: dict[int, float]) -> list[int]:
    """Quick files first, as a file's tests share what they set up; in a file quick tests first."""
    by_file: dict[Path, list[int]] = defaultdict(list)
    for number in tests:
        by_file[items[number].path].append(number)
    files = sorted(by_file.values(), key=lambda numbers: sum(seconds[each] for each in numbers) / len(numbers))
    return [number for numbers in files for number in sorted(numbers, key=lambda each: (seconds[each], each))]
