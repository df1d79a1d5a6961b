"""Raw samples: the quick parser finds what json.loads finds, in little memory."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import numpy as np
import pytest
from gpu_advisor.promql.expressions import Labels
from gpu_advisor.sources.base import Samples, SourceError, SourceErrorKind
from gpu_advisor.sources.prometheus.http_client import HttpResponse
from gpu_advisor.sources.prometheus.samples_parser import parse_samples
from hypothesis import given
from hypothesis import strategies as st

AT = 1_795_003_200.123
NUMBERS = st.one_of(
    st.floats().map(lambda value: str(value).replace("inf", "Inf").replace("nan", "NaN")), st.just("+Inf")
)
TIMES = st.integers(0, 10**6).map(lambda milliseconds: round(AT + milliseconds / 1000, 3))
SERIES = st.tuples(
    st.dictionaries(st.sampled_from(["__name__", "a", "b", "values", 'we"ird']), st.text(max_size=12)),
    st.dictionaries(TIMES, NUMBERS, max_size=6).map(lambda found: [list(pair) for pair in sorted(found.items())]),
)


def body(results: list[tuple[dict[str, str], list[Any]]], *, indent: int | None = None, **more: Any) -> bytes:
    found = [{"metric": metric, "values": values} for metric, values in results]
    document = {"status": "success", "data": {"resultType": "matrix", "result": found}, **more}
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False, indent=indent).encode()


def parsed(text: bytes, **options: bool) -> dict[Labels, Samples]:
    return parse_samples(HttpResponse(200, {}, text), "it", **options)


def plain(found: dict[Labels, Samples]) -> dict[Labels, list[tuple[int, str]]]:
    return {
        labels: [(time, str(value)) for time, value in zip(times.tolist(), values.tolist(), strict=True)]
        for labels, (times, values) in found.items()
    }


@given(st.lists(SERIES, max_size=5))
def test_both_ways_give_the_same(results: list[tuple[dict[str, str], list[Any]]]) -> None:
    """An indented response takes the general parser."""
    outcomes: list[object] = []
    for text in (body(results), body(results, infos=["x"]), body(results, indent=1)):
        try:
            outcomes.append(plain(parsed(text)))
        except SourceError as error:
            outcomes.append(str(error))
    assert outcomes[0] == outcomes[1] == outcomes[2]


def test_times_are_exact_milliseconds() -> None:
    times = [round(1_795_003_200 + milliseconds / 1000, 3) for milliseconds in range(2000)]
    [(found, values)] = parsed(body([({"a": "b"}, [[time, "0.1"] for time in times])])).values()
    assert found.tolist() == [1_795_003_200_000 + milliseconds for milliseconds in range(2000)]
    assert found.dtype == np.int64
    assert set(values.tolist()) == {0.1}


ONE = {"__name__": "x", "a": "1"}
PAIRS = [[AT, "1"], [AT + 15, "2"]]


@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        (body([(ONE, PAIRS)], warnings=["store-3 is away"]), SourceErrorKind.PARTIAL, "store-3"),
        (body([(ONE, PAIRS)], isPartial=True), SourceErrorKind.PARTIAL, "isPartial"),
        (body([(ONE, PAIRS), (ONE, PAIRS)]), SourceErrorKind.BAD_RESPONSE, "same labels"),
        (body([(ONE, PAIRS)]).replace(b"matrix", b"vector"), SourceErrorKind.BAD_RESPONSE, "expected a matrix"),
        (body([(ONE, PAIRS)])[:-2], SourceErrorKind.BAD_RESPONSE, "truncated"),
        (body([(ONE, PAIRS)]).replace(b'"2"', b'"two"'), SourceErrorKind.BAD_RESPONSE, "shape of a matrix"),
        (body([(ONE, PAIRS)]).replace(b'"2"', b"null"), SourceErrorKind.BAD_RESPONSE, "shape of a matrix"),
        (body([(ONE, PAIRS)]).replace(b',"2"', b',"2","3"'), SourceErrorKind.BAD_RESPONSE, "shape of a matrix"),
        (body([(ONE, PAIRS)]).replace(b'"1"}', b"5}"), SourceErrorKind.BAD_RESPONSE, "shape of a matrix"),
        (body([(ONE, PAIRS)]).replace(b"values", b"points"), SourceErrorKind.BAD_RESPONSE, "shape of a matrix"),
        (b"<html>", SourceErrorKind.BAD_RESPONSE, "web page"),
        (b'{"status":"error","errorType":"execution","error":"no"}', SourceErrorKind.QUERY_ERROR, "no"),
    ],
)
def test_refused(text: bytes, kind: SourceErrorKind, says: str) -> None:
    with pytest.raises(SourceError, match=says) as caught:
        parsed(text)
    assert caught.value.kind is kind


@pytest.mark.parametrize("indent", [None, 1])
def test_markers_and_repeated_times_of_victoriametrics(indent: int | None) -> None:
    """Both are stored: a marker is written as NaN, and of several samples at one time the last counts."""
    values = [[AT, "NaN"], [AT + 15, "1"], [AT + 15, "2"], [AT + 30, "NaN"]]
    found = parsed(body([(ONE, values), ({"a": "2"}, [[AT, "NaN"]])], indent=indent), drop_nan=True)
    assert plain(found) == {(("a", "1"),): [(round((AT + 15) * 1000), "2.0")]}


def test_the_samples_of_a_fleet_need_little_more_memory_than_their_arrays() -> None:
    values = [[round(AT + 15 * step, 3), f"{step / 7:.6f}"] for step in range(1000)]
    text = body([({"uuid": f"GPU-{number}"}, values) for number in range(100)])
    tracemalloc.start()
    found = parsed(text)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    arrays = sum(times.nbytes + values.nbytes for times, values in found.values())
    assert arrays == 100 * 1000 * 16
    assert peak < 2 * arrays
