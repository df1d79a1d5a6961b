from __future__ import annotations

import pytest
from gpu_advisor.promql.compiler import format_duration, quote_string, range_selector, to_promql
from gpu_advisor.promql.expressions import Affine, Aggregate, Expression, Matcher, Ratio, Selector, restrict_to_values
from gpu_advisor.promql.query_language import METRICSQL, PROMQL_2

BUSY = Selector("gpu_busy_seconds_total", "rate", 1800, matchers=(Matcher("uuid", "=~", "GPU-.*"),))
UP = Selector("gpu_up")


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        (UP, "gpu_up"),
        (Selector("x", "mean", 90), "avg_over_time(x[90s])"),
        (Selector("x", "min", 60), "min_over_time(x[1m])"),
        (Selector("x", "max", 60), "max_over_time(x[1m])"),
        (Selector("x", "count", 60), "count_over_time(x[1m])"),
        (Selector("x", "increase", 3600), "increase(x[1h])"),
        (Selector("x", "quantile", 60, q=0.95), "quantile_over_time(0.95, x[1m])"),
        (Selector("x", "quantile", 60, q=1.0), "quantile_over_time(1, x[1m])"),
        (BUSY, 'rate(gpu_busy_seconds_total{uuid=~"GPU-.*"}[30m])'),
        (
            Selector("x", matchers=(Matcher("b", "!=", ""), Matcher("a", "!~", "y|z"))),
            'x{b!="",a!~"y|z"}',
        ),
        (Aggregate("sum", ("uuid", "job"), UP), "sum by (uuid, job) (gpu_up)"),
        (Aggregate("count", (), UP), "count(gpu_up)"),
        (Ratio(UP, BUSY), 'gpu_up / (rate(gpu_busy_seconds_total{uuid=~"GPU-.*"}[30m]) != 0)'),
        (Ratio(Ratio(UP, UP), Ratio(UP, UP)), "(gpu_up / (gpu_up != 0)) / ((gpu_up / (gpu_up != 0)) != 0)"),
        (Affine(UP, scale=0.01), "0.01 * gpu_up"),
        (Affine(UP, scale=-1, offset=1), "-1 * gpu_up + 1"),
        (Affine(UP, offset=-273.15), "gpu_up - 273.15"),
        (Affine(Affine(UP, offset=1), scale=2), "2 * (gpu_up + 1)"),
        (Affine(UP, scale=1e-9), "1e-09 * gpu_up"),
    ],
)
def test_text(expression: Expression, text: str):
    assert to_promql(expression) == text


@pytest.mark.parametrize(
    ("selector", "text"),
    [
        (Selector("x"), "default_rollup(x[5m] @ 7.0002)"),
        (Selector("x", "mean", 60), "avg_over_time(x[1m] @ 7.0002)"),
        (Selector("x", "quantile", 60, 0.5), "quantile_over_time(0.5, x[1m] @ 7.0002)"),
        (Selector("x", "rate", 60), "extrapolated_rate(x[1m] @ 7.0002, 60, 7.000)"),
        (Selector("x", "increase", 300), "extrapolated_increase(x[5m] @ 7.0002, 300, 7.000)"),
    ],
)
def test_metricsql(selector: Selector, text: str):
    definitions = METRICSQL.definitions if selector.function in ("rate", "increase") else ""
    assert to_promql(selector, 7.0, METRICSQL) == definitions + text
    twice = Ratio(selector, Aggregate("sum", (), selector))
    assert to_promql(twice, 7.0, METRICSQL) == f"{definitions}{text} / (sum({text}) != 0)"  # defined once, in front


@pytest.mark.parametrize(
    ("regex", "in_version_2"),
    [
        ("a.c", "(?s:a.c)"),
        ("a\\.c", "a\\.c"),
        ("a\\\\.c", "(?s:a\\\\.c)"),
        ("a\\.c|.", "(?s:a\\.c|.)"),
        ("a|b", "a|b"),
        ("\n.", "(?s:\n.)"),
    ],
)
def test_a_dot_matches_a_newline_in_every_engine(regex: str, in_version_2: str):
    for op in ("=~", "!~"):
        selector = Selector("x", "count", 60, matchers=(Matcher("a", op, regex),))
        assert to_promql(selector) == f"count_over_time(x{{a{op}{quote_string(regex)}}}[1m])"
        assert to_promql(selector, language=PROMQL_2) == f"count_over_time(x{{a{op}{quote_string(in_version_2)}}}[1m])"
        assert range_selector(selector, PROMQL_2) == f"x{{a{op}{quote_string(in_version_2)}}}[1m]"
    equal = Selector("x", matchers=(Matcher("a", "=", "a.c"),))
    assert to_promql(equal, language=PROMQL_2) == 'x{a="a.c"}'


def test_every_selector_is_pinned():
    expression = Aggregate("avg", ("uuid",), Ratio(BUSY, UP))
    assert to_promql(expression, at=1700000000.5) == (
        'avg by (uuid) (rate(gpu_busy_seconds_total{uuid=~"GPU-.*"}[30m] @ 1700000000.500)'
        " / (gpu_up @ 1700000000.500 != 0))"
    )


def test_only_text():
    assert to_promql(restrict_to_values(UP, "uuid", ('GPU-"1"',))) == 'gpu_up{uuid="GPU-\\"1\\""}'


@pytest.mark.parametrize(
    ("text", "literal"),
    [
        ('a"b', '"a\\"b"'),
        ("a\\b", '"a\\\\b"'),
        ("a\nb\tc\rd", '"a\\nb\\tc\\rd"'),
        ("\x00\x1f\x7f", '"\\x00\\x1f\\x7f"'),
        ("🚀 é", '"🚀 é"'),
        ("\ufffd", '"\\ufffd"'),
        ("it's", '"it\'s"'),
    ],
)
def test_quote(text: str, literal: str):
    assert quote_string(text) == literal


def test_quote_refuses_what_is_not_text():
    with pytest.raises(ValueError, match="Unicode"):
        quote_string("\ud800")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1, "1s"), (90, "90s"), (120, "2m"), (1800, "30m"), (5400, "90m"), (86400, "1d"), (604800, "1w"), (3601, "3601s")],
)
def test_duration(seconds: int, text: str):
    assert format_duration(seconds) == text


def test_refused_numbers():
    with pytest.raises(ValueError, match="greater than 0"):
        to_promql(Selector("x", "mean", 0))
    with pytest.raises(ValueError, match="finite"):
        to_promql(Affine(UP, scale=float("nan")))
