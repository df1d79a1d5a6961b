"""The quick way reads what the careful way reads, or nothing."""

from __future__ import annotations

import json
from math import isnan
from typing import Any

import pytest
from gpu_advisor.sources.answers import data_of, vector_of
from gpu_advisor.sources.base import SourceError
from gpu_advisor.sources.http import Answer
from gpu_advisor.sources.quick import quick_vector
from hypothesis import given
from hypothesis import strategies as st

NUMBERS = st.floats().map(lambda value: str(value).replace("inf", "Inf").replace("nan", "NaN"))
NAMES = st.sampled_from(["uuid", "instance", "a", "__name__", "gpu_advisor_part"])
TWO = st.fixed_dictionaries(
    {"gpu_advisor_part": st.sampled_from("01"), "uuid": st.text(st.characters(exclude_characters='"\\\\'), max_size=6)}
)
RESULTS = st.lists(st.tuples(st.one_of(TWO, st.dictionaries(NAMES, st.text(max_size=12))), NUMBERS), max_size=8)


def written(results: list[tuple[dict[str, str], str]], **more: Any) -> bytes:
    """As Prometheus writes it: sorted, without spaces, Unicode as it is."""
    found = [{"metric": metric, "value": [1795003200.123, number]} for metric, number in results]
    for each in found:
        each["metric"] = dict(sorted(each["metric"].items()))  # type: ignore[attr-defined]
    document = {"status": "success", "data": {"resultType": "vector", "result": found}, **more}
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")


@given(RESULTS)
def test_both_ways_give_the_same(results: list[tuple[dict[str, str], str]]) -> None:
    body = written(results)
    quick = quick_vector(body)
    try:
        careful = vector_of(data_of(Answer(200, {}, body), "it"), "it")
    except SourceError:
        assert quick is None
        return
    assert quick is None or quick == pytest.approx(careful, nan_ok=True, rel=0, abs=0)


def test_plain_answers_are_read_the_quick_way() -> None:
    results = [({"gpu_advisor_part": "0", "uuid": f"GPU-{n} é, 🚀: {{x}}"}, str(n / 7)) for n in range(100)]
    assert len(quick_vector(written(results)) or {}) == 100
    key = (("a", "x"), ("b", "y"))
    assert quick_vector(written([({"b": "y", "a": "x"}, "+Inf")]) + b"\n") == {key: float("inf")}
    assert isnan((quick_vector(written([({"a": "x", "b": "y"}, "NaN")])) or {})[key])


PLAIN = written([({"a": "x", "b": "y"}, "1"), ({"a": "x", "b": "z"}, "2")])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"\xff",
        written([]),
        written([({"a": "x", "b": "y"}, "1")], warnings=["store x is away"]),
        written([({"a": "x", "b": "y"}, "1")], isPartial=True),
        PLAIN.replace(b"vector", b"matrix"),
        PLAIN.replace(b'"2"', b'"two"'),
        PLAIN.replace(b'"z"', b'"y"'),  # the same labels twice
        PLAIN.replace(b'"z"', b'""'),
        PLAIN.replace(b'"a"', b'"__name__"'),
        PLAIN.replace(b'"a"', b'"c"'),  # in another order
        PLAIN.replace(b'"z"', b'"\\"z"'),
        PLAIN.replace(b'"z"', b'"\\\\z"'),
        PLAIN.replace(b'"z"', b"5"),
        PLAIN.replace(b'"z"', b'"z","c":["d"]'),
        PLAIN.replace(b'"z"', b'"z","c":"d"'),
        PLAIN.replace(b"},{", b"}{"),
        PLAIN.replace(b"},{", b"},x{"),
        PLAIN.replace(b"]}]}}", b"]},]}}"),
        PLAIN.replace(b"]}]}}", b"]}x]}}"),
        PLAIN.replace(b'"value":[', b'"value":{'),
        PLAIN.replace(b'"value"', b'"histogram"'),
        PLAIN[:-3],
        PLAIN + b"x",
    ],
)
def test_anything_else_is_left_to_the_careful_way(body: bytes) -> None:
    assert quick_vector(body) is None
