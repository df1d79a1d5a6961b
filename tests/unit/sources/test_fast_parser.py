"""The fast parser reads what the general one reads, or nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from gpu_advisor.sources.base import SourceError
from gpu_advisor.sources.prometheus.combined_queries import INDEX_LABEL, split_results
from gpu_advisor.sources.prometheus.fast_response_parser import parse_combined_response
from gpu_advisor.sources.prometheus.http_client import HttpResponse
from gpu_advisor.sources.prometheus.label_cache import LabelCache
from gpu_advisor.sources.prometheus.response_parser import parse_vector, response_data
from hypothesis import given
from hypothesis import strategies as st

TAG = {INDEX_LABEL: "0"}
NUMBERS = st.floats().map(lambda value: str(value).replace("inf", "Inf").replace("nan", "NaN"))
NAMES = st.sampled_from(["uuid", "instance", "a", "B", "__name__", INDEX_LABEL])
TWO = st.fixed_dictionaries(
    {INDEX_LABEL: st.sampled_from("01"), "uuid": st.text(st.characters(exclude_characters='"\\\\'), max_size=6)},
    optional={"__name__": st.sampled_from("ab"), "name": st.text(max_size=3)},
)
RESULTS = st.lists(st.tuples(st.one_of(TWO, st.dictionaries(NAMES, st.text(max_size=12))), NUMBERS), max_size=8)


def serialize(results: list[tuple[dict[str, str], str]], **more: Any) -> bytes:
    """As Prometheus writes it: sorted, without spaces, Unicode as it is."""
    found = [{"metric": dict(sorted(metric.items())), "value": [1795003200.123, number]} for metric, number in results]
    document = {"status": "success", "data": {"resultType": "vector", "result": found}, **more}
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")


@given(RESULTS)
def test_both_parsers_agree(results: list[tuple[dict[str, str], str]]) -> None:
    body = serialize(results)
    quick = parse_combined_response(body, LabelCache())
    try:
        careful = split_results(parse_vector(response_data(HttpResponse(200, {}, body), "it"), "it"))
    except SourceError:
        assert quick is None
        return
    assert quick is None or str(quick) == str(careful)


def test_plain_responses_take_the_fast_parser() -> None:
    results = [({INDEX_LABEL: "0", "uuid": f"GPU-{n} é, 🚀: {{x}}"}, str(n / 7)) for n in range(100)]
    [part] = (parse_combined_response(serialize(results), LabelCache()) or {}).values()
    assert len(part) == 100
    assert parse_combined_response(serialize([({**TAG, "x": "y"}, "+Inf")]) + b"\n", LabelCache()) == {
        "0": {(("x", "y"),): float("inf")}
    }
    not_a_number = serialize([({**TAG, "x": "y"}, "NaN")])
    assert str(parse_combined_response(not_a_number, LabelCache())) == "{'0': {(('x', 'y'),): nan}}"
    mixed: list[tuple[dict[str, str], str]] = [
        ({**TAG, "UUID": "u", "__name__": "up", "a": "b", "c": "d, {e}"}, "1"),
        (TAG, "2"),
        ({**TAG, "a": "b"}, "3"),
    ]
    wanted = {"0": {(("UUID", "u"), ("a", "b"), ("c", "d, {e}")): 1.0, (): 2.0, (("a", "b"),): 3.0}}
    assert parse_combined_response(serialize(mixed), LabelCache()) == wanted


@pytest.mark.parametrize(
    "more",
    [
        {"stats": {"seriesFetched": "1", "executionTimeMsec": 0}},
        {"infos": ['PromQL info: metric might not be a counter: "c" (1:10)']},
        {"warnings": ['PromQL info: metric might not be a counter: "c" (1:10)']},
        {"isPartial": False},
    ],
)
def test_what_follows_the_results_may_be_harmless(more: dict[str, Any]) -> None:
    body = serialize([({**TAG, "x": "y"}, "1")], **more)
    assert parse_combined_response(body, LabelCache()) == {"0": {(("x", "y"),): 1.0}}


def test_equal_labels_are_one_object_also_over_several_answers() -> None:
    known = LabelCache()
    found = [
        parse_combined_response(serialize([({INDEX_LABEL: n, "uuid": "u"}, "1")]), known) or {} for n in ("0", "7")
    ]
    assert found[0].keys() == {"0"}
    assert found[1].keys() == {"7"}
    [one], [other] = found[0]["0"], found[1]["7"]
    assert one is other


PLAIN = serialize([({**TAG, "x": "y"}, "1"), ({**TAG, "x": "z"}, "2")])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"\xff",
        serialize([]),
        serialize([({**TAG, "x": "y"}, "1")], warnings=["store x is away"]),
        serialize([({**TAG, "x": "y"}, "1")], isPartial=True),
        PLAIN.replace(b"vector", b"matrix"),
        PLAIN.replace(b'"2"', b'"two"'),
        PLAIN.replace(b'"z"', b'"y"'),  # the same labels twice
        PLAIN.replace(b'"z"', b'""'),
        PLAIN.replace(b'"x"', b'"__name__"'),
        PLAIN.replace(b'"x"', b'"x":"y","a"'),  # in another order
        PLAIN.replace(b'"A0_part"', b'"A0_pars"'),
        PLAIN.replace(b'"0"', b'"zero"'),
        PLAIN.replace(b"1795003200.123", b"1795003200", 1).replace(b"},{", b"},null{"),  # as long as it should be
        PLAIN.replace(b"1795003200.123", b"1795003200.124", 1),  # two times
        PLAIN.replace(b'"z"', b'"\\"z"'),
        PLAIN.replace(b'"z"', b'"\\\\z"'),
        PLAIN.replace(b'"z"', b"5"),
        PLAIN.replace(b'"z"', b'"z","c":["d"]'),
        PLAIN.replace(b'"z"', b'"z","c":"d"'),
        PLAIN.replace(b'"z"', b'"z",'),
        PLAIN.replace(b'"z"', b'"z""y":"z"'),
        PLAIN.replace(b'"0","x"', b'"0""x"'),
        PLAIN.replace(b'"x"', b'"__name__":"up""x"'),
        PLAIN.replace(b'{"A0_part"', b'{"A":"b","A0_part"'),
        PLAIN.replace(b'"x"', b'"A0":"b","x"'),
        PLAIN.replace(b'{"A0_part"', b'{"__name__":"up""A0_part"'),
        serialize([({**TAG, "__name__": name}, "1") for name in ("up", "down")]),
        PLAIN.replace(b"},{", b"}{"),
        PLAIN.replace(b"},{", b"},x{"),
        PLAIN.replace(b"]}]}}", b"]},]}}"),
        PLAIN.replace(b"]}]}}", b"]}x]}}"),
        PLAIN.replace(b'"value":[', b'"value":{'),
        PLAIN.replace(b'"value"', b'"histogram"'),
        PLAIN[:-3],
        PLAIN[:-1] + b',"infos":[}',
        PLAIN + b"x",
    ],
)
def test_anything_else_takes_the_general_parser(body: bytes) -> None:
    assert parse_combined_response(body, LabelCache()) is None


def test_the_name_may_come_first_as_victoriametrics_writes_it() -> None:
    body = serialize([({**TAG, "__name__": "up", "x": "y"}, "1"), ({**TAG, "__name__": "up", "x": "z"}, "2")])
    named = body.replace(b'"__name__":"up",', b"").replace(b'{"A0_part"', b'{"__name__":"up","A0_part"')
    assert named.startswith(b'{"status":"success","data":{"resultType":"vector","result":[{"metric":{"__name__"')
    expected = {"0": {(("x", "y"),): 1.0, (("x", "z"),): 2.0}}
    assert parse_combined_response(body, LabelCache()) == parse_combined_response(named, LabelCache()) == expected


def test_more_than_one_chunk_is_read_whole() -> None:
    results = [({**TAG, "uuid": f"GPU-{n:040}"}, str(n)) for n in range(5000)]
    body = serialize(results)
    assert len(body) > 400_000
    found = parse_combined_response(body, LabelCache())
    assert found == split_results(parse_vector(response_data(HttpResponse(200, {}, body), "it"), "it"))


@given(st.lists(st.lists(st.sampled_from("abcdef"), unique=True, max_size=6), max_size=6), st.integers(1, 4))
def test_labels_of_leaves_are_theirs_in_any_order(leaves: list[list[str]], chunk: int) -> None:
    known = LabelCache()
    for leaf in leaves:
        texts = [f',"x":"{value}"' for value in leaf]
        pieces = [known.of_results(texts[at : at + chunk], at) for at in range(0, len(texts), chunk)]
        assert [labels for piece in pieces for labels in piece] == [(("x", value),) for value in leaf]
