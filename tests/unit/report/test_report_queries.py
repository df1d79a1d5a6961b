"""A past is read in few queries, from recorded series where there are some, and a query that fails takes none along."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from gpu_advisor.promql.expressions import Expression, Labels, Matcher, TimeSeries, metrics_of, selectors_of
from gpu_advisor.report import series
from gpu_advisor.report.fleet_history import FleetHistory
from gpu_advisor.report.generate import generate_report
from gpu_advisor.report.history_reader import read_history
from gpu_advisor.report.period import report_period
from gpu_advisor.settings import Settings
from gpu_advisor.sources.base import SourceError, SourceErrorKind
from gpu_advisor.sources.embedded.history import History
from gpu_advisor.sources.embedded.openmetrics_import import import_openmetrics
from gpu_advisor.sources.embedded.source import EmbeddedSource

from benchmarks.week_generator import HOUR, generate_samples
from tests.unit.report.builders import END, view_of

GPUS = 4
LENGTH = 8 * HOUR
TARGET = ("node-000:9816", "gpu-exporter")


def plain(lines: Iterable[str]) -> Iterator[str]:
    """Without the labels that a scrape adds: the import puts them on."""
    for line in lines:
        yield re.sub(r'(,?)job="[^"]*",instance="[^"]*"', "", line).replace("{,", "{").replace("{}", "")


def recorded(first: float, last: float, gpus: int = GPUS) -> Iterator[str]:
    """What rules would have made of the GPUs, half an hour at a time; not what the raw series say."""
    for at in range(int(first), int(last) + 1, 60):
        for number in range(gpus):
            uuid = f'{{uuid="GPU-{number:08x}"}}'
            yield f"gpu:utilization_ratio:mean30m{uuid} 0.25 {at}\n"
            yield f"gpu:utilization_coverage_ratio:mean30m{uuid} 1 {at}\n"
            yield f"gpu:memory_used_ratio:last{uuid} 0.5 {at}\n"


class CountingRange:
    """A source's range, counted; `refused` says which queries fail, and how."""

    def __init__(self, source: EmbeddedSource, refused: Callable[[Expression], SourceErrorKind | None]) -> None:
        self.source, self.refused, self.expressions = source, refused, list[Expression]()

    def __call__(self, expression: Expression, start: float, end: float, step: float) -> Mapping[Labels, TimeSeries]:
        self.expressions.append(expression)
        kind = self.refused(expression)
        if kind is not None:
            raise SourceError(kind, "refused by the test")
        return self.source.range(expression, start, end, step)


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    found = History(tmp_path_factory.mktemp("past") / "history.db")
    import_openmetrics(found, plain(generate_samples(GPUS, END, LENGTH, 60)), *TARGET)
    import_openmetrics(found, recorded(END - 5 * HOUR, END - 2 * HOUR), "rules", "rules")
    yield found
    found.close()


def asked(past: History, since: int, refused: Any = None) -> tuple[FleetHistory, CountingRange]:
    ask = CountingRange(EmbeddedSource(past), refused or (lambda _: None))
    return read_history(ask, report_period(END, since), ask.source.samples), ask


@pytest.mark.parametrize("since", [HOUR, 6 * HOUR, 3 * 24 * HOUR, 20 * 24 * HOUR, 100 * 24 * HOUR])
def test_few_queries_whatever_the_length(past: History, since: int) -> None:
    found, ask = asked(past, since)
    # One besides reads raw samples: scrape intervals.
    assert len(ask.expressions) + 1 == found.queries <= 10
    assert len(found.gpus) == GPUS
    assert found.unavailable == ()


def test_recorded_series_are_read_where_they_are_and_raw_ones_elsewhere(past: History) -> None:
    found, _ = asked(past, 3 * 24 * HOUR)
    assert found.recorded
    steps = found.of(series.UTILIZATION, "GPU-00000000")
    from_rules = {index for index, value in steps.items() if value == 0.25}
    times = sorted(found.period.time(index) for index in from_rules)
    assert (times[0], times[-1]) == (END - 5 * HOUR, END - 2 * HOUR)
    others = {index: value for index, value in steps.items() if index not in from_rules}
    assert len(others) == 2 * (LENGTH - 3 * HOUR) // HOUR - 1
    assert all(value > 0.8 for value in others.values())  # training, as the raw series say


def test_a_gpu_that_the_rules_do_not_know_is_read_from_its_own_series(tmp_path: Path) -> None:
    found = History(tmp_path / "history.db")
    import_openmetrics(found, plain(generate_samples(2, END, 6 * HOUR, 60)), *TARGET)
    import_openmetrics(found, recorded(END - 5 * HOUR, END - HOUR, gpus=1), "rules", "rules")
    reported, ask = asked(found, 3 * 24 * HOUR)
    found.close()
    held = [
        select
        for each in ask.expressions
        for select in selectors_of(each)
        if select.metric == "gpu_observed_seconds_total"
    ]
    assert any(Matcher("uuid", "=", "GPU-00000001") in select.matchers for select in held)
    known, other = (reported.of(series.UTILIZATION, f"GPU-0000000{number}") for number in (0, 1))
    assert known.keys() == other.keys()
    assert 0.25 in known.values()
    assert min(other.values()) > 0.8


