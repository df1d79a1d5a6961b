"""Caches of programs that run for months: each has a bound, whatever requests and label values they see."""

from __future__ import annotations

import ast
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gpu_advisor.evaluation.diagnosis.link_speeds import nvlink_bytes_per_second
from gpu_advisor.evaluation.diagnosis.power_levels import default_limit_watts, idle_shares
from gpu_advisor.promql.expressions import Selector
from gpu_advisor.runtime import logs
from gpu_advisor.sources.exporters.identity_labels import is_lone_placeholder, is_placeholder
from gpu_advisor.sources.prometheus import range_cache
from gpu_advisor.text_cache import MAX_TEXT_LENGTH, cache_texts
from gpu_advisor.web.api import authentication, guessing, response_cache
from gpu_advisor.web.page import evidence_history, gpu_list

from tests.unit.advisor.test_render_cache import UP, count

ROOT = Path(__file__).resolve().parents[2]

#: What keeps a cache without a limit small: the keys that there can be.
FINITE_KEYS = {
    "find_dialects": "lives as long as one evaluation",
    "_parse": "expressions of the shipped table",
    "mappings": "folders that the settings name",
    "_type_adapter": "types of this program",
    "_render": "names of shipped runbooks",
}
#: Limited by number, with keys of limited length.
SMALL_KEYS = {
    "_tune": "a day of steps each",
    "options": "names of columns, groups and filters",
    "_meter": "rounded numbers",
    "_grid": "priors of this program",
    "_with_labels": "families of this program",
    "_format_header": "families of this program",
    "_format_labels": "label values of one node",
    "_window": "simulated GPUs",
}


def cached_functions() -> Iterator[tuple[str, str, bool]]:
    """Name, decorator and whether it takes anything, of each function that functools caches."""
    for package in ("advisor/gpu_advisor", "exporter/gpu_exporter"):
        for path in sorted((ROOT / package).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            for node in ast.walk(ast.parse(text)) if "cache" in text else ():
                if isinstance(node, ast.FunctionDef):
                    for decorator in node.decorator_list:
                        name = ast.unparse(decorator).partition("(")[0].rpartition(".")[2]
                        if name in ("cache", "lru_cache"):
                            yield node.name, name, bool(node.args.args)


def test_each_cached_function_has_a_bound() -> None:
    found = list(cached_functions())
    assert {name for name, kind, takes in found if kind == "cache" and takes} <= FINITE_KEYS.keys()
    assert {name for name, kind, takes in found if kind == "lru_cache"} <= SMALL_KEYS.keys()


def test_a_text_cache_keeps_few_texts_and_no_long_ones() -> None:
    computed: list[str] = []

    @cache_texts(10)
    def compute(text: str) -> int:
        computed.append(text)
        return len(text)

    for _ in range(2):
        assert [compute("x" * length) for length in (0, 1, MAX_TEXT_LENGTH)] == [0, 1, MAX_TEXT_LENGTH]
    assert len(computed) == 3
    assert compute("x" * (MAX_TEXT_LENGTH + 1)) == compute("x" * (MAX_TEXT_LENGTH + 1)) == MAX_TEXT_LENGTH + 1
    assert len(computed) == 5
    for number in range(20):
        compute(str(number))
    computed.clear()
    compute("0")
    assert computed == ["0"]


@pytest.mark.parametrize(
    "cached",
    [is_placeholder, is_lone_placeholder, nvlink_bytes_per_second, default_limit_watts, idle_shares, gpu_list.natural],
)
def test_names_and_label_values_are_cached_as_texts(cached: Callable[[str], object]) -> None:
    """Their length is that of a label value, which has no limit."""
    assert cached.__closure__ is not None, "not made by cache_texts"
    assert "look_up" in cached.__code__.co_name
    long = "NVIDIA " + "H" * 10**6
    assert cached(long) == cached(long)


def _fill_log(times: int) -> int:
    limit = logs.RepetitionLimit()
    for number in range(times):
        limit.filter(logging.LogRecord("x", 20, "", 0, f"message {number}", (), None))
    return len(limit._counts)


def _fill_guesses(times: int) -> int:
    guesses = guessing.GuessLimit()
    for number in range(times):
        guesses.record_wrong(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    return len(guesses._guesses)


def _fill_logins(times: int) -> int:
    access: Any = authentication.Authenticator({"user": "$2b$04$" + "x" * 53}, "")
    access._is_right = lambda _: True
    for number in range(times):
        access.check(f"Basic {number}", "10.0.0.1")
    return len(access._verified)


def _fill_responses(times: int) -> int:
    cache = response_cache.ResponseCache()
    for number in range(times):
        cache.get(UP, f"/recommendations?job={number}", count)
    assert cache._cache is not None
    return len(cache._cache.entries)


def _fill_ranges(times: int) -> int:
    cached: Any = range_cache.RangeCache()
    for number in range(times):
        cached.read(lambda *_: {}, number, 0.0, 60.0, 60.0)
    return len(cached._ranges)


def _fill_charts(times: int) -> int:
    history: Any = evidence_history.EvidenceHistory(lambda *_: {})
    for number in range(times):
        request = evidence_history.RangeRequest(Selector(f"m{number}"), 0.0, 60.0, 1)
        history._read(lambda *_: {}, request)
    return len(history._cache)


@pytest.mark.parametrize(
    ("fill", "bound"),
    [
        (_fill_log, logs.MAX_MESSAGES),
        (_fill_guesses, guessing.MAX_ADDRESSES),
        (_fill_logins, authentication.MAX_VERIFIED_HEADERS),
        (_fill_responses, response_cache.MAX_CACHE_BYTES // response_cache.ENTRY_BYTES),
        (_fill_ranges, range_cache.MAX_CACHED_RANGES),
        (_fill_charts, evidence_history.MAX_CACHED_SERIES),
    ],
)
def test_caches_of_the_service_stay_within_their_bounds(fill: Callable[[int], int], bound: int) -> None:
    assert 0 < fill(bound + bound // 4 + 10) <= bound
