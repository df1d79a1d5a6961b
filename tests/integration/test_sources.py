"""The two sources side by side on the same samples: a real server of each engine, and the embedded history."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from gpu_advisor.promql.compiler import quote_string, to_promql
from gpu_advisor.promql.expressions import (
    Affine,
    Aggregate,
    AggregateOp,
    ConstantLabel,
    Expression,
    Function,
    LabelReplace,
    Matcher,
    Ratio,
    Selector,
    Sum,
    Union,
    metrics_of,
    restrict_to_values,
)
from gpu_advisor.sources.base import SourceError, SourceErrorKind
from gpu_advisor.sources.embedded.history import History
from gpu_advisor.sources.embedded.openmetrics_import import import_openmetrics
from gpu_advisor.sources.embedded.scraper import Scraper
from gpu_advisor.sources.embedded.source import EmbeddedSource
from gpu_advisor.sources.prometheus.connection import PrometheusClientConfig
from gpu_advisor.sources.prometheus.engine import Engine, EngineKind
from gpu_advisor.sources.prometheus.source import PrometheusSource
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.embedded import embedded_source
from tests.polling import wait_until
from tests.servers import Prometheus, engines_under_test, prometheus
from tests.unit.sources.fake_http import fake_http, reply

pytestmark = pytest.mark.servers

START = 1_700_000_000.0
TARGET = 'instance="a:1",job="gpu-exporter"'
LABELS = (("instance", "a:1"), ("job", "gpu-exporter"))
RATES = ("rate", "increase")
WINDOWED: list[Function] = ["mean", "min", "max", "quantile", "sum", "rate", "increase", "count"]


@pytest.fixture(scope="module", params=engines_under_test())
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def is_victoriametrics(engine: str) -> bool:
    return engine.startswith("victoriametrics")


def skip_victoriametrics(engine: str, why: str) -> None:
    if is_victoriametrics(engine):
        pytest.skip(f"VictoriaMetrics {why}")


NO_NAN = "does not store NaN"


class BothSources(NamedTuple):
    prometheus: PrometheusSource
    embedded: EmbeddedSource
    server: Prometheus
    engine: str

    def instant(self, expression: Expression, at: float) -> Mapping[tuple[tuple[str, str], ...], float]:
        """The embedded source's answer, which is Prometheus' too."""
        ours = self.embedded.instant({"x": expression}, at)["x"]
        theirs = self.prometheus.instant({"x": expression}, at)["x"]
        assert ours.keys() == theirs.keys(), to_promql(expression)
        for labels, value in theirs.items():
            assert ours[labels] == pytest.approx(value, rel=1e-9, abs=0, nan_ok=True), (to_promql(expression), labels)
        return ours


def same_samples(folder: Path, series: Mapping[str, list[tuple[float, float]]]) -> tuple[Path, History]:
    """A file for promtool, and the same in a history. Keys are `name{label="value"`, without the closing brace."""
    past = folder / "past.txt"
    with past.open("w") as file:
        for name, samples in series.items():
            comma = "" if name.endswith("{") else ","
            file.writelines(f"{name}{comma}{TARGET}}} {text(value)} {at:.3f}\n" for at, value in samples)
        file.write("# EOF\n")
    history = History(folder / "history.db")
    import_openmetrics(
        history,
        (f"{name}}} {text(value)} {at:.3f}\n" for name, samples in series.items() for at, value in samples),
        instance="a:1",
    )
    return past, history


def text(value: float) -> str:
    return "NaN" if math.isnan(value) else repr(value).replace("inf", "Inf")


# --- every function, many histories


COUNTERS, ALL_KINDS, DECIMAL_KINDS = 3, 9, 6  # the first 3 kinds of 9 are counters, of the first 6 digits are few


def random_history(rng: np.random.Generator, kind: int, *, decimal: bool) -> list[tuple[float, float]]:
    """Some minutes of one series: any shape of time and of values that an exporter could produce, and a few more.

    `decimal`: only values that a store with some 15 decimal digits keeps.
    """
    distance = float(rng.choice([1, 5, 15, 60]))
    count = int(rng.choice([1, 2, 3, int(rng.integers(4, int(1200 // distance) + 5))]))
    times = START + distance * np.arange(count)
    if rng.random() < 0.5:
        times = times + rng.uniform(-0.45, 0.45, count) * distance
    if rng.random() < 0.4:
        times = times + rng.uniform(0, 700)
    keep = rng.random(count) > rng.choice([0, 0, 0.1, 0.6])
    if rng.random() < 0.4:  # a gap
        middle = rng.uniform(START, START + 1200)
        keep &= np.abs(times - middle) > rng.uniform(0, 400)
    scale = 10.0 ** float(rng.choice([0, 0, 2, 6, 15, -12] if decimal else [0, 0, 2, 6, 15, -12, -300, 290]))
    values: NDArray[np.floating]
    if kind < COUNTERS:  # a counter, perhaps with resets
        values = np.cumsum(rng.exponential(1, count) * rng.choice([0, 1], count)) + float(rng.choice([0, 0, 1e3]))
        for reset in rng.integers(0, count, int(rng.integers(0, 4))):
            values[reset:] -= values[reset] * float(rng.choice([1, 0.5]))
    elif kind == 3:
        values = np.full(count, float(rng.choice([0, 1, -1, 0.1, 3])))
    elif kind == 4:
        values = rng.normal(0, 1, count)
    elif kind == 5:
        values = rng.integers(0, 101, count) / 100
    elif kind == 6:
        values = -rng.exponential(1, count) * 10.0 ** rng.integers(-8, 8, count)
    elif kind == 7:  # large values that cancel out: only the same steps give the same mean
        values = 1e12 * (-1.0) ** np.arange(count) + rng.integers(0, 3, count)
    else:
        values = rng.normal(0, 1, count)
        values[rng.random(count) < 0.05] = np.nan
        values[rng.random(count) < 0.05] = np.inf * float(rng.choice([-1, 1]))
    times, values = np.round(times[keep], 3), values[keep] * scale
    return list(zip(times.tolist(), values.tolist(), strict=True))


@settings(
    max_examples=2,
    deadline=None,
    phases=[Phase.generate],  # an example costs seconds: it is not shrunk, it holds 100 histories and names the bad one
    suppress_health_check=list(HealthCheck),
)
@given(seed=st.integers(0, 2**32 - 1))
def test_all_functions_on_random_histories(tmp_path_factory: pytest.TempPathFactory, engine: str, seed: int):
    rng = np.random.default_rng(seed)
    folder = tmp_path_factory.mktemp("random")
    decimal = is_victoriametrics(engine)
    kinds = rng.integers(0, DECIMAL_KINDS if decimal else ALL_KINDS, 100).tolist()
    samples = [random_history(rng, kind, decimal=decimal) for kind in kinds]
    counters = [
        kind < COUNTERS and all(value >= 0 for _, value in each) for kind, each in zip(kinds, samples, strict=True)
    ]
    series = {f'x{{h="{h}",counter="{counters[h]}"': each for h, each in enumerate(samples)}
    past, history = same_samples(folder, series)
    with prometheus(folder, backfill=past, engine=engine) as server:
        theirs = PrometheusSource(PrometheusClientConfig(server.url))
        ours = embedded_source(history, server)
        compared = 0
        selects = [Selector("x")]
        for window in (60, int(rng.integers(2, 1500))):
            q = float(rng.random())
            selects += [Selector("x", name, window, q if name == "quantile" else None) for name in WINDOWED]
        selects += [Selector("x", "quantile", 90, q) for q in (0.0, 1.0)]
        if decimal:  # VictoriaMetrics has other ideas of resets of what is no counter
            real = (Matcher("counter", "=", "True"),)
            selects = [replace(each, matchers=real if each.function in RATES else ()) for each in selects]
        for select in selects:
            # One grid hits the samples' own times and the windows' very edges, the other is somewhere in between.
            for start, step in ((START - 30, 15.0), (START + float(rng.uniform(0, 60)), float(rng.uniform(20, 60)))):
                grid = start, start + 1710, step  # the first one ends on a grid point
                mine, right = ours.range(select, *grid), theirs.range(select, *grid)
                assert mine.keys() == right.keys(), (to_promql(select), grid)
                for labels, trail in right.items():
                    assert [at for at, _ in mine[labels]] == [at for at, _ in trail], (to_promql(select), labels)
                    got, wanted = (np.array([value for _, value in points]) for points in (mine[labels], trail))
                    assert np.allclose(got, wanted, rtol=1e-6 if decimal else 1e-9, atol=0), (
                        to_promql(select),
                        labels,
                        grid,
                    )
                    compared += len(trail)
        theirs.close()
        history.close()
    assert compared > 10_000


# --- expressions, labels, pins


ODD_VALUES = [
    'quote"inside',
    "back\\slash",
    "new\nline",
    "\\n",
    "emoji 🚀",
    "brace}",
    "comma, space = {x}",
    "# hash 1 2",
    "a",
    "ab",
    "b",
    "A",
    "a.c",
    "abc",
    "$1",
    "é",
    "\ufffd",
    " lead",
]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, engine: str) -> Iterator[BothSources]:
    rng = np.random.default_rng(7)
    times = [START + 5 * step for step in range(400)]
    series: dict[str, list[tuple[float, float]]] = {}
    for gpu in range(6):
        where = f'uuid="GPU-{gpu}",node="n{gpu // 2}"'
        series[f"busy_total{{{where}"] = list(zip(times, np.cumsum(rng.random(400) * 5).tolist(), strict=True))
        if gpu != 4:
            total = [0.0 if gpu == 5 else 80.0 + gpu] * 400
            series[f"total_bytes{{{where}"] = list(zip(times, total, strict=True))
        series[f"used_bytes{{{where}"] = list(zip(times, (rng.random(400) * 80).tolist(), strict=True))
    series["no_labels{"] = list(zip(times, rng.random(400).tolist(), strict=True))
    for number, value in enumerate(ODD_VALUES):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        series[f'odd{{v="{escaped}",n="{number}"'] = [(START, float(number))]
    series['odd{n="none"'] = [(START, -1.0)]
    series['mixed{v="nan"'] = [(START, math.nan)]
    series['mixed{v="inf"'] = [(START, math.inf)]
    series['mixed{v="one"'] = [(START, 1.0)]
    for milliseconds in range(0, 1000, 37):
        series[f"at_{milliseconds}{{"] = [(START + 1e6 + milliseconds / 1000, 1.0)]
    folder = tmp_path_factory.mktemp("both")
    past, history = same_samples(folder, series)
    with prometheus(folder, backfill=past, engine=engine) as server:
        source = PrometheusSource(PrometheusClientConfig(server.url))
        yield BothSources(source, embedded_source(history, server), server, engine)
        source.close()
        history.close()


USED, TOTAL = Selector("used_bytes"), Selector("total_bytes")
BUSY = Selector("busy_total", "rate", 300)
FULL = Ratio(Selector("used_bytes", "mean", 300), TOTAL)


@pytest.mark.parametrize(
    ("expression", "results"),
    [
        (FULL, 4),  # one GPU has no total, one has a total of zero
        (Ratio(TOTAL, Aggregate("sum", ("node",), USED)), 0),  # no labels are equal
        (Ratio(Aggregate("sum", ("node",), USED), Aggregate("sum", ("node",), TOTAL)), 2),
        (Ratio(BUSY, BUSY), 6),
        (Aggregate("count", ("node",), FULL), 2),
        (Aggregate("avg", (), FULL), 1),  # not NaN for the GPU with a total of zero
        (Aggregate("max", ("node", "uuid"), BUSY), 6),
        (Aggregate("sum", ("nothing",), USED), 1),
        (Aggregate("min", ("node",), Affine(USED, scale=-2, offset=100)), 3),
        (Affine(FULL, scale=100), 4),
        (Affine(Aggregate("avg", ("node",), BUSY), scale=-1, offset=1), 3),
        (Affine(Affine(USED, offset=-3.5), scale=1e-9), 6),
        (Selector("no_labels"), 1),
        (Ratio(Selector("no_labels"), Selector("no_labels", "max", 60)), 1),
        (Selector("not_there"), 0),
        (Ratio(USED, Selector("not_there")), 0),
        (Aggregate("sum", (), Selector("not_there")), 0),  # nothing, not zero
        (Selector("mixed"), 3),  # NaN and infinity are answers
        (Aggregate("count", (), Ratio(Selector("mixed"), Selector("mixed"))), 1),
        (Aggregate("sum", (), Selector("mixed")), 1),
        (Sum((USED, TOTAL)), 5),
        (Sum((USED, USED, Selector("not_there"))), 0),
        (Union((TOTAL, USED)), 6),
        (Union((Selector("not_there"), USED)), 6),
        (Union((Selector("mixed"), Affine(Selector("mixed"), 2))), 3),
        (Ratio(Union((TOTAL, USED)), Sum((USED, TOTAL))), 5),
        (LabelReplace(USED, "host", "node"), 6),
        (Aggregate("max", ("gpu",), LabelReplace(USED, "gpu", "uuid")), 6),
        (Aggregate("max", ("gpu",), LabelReplace(Selector("no_labels"), "gpu", "uuid")), 1),
        (Aggregate("max", ("id",), LabelReplace(Selector("odd"), "id", "v", "a$1-")), 19),
        (ConstantLabel(USED, "node", "the $1 node"), 6),
        (ConstantLabel(Aggregate("sum", (), USED), "part", "1"), 1),
        (
            Union(
                (ConstantLabel(USED, "part", "0"), ConstantLabel(TOTAL, "part", "1"), ConstantLabel(USED, "part", "2"))
            ),
            17,
        ),
        (
            Aggregate("count", ("part",), Union((ConstantLabel(USED, "part", "0"), ConstantLabel(TOTAL, "part", "1")))),
            2,
        ),
        (ConstantLabel(USED, "node", ""), 6),
    ],
)
def test_expressions(both: BothSources, expression: Expression, results: int):
    if "mixed" in metrics_of(expression):
        skip_victoriametrics(both.engine, NO_NAN)
    at = START if metrics_of(expression) & {"mixed", "odd"} else START + 1234.567
    assert len(both.instant(expression, at)) == results


@pytest.mark.parametrize("op", ["sum", "avg", "min", "max", "count"])
def test_aggregations_of_what_is_not_finite(both: BothSources, op: AggregateOp):
    skip_victoriametrics(both.engine, NO_NAN)
    for value in ("nan|inf", "nan|one", "inf|one", "nan"):
        both.instant(Aggregate(op, (), Selector("mixed", matchers=(Matcher("v", "=~", value),))), START)


@pytest.mark.parametrize(
    ("matchers", "found"),
    [
        ([Matcher("v", "=~", "a")], {"a"}),  # anchored at both ends
        ([Matcher("v", "=~", "a|b")], {"a", "b"}),
        ([Matcher("v", "=~", "a.*")], {"a", "ab", "a.c", "abc"}),
        ([Matcher("v", "=~", "a\\.c")], {"a.c"}),
        ([Matcher("v", "=~", "(?i)a")], {"a", "A"}),
        ([Matcher("v", "=~", "new.line")], {"new\nline"}),  # a dot may be a line's end, as in Prometheus 3
        ([Matcher("v", "=~", "new\\.line|a.c")], {"a.c", "abc"}),
        ([Matcher("v", "=~", "new(?s:.)line")], {"new\nline"}),
        ([Matcher("v", "=~", "new\\sline")], {"new\nline"}),
        ([Matcher("v", "=", "")], {None}),  # a label that is not there is empty
        ([Matcher("v", "!=", "")], set(ODD_VALUES)),
        ([Matcher("v", "=~", "|a")], {None, "a"}),
        ([Matcher("v", "!~", "(?s).+")], {None}),
        ([Matcher("v", "!~", "[a-z]+"), Matcher("v", "=~", "\\w*")], {None, "A"}),
        ([Matcher("n", "=", "none"), Matcher("absent", "!=", "x")], {None}),
        ([Matcher("v", "!=", "a"), Matcher("v", "=~", "a|ab")], {"ab"}),
    ],
)
def test_matchers(both: BothSources, matchers: list[Matcher], found: set[str | None]):
    answer = both.instant(Selector("odd", matchers=tuple(matchers)), START)
    assert {dict(labels).get("v") for labels in answer} == found


@pytest.mark.parametrize("value", ODD_VALUES)
def test_label_values_survive(both: BothSources, value: str):
    for matcher in (Matcher("v", "=", value), Matcher("v", "=~", re.escape(value))):
        (labels,) = both.instant(Selector("odd", matchers=(matcher,)), START)
        assert dict(labels)["v"] == value


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=st.text())
def test_every_text_can_be_quoted(both: BothSources, value: str):
    skip_victoriametrics(both.engine, "has no queries of a string")
    answer: Any = both.server.query(quote_string(value))
    assert answer[1] == value


@pytest.mark.parametrize("expression", ["(", "*", "a(?=b)", "(a)\\1", "a++", "[[:alpha:]", "(?P=x)"])
def test_refused_regular_expressions(both: BothSources, expression: str):
    select = Selector("odd", matchers=(Matcher("v", "=~", expression),))
    for source in (both.prometheus, both.embedded):
        with pytest.raises(SourceError) as caught:
            source.instant({"x": select}, START)
        assert caught.value.kind is SourceErrorKind.QUERY_ERROR


def test_labels_must_stay_distinct(both: BothSources):
    for source in (both.prometheus, both.embedded):
        with pytest.raises(SourceError) as caught:
            source.instant({"x": LabelReplace(USED, "uuid", "node")}, START + 1000)
        assert caught.value.kind is SourceErrorKind.QUERY_ERROR


def test_a_second_name_is_refused(both: BothSources):
    skip_victoriametrics(both.engine, "takes it")
    for source in (both.prometheus, both.embedded):
        with pytest.raises(SourceError) as caught:
            source.instant({"x": Selector("odd", matchers=(Matcher("__name__", "=~", "o.*"),))}, START)
        assert caught.value.kind is SourceErrorKind.QUERY_ERROR


@pytest.mark.parametrize("grid", [(START, START + 60_000, 5.0), (START + 60, START, 15.0)])
def test_refused_ranges(both: BothSources, grid: tuple[float, float, float]):
    skip_victoriametrics(both.engine, "takes them")
    for source in (both.prometheus, both.embedded):
        with pytest.raises(SourceError) as caught:
            source.range(USED, *grid)
        assert caught.value.kind is SourceErrorKind.QUERY_ERROR


@pytest.mark.parametrize("value", ODD_VALUES)
def test_things_are_found_through_their_renaming(both: BothSources, value: str):
    renamed = Aggregate("max", ("id", "n"), LabelReplace(Selector("odd"), "id", "v", "GPU-"))
    (labels,) = both.instant(restrict_to_values(renamed, "id", ("GPU-" + value,)), START)
    assert dict(labels) == {"id": "GPU-" + value, "n": str(ODD_VALUES.index(value))}
    assert len(
        both.instant(restrict_to_values(renamed, "id", ("GPU-" + value, "GPU-emoji 🚀", "GPU-nobody")), START)
    ) in (1, 2)


def test_several_windows_of_one_family_at_once(both: BothSources):
    expressions = {str(window): Selector("used_bytes", "count", window) for window in (60, 600, 300)}
    ours = both.embedded.instant(expressions, START + 1000)
    assert ours == both.prometheus.instant(expressions, START + 1000)
    assert {key: set(vector.values()) for key, vector in ours.items()} == {
        str(window): {samples + (1 if both.prometheus.engine().behavior.left_closed else 0)}
        for window, samples in ((60, 12), (600, 120), (300, 60))
    }


def test_range_of_an_expression(both: BothSources):
    expression = Aggregate("avg", ("node",), FULL)
    grid = (START - 100.25, START + 2400, 33.5)
    ours, theirs = both.embedded.range(expression, *grid), both.prometheus.range(expression, *grid)
    assert ours.keys() == theirs.keys()
    assert len(ours) == 2
    for labels, trail in theirs.items():
        assert len(trail) > 50
        assert [at for at, _ in ours[labels]] == [at for at, _ in trail]
        assert [value for _, value in ours[labels]] == pytest.approx([value for _, value in trail], rel=1e-9)


@pytest.mark.parametrize("at", [START + 1000, START + 1234.567, START + 1999.999, START + 0.001])
def test_pinned_text_gives_the_same_number_later(both: BothSources, at: float):
    expression = Affine(Aggregate("max", ("node",), Ratio(BUSY, Selector("used_bytes", "mean", 600))), scale=100)
    now = both.instant(expression, at)
    later = both.server.query(to_promql(expression, at, both.prometheus.query_language()), time=START + 9999)
    assert {tuple(sorted(item["metric"].items())): float(item["value"][1]) for item in later} == pytest.approx(now)
    assert at < START + 1 or len(now) == 3


@pytest.mark.parametrize("at", [START + 1000, START + 1234.567, START + 0.001, START - 1, START + 1e6])
def test_raw_samples(both: BothSources, at: float):
    """Those that the range functions see: of two windows, one with matchers, and none."""
    selectors = {
        "minute": Selector("used_bytes", "mean", 60),
        "some": Selector("busy_total", "count", 600, matchers=(Matcher("uuid", "=~", "GPU-[12]"),)),
        "none": Selector("not_there", "count", 60),
        "odd": Selector("odd", "count", 3600),
    }
    theirs, ours = both.prometheus.samples(selectors, at), both.embedded.samples(selectors, at)
    assert theirs.keys() == ours.keys() == selectors.keys()
    for key, series in ours.items():
        assert theirs[key].keys() == series.keys(), key
        for labels, (times, values) in series.items():
            got_times, got_values = theirs[key][labels]
            assert got_times.dtype == times.dtype == np.int64
            np.testing.assert_array_equal(got_times, times)
            np.testing.assert_allclose(got_values, values, rtol=1e-11)  # VictoriaMetrics rounds
        counts = both.instant(replace(selectors[key], function="count"), at)
        assert {labels: float(times.size) for labels, (times, _) in series.items()} == counts
    with pytest.raises(ValueError, match="need a window"):
        both.prometheus.samples({"x": Selector("used_bytes")}, at)
    with pytest.raises(ValueError, match="need a window"):
        both.embedded.samples({"x": Selector("used_bytes")}, at)


@pytest.mark.parametrize("milliseconds", range(0, 1000, 37))
def test_times_are_exact_to_the_millisecond(both: BothSources, milliseconds: int):
    """A time sent as a float may arrive one millisecond early, and this sample would not be there yet."""
    select, language = Selector(f"at_{milliseconds}"), both.prometheus.query_language()
    for early, found in ((0, 1), (1, 0)):
        at = START + 1e6 + (milliseconds - early) / 1000
        assert both.instant(select, at) == ({LABELS: 1.0} if found else {})
        assert len(both.server.query(to_promql(select, at, language), time=START)) == found


def test_the_engine_is_detected(both: BothSources):
    name, _, version = both.engine.partition("-")
    engine = both.prometheus.engine()
    if is_victoriametrics(both.engine):
        assert engine == Engine(EngineKind.VICTORIAMETRICS, "VictoriaMetrics")
    else:
        found = engine.version or ""
        assert (engine.product.lower(), engine.kind.value) == (name, f"Prometheus {found[0]}")
        assert found.startswith(version)


# --- series that end


def test_staleness_as_prometheus_has_it(tmp_path: Path, engine: str):
    page = ['x{a="1"} 1\nx{a="2"} 2\nx{a="",b="3",instance="mine"} 3\n']
    malformed = "" if is_victoriametrics(engine) else "x{ half a li"  # where malformed lines are skipped, no page

    def answer(handler: BaseHTTPRequestHandler, number: int) -> None:
        reply(200 if page[0] else 500, page[0], "text/plain; version=0.0.4")(handler, number)

    history = History(tmp_path / "history.db")
    with (
        fake_http(answer) as exporter,
        prometheus(
            tmp_path, scrape={"gpu-exporter": [exporter.address]}, scrape_interval="200ms", engine=engine
        ) as server,
    ):
        theirs, ours = PrometheusSource(PrometheusClientConfig(server.url)), EmbeddedSource(history)
        scraper = Scraper(history, [exporter.address], 0.2, {"x"})
        scraper.start()

        def now(expression: Expression) -> tuple[object, object]:
            at = time.time()
            return ours.instant({"x": expression}, at)["x"], theirs.instant({"x": expression}, at)["x"]

        def agree(expression: Expression, values: list[float]) -> Callable[[], bool]:
            def check() -> bool:
                mine, right = now(expression)
                return mine == right and sorted(mine.values()) == values  # type: ignore[attr-defined]

            return check

        wait_until(agree(Selector("x"), [1, 2, 3]), "all series, with the target's labels and the hidden one's")
        wait_until(agree(Selector("up"), [1]), "up")
        page[0] = 'x{a="1"} 1\n'
        wait_until(agree(Selector("x"), [1]), "a series that left the page ends")
        page[0] = 'x{a="1"} 1\nx{a="2"} 4\n'
        wait_until(agree(Selector("x"), [1, 4]), "it comes back")
        page[0] = malformed
        wait_until(agree(Selector("up"), [0]), "a malformed page: the target is down")
        wait_until(agree(Selector("x"), []), "all its series end")
        page[0] = 'x{a="1"} 5\n'
        wait_until(agree(Selector("x"), [5]), "up again")
        scraper.stop()
        # The markers themselves are no samples: this counts what was scraped and no more.
        raw = theirs.samples({"x": Selector("x", "count", 300)}, time.time())["x"].values()
        assert {value for _, values in raw for value in values.tolist()} == {1, 2, 3, 4, 5}
        theirs.close()
        assert set(ours.instant({"x": Selector("x", "min", 300)}, time.time())["x"].values()) == {1, 2, 3}
    history.close()