def test_identity_sightings_and_nodes(past: History) -> None:
    found, _ = asked(past, 3 * 24 * HOUR)
    assert {gpu.node for gpu in found.gpus} == {"node-000"}
    assert found.cpu.keys() == {"node-000"}
    last = found.period.points - 1
    assert set(found.observed_spans.values()) == {(last - LENGTH // 1800, last)}


def test_a_query_that_fails_is_reported_and_takes_nothing_else_along(past: History) -> None:
    def no_cpu(expression: Expression) -> SourceErrorKind | None:
        cpu = {"node_cpu_seconds_total", "node:cpu_ratio:mean5m"} & metrics_of(expression)
        return SourceErrorKind.TIMEOUT if cpu else None

    found, _ = asked(past, 6 * HOUR, no_cpu)
    assert found.cpu == {}
    assert found.values[series.UTILIZATION]
    assert any("CPU" in why and "refused by the test" in why for why in found.unavailable)
    reported = generate_report(CountingRange(EmbeddedSource(past), no_cpu), view_of(), Settings(), 6 * HOUR, END)
    assert reported["groups"][0]["cpu_ratio"] is None
    assert set(reported["groups"][0]["trends"]["cpu"]) == {None}
    assert reported["unavailable"]


def test_what_is_too_much_at_once_is_read_in_pieces(past: History) -> None:
    limit = 100

    class SlowRange(CountingRange):
        def __call__(
            self, expression: Expression, start: float, end: float, step: float
        ) -> Mapping[Labels, TimeSeries]:
            too_much = "gpu_busy_seconds_total" in metrics_of(expression) and (end - start) / step > limit
            self.refused = lambda _: SourceErrorKind.TIMEOUT if too_much else None
            return super().__call__(expression, start, end, step)

    whole, _ = asked(past, 4 * 24 * HOUR)
    slow = SlowRange(EmbeddedSource(past), lambda _: None)
    found = read_history(slow, report_period(END, 4 * 24 * HOUR), slow.source.samples)
    assert found.unavailable == ()
    assert found.values == whole.values
    limit = 10
    short = read_history(slow, report_period(END, 4 * 24 * HOUR), slow.source.samples)
    assert len(short.unavailable) >= 4
    assert all("the GPUs' past" in why or "GPUs could not be read from" in why for why in short.unavailable)
    assert series.MEMORY in short.values  # what is recorded is there all the same


def test_a_source_that_is_away_makes_no_report(past: History) -> None:
    with pytest.raises(SourceError):
        asked(past, HOUR, lambda _: SourceErrorKind.UNREACHABLE)


def test_before_all_history_nothing_is_known(past: History) -> None:
    ask = EmbeddedSource(past).range
    reported = generate_report(ask, view_of(), Settings(), HOUR, END - 30 * 24 * HOUR)
    assert reported["groups"] == []
    assert reported["period"]["data_start"] is None


def test_a_gpu_that_left_counts_while_it_was_there(tmp_path: Path) -> None:
    """What is known of it ends with it: neither waste nor a lower coverage follow."""
    found = History(tmp_path / "history.db")
    uuid = 'uuid="GPU-1"'
    stay = 'uuid="GPU-2"'

    def lines() -> Iterator[str]:
        for at in range(int(END) - 4 * HOUR, int(END) + 1, 60):
            for own in (uuid, stay) if at < END - 2 * HOUR else (stay,):
                yield f'gpu_info{{{own},index="0",name="Tesla T4",vendor="nvidia",nodename="a"}} 1 {at}\n'
                yield f"gpu_busy_seconds_total{{{own}}} {0.5 * (at - END) + 1e6} {at}\n"
                yield f"gpu_observed_seconds_total{{{own}}} {at - END + 1e6} {at}\n"

    import_openmetrics(found, lines(), *TARGET)
    reported = generate_report(
        EmbeddedSource(found).range, view_of(), Settings(), 4 * HOUR, END, samples=EmbeddedSource(found).samples
    )
    found.close()
    [fleet, _pool] = reported["groups"]
    assert fleet["gpus"] == 2
    assert fleet["gpu_hours"]["present"] == pytest.approx(6, abs=0.25)
    assert fleet["gpu_utilization_ratio"] == pytest.approx(0.5, abs=1e-3)
    assert fleet["gpu_hours"]["memory_allocated"] is None  # nothing reports memory: unknown, not zero
    assert fleet["gpu_memory_ratio"] is None
    assert fleet["coverage_ratio"] == pytest.approx(1, abs=0.05)


def test_another_exporter_is_read_by_its_own_names(tmp_path: Path) -> None:
    """dcgm-exporter: gauges in percent and MiB, whose number of samples gives the coverage."""
    found = History(tmp_path / "history.db")
    own = 'UUID="GPU-1",gpu="0",device="nvidia0",modelName="Tesla T4",Hostname="b"'

    def lines() -> Iterator[str]:
        for at in range(int(END) - 3 * HOUR, int(END) + 1, 15):
            yield f"up 1 {at}\n"
            if not END - 2 * HOUR <= at < END - HOUR:  # an hour of silence
                yield f"DCGM_FI_DEV_GPU_UTIL{{{own}}} 40 {at}\n"
                yield f"DCGM_FI_DEV_FB_USED{{{own}}} 3000 {at}\n"
                yield f"DCGM_FI_DEV_FB_FREE{{{own}}} 12000 {at}\n"

    import_openmetrics(found, lines(), "b:9400", "dcgm")
    reported = generate_report(
        EmbeddedSource(found).range, view_of(), Settings(), 3 * HOUR, END, samples=EmbeddedSource(found).samples
    )
    found.close()
    fleet, pool = reported["groups"]
    assert pool["name"] == "Tesla T4"
    assert fleet["gpu_utilization_ratio"] == pytest.approx(0.4)
    assert fleet["gpu_memory_ratio"] == pytest.approx(0.2)
    assert fleet["gpu_hours"]["present"] == pytest.approx(3, abs=0.1)
    assert fleet["gpu_hours"]["observed"] == pytest.approx(2, abs=0.1)
    assert fleet["coverage_ratio"] == pytest.approx(2 / 3, abs=0.05)
