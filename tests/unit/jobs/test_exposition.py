"""The strict parser of the text format."""

from __future__ import annotations

import math
from contextlib import suppress

import pytest
from gpu_exporter.jobs.exposition_parser import TYPES, ExpositionError, parse_exposition
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

GOOD = {
    "x 1\n": {"x": "1"},
    "x{} 1\n": {"x": "1"},
    'x{a="b"} 1\n': {'x{a="b"}': "1"},
    'x{a="b",} +Inf\n': {'x{a="b"}': "+Inf"},
    ' \t x \t { b = "2" , a="1" } \t 1e-3 \n': {'x{a="1",b="2"}': "1e-3"},
    'x{a=""} NaN\n': {"x": "NaN"},
    'x{a="} 1"} 2\n': {'x{a="} 1"}': "2"},
    'x{a="\\"\\\\\\n,=}{é"} .5\n': {'x{a="\\"\\\\\\n,=}{é"}': ".5"},
    "a:b_1 -7\n\n\n# nothing\n#\n": {"a:b_1": "-7"},
    "x inf\ny -Infinity\nz nan\n": {"x": "inf", "y": "-Infinity", "z": "nan"},
    "# EOF\n": {},
    "": {},
    "# HELP x\n# TYPE x gauge\n": {},
}


@pytest.mark.parametrize("text", GOOD)
def test_good(text: str) -> None:
    found = parse_exposition(text)
    assert {key: value for family in found.values() for key, value in family.series.items()} == GOOD[text]


def test_families() -> None:
    found = parse_exposition(
        "# HELP h Time \\\\ of \\n it.\n# TYPE h histogram\n"
        'h_bucket{le="0.1"} 1\nh_bucket{le="+Inf"} 2\nh_sum 0.3\nh_count 2\n'
        '# TYPE s summary\ns{quantile="0.5"} NaN\ns_sum 1\ns_count 1\n'
        "# TYPE c_count counter\nc_count 5\nu_sum 1\n"
    )
    assert {name: (family.type, family.help, len(family.series)) for name, family in found.items()} == {
        "h": ("histogram", "Time \\\\ of \\n it.", 4),
        "s": ("summary", None, 3),
        "c_count": ("counter", None, 1),
        "u_sum": ("untyped", None, 1),
    }


BAD = {
    "x 1": "truncated",
    "x 1\ny": "truncated",
    "x\n": "syntax",
    "x1\n": "syntax",
    "1x 1\n": "syntax",
    "x one\n": "syntax",
    "x 1_000\n": "syntax",
    "x ١\n": "syntax",
    "x 0x1p3\n": "syntax",
    "x 1e999\n": "syntax",
    "x infinit\n": "syntax",
    "x 1\r\n": "syntax",
    "x 1 1700000000000\n": "timestamp",
    "x 1 # {} 1\n": "syntax",
    "x 1 y\n": "syntax",
    'x{a="b" 1\n': "syntax",
    'x{a="b"}\n': "syntax",
    "x{a=b} 1\n": "syntax",
    "x{a='b'} 1\n": "syntax",
    'x{a="b""} 1\n': "syntax",
    'x{a="b",,} 1\n': "syntax",
    "x{,} 1\n": "syntax",
    'x{a="b" c="d"} 1\n': "syntax",
    'x{a="b",a="c"} 1\n': "syntax",
    'x{a="\\t"} 1\n': "syntax",
    'x{1a="b"} 1\n': "syntax",
    'x{a:b="c"} 1\n': "syntax",
    'x{__name__="y"} 1\n': "syntax",
    "<html>\n": "syntax",
    "{} 1\n": "syntax",
    '{"x"} 1\n': "syntax",
    "x 1\nx 2\n": "duplicate_series",
    'x{a="1",b="2"} 1\nx{b="2",a="1"} 1\n': "duplicate_series",
    'x{a=""} 1\nx 1\n': "duplicate_series",
    "# TYPE x integer\nx 1\n": "wrong_type",
    "# TYPE x\nx 1\n": "wrong_type",
    "# TYPE x gauge\n# TYPE x gauge\nx 1\n": "wrong_type",
    "x 1\n# TYPE x gauge\n": "wrong_type",
    "# TYPE x histogram\nx 1\n": "wrong_type",
    "# TYPE x histogram\nx_bucket 1\n": "wrong_type",
    '# TYPE x histogram\nx_bucket{le="a"} 1\n': "syntax",
    "# TYPE x summary\nx 1\n": "wrong_type",
    "x_count 1\n# TYPE x histogram\nx_sum 1\n": "wrong_type",
    "# HELP x a\n# HELP x b\nx 1\n": "syntax",
    "# HELP x \\t\nx 1\n": "syntax",
}


@pytest.mark.parametrize("text", BAD)
def test_bad(text: str) -> None:
    with pytest.raises(ExpositionError) as raised:
        parse_exposition(text)
    assert raised.value.reason == BAD[text]


def test_error_names_the_line_without_its_text() -> None:
    with pytest.raises(ExpositionError, match=r"^line 3: ") as raised:
        parse_exposition("x 1\ny 2\nroot:secret:0\n")
    assert "secret" not in str(raised.value)


names = st.from_regex(r"[a-zA-Z_:][a-zA-Z0-9_:]{0,6}", fullmatch=True)
keys = st.from_regex(r"[a-zA-Z][a-zA-Z0-9_]{0,3}", fullmatch=True)
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)


@given(
    st.dictionaries(names, st.sampled_from(["counter", "gauge", "untyped"]), max_size=4),
    st.lists(st.tuples(st.dictionaries(keys, texts, max_size=3), st.floats()), max_size=4),
)
def test_parsed_like_prometheus_client(types: dict[str, str], rows: list[tuple[dict[str, str], float]]) -> None:
    text, expected = "", {}
    for name, type_ in types.items():
        text += f"# TYPE {name} {type_}\n"
        for labels, value in rows:
            key = (name, tuple(sorted(labels.items())))
            if key in expected:
                continue
            expected[key] = value
            escaped = {k: v.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"') for k, v in labels.items()}
            pairs = ",".join(f'{k}="{v}"' for k, v in escaped.items())
            number = repr(value).replace("inf", "Inf").replace("nan", "NaN")
            text += f"{name}{{{pairs}}} {number}\n"
    served = ""
    for family in parse_exposition(text).values():
        assert family.type == types[family.name]
        assert family.type in TYPES
        served += f"# TYPE {family.name} {family.type}\n" if family.type != "counter" else ""
        served += "".join(f"{series} {value}\n" for series, value in family.series.items())
    read = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(served)
        for sample in family.samples
    }
    assert read.keys() == expected.keys()
    for key, value in expected.items():
        assert read[key] == value or (math.isnan(read[key]) and math.isnan(value))


@given(st.text())
def test_any_text_is_parsed_or_rejected(text: str) -> None:
    with suppress(ExpositionError):
        parse_exposition(text)


@given(st.text(alphabet='x1{}="\\,#\n aTYPEHL', max_size=60).map(lambda text: text + "\n"))
def test_round_trip(text: str) -> None:
    try:
        found = parse_exposition(text)
    except ExpositionError:
        return
    again = "".join(f"{series} {value}\n" for family in found.values() for series, value in family.series.items())
    series = {key: value for family in found.values() for key, value in family.series.items()}
    assert {key: value for family in parse_exposition(again).values() for key, value in family.series.items()} == series
